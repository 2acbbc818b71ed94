import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from senet import DataError
from senet.data import ImageData, decode, open_data, open_image
from senet.data.images import read_image, to_rgb
from senet.data.shards.writing import write_shards
from tests.images import picture

TURNS = range(1, 9)


def turned(orientation: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture as a camera stores it that was held in one of eight ways: upright again, it is `picture(0)`."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = picture(0, *size)
    return image if back is None else image.transpose(back)


def stored(orientation: int, kind: str = "PNG", **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    turned(orientation).save(file, kind, exif=exif.tobytes(), **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_images_are_upright(orientation: int, kind: str, options: dict[str, object]) -> None:
    # They were read as the camera had stored them.
    content = stored(orientation, kind, **options)
    decoded = decode(io.BytesIO(content), "x")
    np.testing.assert_array_equal(decoded, picture(0, 24, 16))
    again = read_image(io.BytesIO(content), "x")
    assert again.size == (24, 16)
    np.testing.assert_array_equal(ImageOps.exif_transpose(again), picture(0, 24, 16))  # it says nothing of it any more


@pytest.mark.parametrize("orientation", TURNS)
def test_jpeg_and_pil_images_are_upright(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "x.jpg").write_bytes(stored(orientation, "JPEG", quality=100, subsampling=0))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.jpg")))
    assert expected.shape == (16, 24, 3)
    for image in (tmp_path / "x.jpg", Image.open(tmp_path / "x.jpg")):
        np.testing.assert_array_equal(open_image(image), expected)


class Opened:
    """A source of images that are open: some of torchvision's data sets are."""

    def read(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(stored(index + 1)))

    def name(self, index: int) -> str:
        return str(index)


def test_images_of_any_source_are_upright() -> None:
    data = ImageData("opened", Opened(), np.zeros(8, np.int64), ["a"])
    for index in range(8):
        np.testing.assert_array_equal(data[index][0], picture(0, 24, 16))
        assert data.read(index).size == (24, 16)


def test_damaged_metadata_turn_nothing() -> None:
    image = turned(6)
    image.info["exif"] = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"
    np.testing.assert_array_equal(open_image(image), turned(6))
    image.info["exif"] = b"Exif\0\0no TIFF at all"
    np.testing.assert_array_equal(open_image(image), turned(6))


def encoded(image: Image.Image, kind: str) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind)
    file.seek(0)
    return file


def decoded(values: np.ndarray, kind: str = "TIFF") -> np.ndarray:
    return np.asarray(decode(encoded(Image.fromarray(values), kind), f"x.{kind.lower()}"))


@pytest.mark.parametrize("most", [1.0, 255.0, 2.0, 0.5])
def test_floating_point_images(most: float) -> None:
    # Those of 0 to 1 were black.
    values = np.linspace(0, most, 48, dtype=np.float32).reshape(6, 8)
    expected = np.round(values * (255 if most <= 1 else 1)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(values), np.repeat(expected[:, :, None], 3, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, float("nan")], "it has values that are NaN or infinite; replace them"),
        ([0.0, float("inf")], "it has values that are NaN or infinite; replace them"),
        ([-0.5, 0.5], "its floating point values are from -0.5 to 0.5, on neither the scale of 0 to 1 nor that"),
        (
            [0.0, 1.25],
            "its floating point values are from 0 to 1.25, on neither the scale of 0 to 1 nor that of 0 to 255",
        ),
        (
            [0.0, 65535.0],
            "its floating point values are from 0 to 65535, on neither the scale of 0 to 1 nor that of 0 to 255; scale",
        ),
    ],
)
def test_floating_point_images_of_an_unclear_scale(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=f"cannot read the image x.tiff: {message}"):
        decoded(np.array([values], dtype=np.float32))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind: str) -> None:
    values = np.array([[0, 255, 256, 40000, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(decoded(values, kind)[0, :, 0], [0, 0, 1, 156, 255])
    assert not decoded(np.zeros((2, 2), np.uint16), kind).any()


@pytest.mark.parametrize(
    ("values", "dtype"), [([0, 255], np.uint16), ([0, 4095], np.uint16), ([0, 200], np.int32), ([-5, 5000], np.int32)]
)
def test_integers_that_would_be_black(values: list[int], dtype: type) -> None:
    message = f"its values are from {values[0]:,} to {values[1]:,}, which do not fill the scale of 0 to 65,535"
    with pytest.raises(DataError, match=f"cannot read the image x.tiff: {message}"):
        decoded(np.array([values], dtype=dtype))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    steps = {"La": ["LA", "La"], "RGBa": ["RGBA", "RGBa"], "PA": ["P", "PA"]}.get(mode, [mode])
    image = picture(0)
    for step in steps:
        image = image.convert(step)
    found = np.asarray(to_rgb(image)).astype(int)
    assert found.shape == (8, 10, 3)
    if mode in ("1", "L", "LA", "La"):
        grey = np.asarray(picture(0).convert("1" if mode == "1" else "L")).astype(int) * (255 if mode == "1" else 1)
        assert abs(found - grey[:, :, None]).max() <= 1
    elif mode not in ("P", "PA"):
        assert abs(found - np.asarray(picture(0)).astype(int)).max() <= (6 if mode in ("YCbCr", "HSV") else 1)
    else:
        np.testing.assert_array_equal(found, picture(0).convert("P").convert("RGB"))


def test_first_image_of_an_animation() -> None:
    file = io.BytesIO()
    frames = [picture(seed).convert("P") for seed in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    file.seek(0)
    np.testing.assert_array_equal(decode(file, "x.gif"), frames[0].convert("RGB"))


def test_postscript_is_not_run() -> None:
    # Pillow starts Ghostscript for it, whatever the extension is.
    with pytest.raises(DataError, match="cannot read the image x.jpg: it is not an image, or has an unknown format"):
        decode(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"), "x.jpg")


def test_data_set_of_turned_images(tmp_path: Path) -> None:
    for orientation in TURNS:
        (tmp_path / str(orientation)).mkdir()
        (tmp_path / str(orientation) / "x.png").write_bytes(stored(orientation))
    for image, _ in open_data(str(tmp_path)):
        np.testing.assert_array_equal(image, picture(0, 24, 16))


def test_shards_of_turned_images(tmp_path: Path) -> None:
    # As they are encoded where shards have their kind, and as PNG otherwise: upright either way.
    for orientation in TURNS:
        for kind in ("PNG", "AVIF"):
            (tmp_path / "data" / f"{orientation}").mkdir(parents=True, exist_ok=True)
            options = {} if kind == "PNG" else {"quality": 100, "subsampling": "4:4:4"}
            content = stored(orientation, kind, **options)
            (tmp_path / "data" / f"{orientation}" / f"x.{kind.lower()}").write_bytes(content)
    data = open_data(str(tmp_path / "data"))
    write_shards(data, tmp_path / "shards", keep_order=True)
    shards = open_data(f"wds:{tmp_path / 'shards'}")
    for (image, label), (expected, same) in zip(shards, data, strict=True):
        assert label == same
        np.testing.assert_array_equal(image, expected)
        assert abs(np.asarray(image).astype(int) - np.asarray(picture(0, 24, 16)).astype(int)).mean() < 4
