import contextlib
import io
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from senet import DataError
from senet.data import ImageData, decode, open_image
from senet.data.images import to_rgb
from tests.images import corrupt_jpeg, picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = encoded(picture(0, 24, 24), "JPEG"), encoded(picture(0, 24, 24), "PNG")


class Pictures:
    """A source: three pictures, one of them as a file, and one of them broken."""

    def read(self, index: int) -> Image.Image | IO[bytes]:
        files = [io.BytesIO(encoded(picture(1), "PNG")), io.BytesIO(corrupt_jpeg())]
        return picture(0) if index == 0 else files[index - 1]

    def name(self, index: int) -> str:
        return f"picture {index}"


@pytest.fixture
def data() -> ImageData:
    return ImageData("pictures", Pictures(), np.array([2, 0, 2]), ["ant", "bee", "cat"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_modes_become_rgb(mode: str) -> None:
    image = picture(0).convert(mode)
    decoded = decode(io.BytesIO(encoded(image, "PNG")), "x.png")
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(decoded, image.convert("RGB"))


def test_transparent_palette_gives_its_colours_without_a_warning() -> None:
    image = picture(0).convert("P")
    decoded = decode(io.BytesIO(encoded(image, "PNG", transparency=bytes(range(256)))), "x.png")
    np.testing.assert_array_equal(decoded, image.convert("RGB"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_keep_their_upper_eight(dtype: type) -> None:
    # Pillow clips them: nearly every pixel was white.
    values = np.arange(0, 65536, 997).reshape(6, 11)
    expected = np.repeat((values // 256).astype(np.uint8)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(values.astype(dtype))), expected)


@pytest.mark.parametrize("content", [b"", b"no image", corrupt_jpeg(), PNG[:60]], ids=["empty", "text", "jpeg", "png"])
def test_broken_image_is_named_and_closed(content: bytes) -> None:
    file = io.BytesIO(content)
    with pytest.raises(DataError, match="cannot read the image cats/7.jpg: "):
        decode(file, "cats/7.jpg")
    assert file.closed


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"cannot read the image bomb.png: Image size \(576 pixels\) exceeds limit"):
        decode(io.BytesIO(PNG), "bomb.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of what it mends
@settings(max_examples=300, deadline=None)
@given(
    good=st.sampled_from([JPEG, PNG]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=20),
    length=st.integers(0, 2000),
)
def test_any_damage_gives_an_image_or_a_data_error(good: bytes, changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(good)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    # Any other error fails the test.
    with contextlib.suppress(DataError):
        assert decode(io.BytesIO(bytes(damaged[:length])), "x.jpg").mode == "RGB"


def test_images_and_labels(data: ImageData) -> None:
    assert len(data) == 3
    for index in (0, 1):
        image, label = data[index]
        np.testing.assert_array_equal(image, picture(index))
        assert label == [2, 0][index]
    with pytest.raises(DataError, match="cannot read the image picture 2: "):
        data[2]
    with pytest.raises(IndexError):
        data[3]


def test_subsets_of_subsets(data: ImageData) -> None:
    subset = data.subset(np.array([2, 1, 0])).subset(np.array([1, 2]))
    assert [subset.name(index) for index in range(len(subset))] == ["picture 1", "picture 0"]
    np.testing.assert_array_equal(subset[1][0], picture(0))
    assert subset.labels.tolist() == [0, 2]
    assert (subset.classes, subset.spec) == (data.classes, "pictures")


def test_classes_are_matched_by_name(data: ImageData) -> None:
    # The class bee has no image here, and training does not know it: that is no error.
    renamed = data.with_classes(["dog", "cat", "ant"])
    assert renamed.labels.tolist() == [1, 2, 1]
    assert renamed.classes == ["dog", "cat", "ant"]
    assert renamed[0][1] == 1
    assert data.labels.tolist() == [2, 0, 2]


def test_first_of_classes_with_one_name(data: ImageData) -> None:
    assert data.with_classes(["cat", "ant", "cat", "ant"]).labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (["ant", "dog"], "pictures has 1 of 2 classes that training lacks: cat; the 2 known classes are ant, dog"),
        (list("pqrstu"), "2 of 2 classes that training lacks: ant, cat; the 6 known classes are p, q, r, s, t, ..."),
    ],
)
def test_class_that_training_lacks(data: ImageData, known: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        data.with_classes(known)
    assert message in str(caught.value)


def test_many_classes_that_training_lacks_are_cut_short() -> None:
    data = ImageData("letters", Pictures(), np.arange(6), list("abcdef"))
    with pytest.raises(DataError, match="6 of 6 classes that training lacks: a, b, c, d, e, ...; the 1 known"):
        data.with_classes(["z"])


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG of the size that its header says, whatever its pixels are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Raises:
    """A decoder of Pillow's that fails in a way of its own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *args: object, **options: object) -> Image.Image:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Failed to decode frame 0"), "Failed to decode frame 0"),  # of a damaged AVIF
        (zlib.error("Error -3 while decompressing data"), "Error -3 while decompressing"),
        (MemoryError(), "it needs more memory than there is"),
        (RecursionError(), "it is nested too deeply"),
        (KeyError(5), "it lacks 5"),
        (struct.error("unpack requires a buffer of 4 bytes"), "unpack requires"),
    ],
)
def test_any_exception_of_a_decoder_names_the_image(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "open", Raises(error))
    with pytest.raises(DataError, match=f"cannot read the image a.avif: {reason}"):
        decode(io.BytesIO(b""), "a.avif")


def test_damaged_avif() -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = encoded(picture(0, 64, 64), "AVIF")
    with pytest.raises(DataError, match=r"cannot read the image x\.avif: "):
        decode(io.BytesIO(content[: len(content) // 2]), "x.avif")


def test_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    for size in ((12_000, 12_000), (2**31 - 1, 2**31 - 1)):  # Pillow only warns of the first
        content = png_of(*size, b"")
        with pytest.raises(DataError, match=r"cannot read the image x\.png: .*pixels"):
            decode(io.BytesIO(content), "x.png")
    with pytest.raises(DataError, match=r"has 12,000x12,000 pixels, and 134,217,728 in all are the limit"):
        decode(io.BytesIO(png_of(12_000, 12_000, b"")), "x.png")


def test_unicode_forms_of_a_class_are_one(data: ImageData) -> None:
    composed, decomposed = (unicodedata.normalize(form, "ä") for form in ("NFC", "NFD"))
    found = ImageData("pictures", Pictures(), np.array([0, 1]), [decomposed, "b"])
    assert found.classes == [composed, "b"]
    assert found.with_classes(["b", decomposed]).labels.tolist() == [1, 0]
    assert found.with_classes(["b", composed]).labels.tolist() == [1, 0]


def test_open_image(tmp_path: Path) -> None:
    picture(0).convert("L").save(tmp_path / "x.png")
    np.testing.assert_array_equal(open_image(str(tmp_path / "x.png")), picture(0).convert("L").convert("RGB"))
    image = picture(1)
    assert open_image(image) is image
