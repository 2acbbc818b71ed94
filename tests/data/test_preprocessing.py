import re

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torchvision import transforms

from senet.data import Augmentation, Preprocessing, PreprocessingOptions
from tests.helpers import assert_close
from tests.images import picture
from tests.syncs import no_host_sync

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(40, 30), (30, 40), (33, 33), (200, 7), (5, 3)]


def cfg(**values: object) -> dict[str, object]:
    return {
        "input_size": (3, 24, 24),
        "crop_pct": 0.875,
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_mode": "center",
        **values,
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("resize", "crop"), [(24, 21), (24, 24), (16, 20)])
def test_input_is_torchvisions(size: tuple[int, int], interpolation: str, resize: int, crop: int) -> None:
    image = picture(0, *size)
    preprocessing = Preprocessing(resize, crop, MEAN, STD, interpolation)
    reference = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pixels = preprocessing.pixels(image)
    assert pixels.dtype == torch.uint8
    assert_close(preprocessing.normalize(pixels[None])[0], reference(image), 1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@given(
    size=st.tuples(*[st.integers(1, 40)] * 2),
    resize=st.integers(1, 30),
    crop=st.tuples(*[st.integers(1, 40)] * 2),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
@example(size=(33, 20), resize=7, crop=(12, 12), interpolation="bilinear")
def test_pixels_are_torchvisions(
    mode: str, size: tuple[int, int], resize: int, crop: tuple[int, int], interpolation: str
) -> None:
    """To the bit, whatever sides are odd and whether the crop is larger than the image or not."""
    image = picture(0, *size).convert(mode)
    mean, std = (MEAN, STD) if mode == "RGB" else (MEAN[:1], STD[:1])
    reference = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(crop),
            transforms.PILToTensor(),
        ]
    )
    found = Preprocessing(resize, crop, mean, std, interpolation).pixels(image)  # type: ignore[arg-type]
    expected = reference(image.convert("RGB").convert(mode))
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize("size", SIZES[:3])
@pytest.mark.parametrize("values", [{}, {"crop_pct": 0.95}, {"interpolation": "bilinear", "crop_pct": 1.0}])
def test_input_is_timms(size: tuple[int, int], values: dict[str, object]) -> None:
    image = picture(1, *size)
    preprocessing = Preprocessing.of(cfg(**values))
    reference = create_transform(**resolve_data_config(pretrained_cfg=cfg(**values)), is_training=False)
    assert_close(preprocessing.normalize(preprocessing.pixels(image)[None])[0], reference(image), 1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_one_channel_makes_images_grey(mode: str) -> None:
    image = picture(0, 8, 8).convert(mode)
    preprocessing = Preprocessing(8, 8, (0.5,), (0.25,))
    grey = torch.from_numpy(np.array(image.convert("RGB").convert("L"), dtype=np.float32))[None, None]
    assert_close(preprocessing.normalize(preprocessing.pixels(image)[None]), (grey / 255 - 0.5) / 0.25, 1e-6)


def test_grey_image_for_three_channels() -> None:
    image = picture(0, 8, 8).convert("L")
    expected = torch.from_numpy(np.array(image)).expand(3, 8, 8)
    assert torch.equal(Preprocessing(8, 8, MEAN, STD).pixels(image), expected)


def test_normalized_batch_is_channels_last_and_leaves_the_pixels() -> None:
    pixels = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    before = pixels.clone()
    batch = Preprocessing(4, 4, MEAN, STD).normalize(pixels)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_std_are_on_the_device_after_the_first_batch(dtype: torch.dtype) -> None:
    """They were made of Python numbers for each batch: on a GPU two synchronous copies in each step."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    preprocessing = Preprocessing(16, 16, MEAN, (0.21, 0.22, 0.23))
    torch.set_default_dtype(dtype)
    try:
        mean, std = (torch.tensor(v).view(-1, 1, 1) * 255 for v in (preprocessing.mean, preprocessing.std))
        with torch.inference_mode():
            first = preprocessing.normalize(pixels)
        with no_host_sync():
            second = Preprocessing(16, 16, MEAN, (0.21, 0.22, 0.23)).normalize(pixels)
        assert torch.equal(second, pixels.float().sub_(mean).div_(std))  # to the bit
        assert torch.equal(first, second)
        assert not second.is_inference()
    finally:
        torch.set_default_dtype(torch.float32)


def test_normalization_by_tensors_without_data_is_not_kept() -> None:
    preprocessing = Preprocessing(4, 4, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    with FakeTensorMode():
        fake = preprocessing.normalize(torch.empty(2, 3, 4, 4, dtype=torch.uint8))
    assert isinstance(fake, FakeTensor)
    assert type(preprocessing.normalize(torch.empty(2, 3, 4, 4, dtype=torch.uint8))) is Tensor


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize": 0}, "resize and crop must be 1 pixel or more, got 0 and 4"),
        ({"crop": -1}, "resize and crop must be 1 pixel or more, got 4 and -1"),
        ({"mean": (0.5, 0.5)}, "mean and std must have 1 or 3 values each, got (0.5, 0.5) and (0.2, 0.2, 0.2)"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "mean and std must have 1 or 3 values each"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0, got (0.5, 0.5, 0.5) and (0.2, 0.0, 0.2)"),
        ({"std": (0.2, 0.2, float("nan"))}, "must be on the scale of 0 to 1"),
        ({"std": (0.2, 0.2, float("inf"))}, "must be on the scale of 0 to 1"),
        ({"mean": (123.7, 116.3, 103.5)}, "must be on the scale of 0 to 1"),
        ({"std": (58.4, 57.1, 57.4)}, "divide those of pixels from 0 to 255 by 255"),
        ({"mean": (0.5, float("nan"), 0.5)}, "must be on the scale of 0 to 1"),
        (
            {"interpolation": "cubic"},
            "unknown interpolation 'cubic'; did you mean 'bicubic'? Choose from: nearest, bilinear, bicubic, lanczos",
        ),
    ],
)
def test_preprocessing_that_cannot_be(values: dict[str, object], message: str) -> None:
    good = {"resize": 4, "crop": 4, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    with pytest.raises(ValueError, match=re.escape(message)):
        Preprocessing(**{**good, **values})  # type: ignore[arg-type]


def test_preprocessing_of_a_cfg() -> None:
    assert Preprocessing.of(cfg(input_size=(3, 224, 224))) == Preprocessing(256, 224, MEAN, STD, "bicubic")
    given_ = Preprocessing.of(cfg(), PreprocessingOptions(resize=50, crop=40, mean=[0.1, 0.2, 0.3], std=[1, 1, 1]))
    assert given_ == Preprocessing(50, 40, (0.1, 0.2, 0.3), (1, 1, 1), "bicubic")
    assert Preprocessing.of(cfg(), PreprocessingOptions(crop=14)).resize == 16


@example(99, 198)
@given(st.integers(1, 600), st.integers(1, 1200))
def test_size_that_a_crop_pct_was_made_of_comes_out_again(crop: int, resize: int) -> None:
    # A network that was trained with 198 and 99 was evaluated with 197.
    made = cfg(input_size=(3, crop, crop), crop_pct=crop / resize)
    assert Preprocessing.of(made).resize == resize


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {"resize": 0}, "resize and crop must be 1 pixel or more, got 0 and 24"),  # they were taken for not given
        ({}, {"crop": 0}, "resize and crop must be 1 pixel or more, got 0 and 0"),
        ({}, {"mean": []}, "mean and std must have 1 or 3 values each, got ()"),
        ({}, {"mean": [0.5], "std": [0.5]}, "takes 3-channel images, and mean and std are of 1: (0.5,) and (0.5,)"),
        ({}, {"std": [0.2, 1e-45, 0.2]}, "std must be 0.001 or more, got (0.2, 1e-45, 0.2)"),  # its inputs were NaN
        ({"std": (0.2, 0.2, 1e-45)}, {}, "std must be 0.001 or more, got (0.2, 0.2, 1e-45)"),
        ({"input_size": (1, 24, 24)}, {}, "takes 1-channel images, and mean and std are of 3"),
    ],
)
def test_options_that_do_not_fit_the_network(
    values: dict[str, object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Preprocessing.of(cfg(**values), PreprocessingOptions(**options))  # type: ignore[arg-type]


def test_cfg_that_lacks_keys() -> None:
    with pytest.raises(ValueError, match="pretrained_cfg lacks crop_pct, std, interpolation; give it timm's form"):
        Preprocessing.of({"input_size": (3, 8, 8), "mean": MEAN})


def test_image_that_would_be_too_large_when_resized() -> None:
    long = Preprocessing(256, 224, MEAN, STD)
    with pytest.raises(
        ValueError, match=r"resized from 1x100,000, it would have 256x25,600,000 pixels, and 134,217,728"
    ):
        long.pixels(Image.new("RGB", (1, 100_000)))
    assert long.pixels(Image.new("RGB", (1, 2000))).shape == (3, 224, 224)


@pytest.mark.parametrize("sizes", [(1_000_000, 32), (32, 99_999_999)])
def test_sizes_above_the_limit_are_refused_by_name(sizes: tuple[int, int]) -> None:
    name = "resize" if sizes[0] > sizes[1] else "crop"
    with pytest.raises(ValueError, match=f"{name} must be at most 8,192, got {max(sizes)}"):
        Preprocessing(*sizes, MEAN, STD)
    with pytest.raises(ValueError, match="padding must be at most 8,192, got 1000000"):
        Augmentation("pad", padding=1_000_000)
