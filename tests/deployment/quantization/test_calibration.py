"""Calibration data: what is used, and what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import senet
from senet.data import Preprocessing
from senet.deployment.quantization import check_batches, open_calibration, quantize_onnx
from tests.deployment.quantization.networks import images, onnx_network

SHAPE = (None, 3, 8, 8)


def test_batches_are_cut_to_the_size_of_the_network() -> None:
    batches = check_batches(images().split(5), (4, 3, 8, 8), images=18)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]
    assert torch.equal(torch.from_numpy(batches[3]), images()[12:16])
    assert [len(batch) for batch in check_batches([images()], SHAPE, batch=10)] == [10, 10, 10]
    assert len(check_batches([images()], (None, 3, None, None))) == 32


def test_no_more_is_read_than_is_used() -> None:
    def batches() -> Iterator[Tensor]:
        yield images()
        pytest.fail("reads on")

    assert len(check_batches(batches(), SHAPE, images=32)) == 32


@pytest.mark.parametrize(
    ("calibration", "kind", "message"),
    [
        (
            None,
            ValueError,
            "8 bits needs calibration data, which show the ranges of the network's values; give calibration= with",
        ),
        ([], ValueError, "calibration data has 0 images, and fewer than 16 leave"),
        ([images()[:15]], ValueError, "calibration data has 15 images"),
        (images(), TypeError, "an iterable of batches (N, C, H, W), got one tensor; put it in a list"),
        (32, TypeError, "calibration must be the spec of a data set, or an iterable of batches (N, C, H, W), got int"),
        ([(images(), torch.zeros(32))], TypeError, "batch 0 is a tuple, expected a tensor (N, C, H, W); of a data set"),
        ([images(), images()[:, :1]], ValueError, "batch 1 has the shape (32, 1, 8, 8), and the network takes (N, 3,"),
        ([images()[..., :7]], ValueError, "shape (32, 3, 8, 7), and the network takes (N, 3, 8, 8); preprocess"),
        ([images()[0]], ValueError, "has the shape (3, 8, 8)"),
        (
            [(255 * images()).byte()],
            TypeError,
            "batch 0 is uint8, and the network takes float32; preprocess the images",
        ),
        ([images() / 0], ValueError, "calibration batch 0 holds NaN or infinity"),
    ],
)
def test_refuses(calibration: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        quantize_onnx(onnx_network(), calibration)
    assert message in str(error.value)


def test_images_of_a_data_set_are_preprocessed_as_for_the_network() -> None:
    model = senet.create_model("resnet20", in_channels=1, num_classes=10)
    model.pretrained_cfg = model.pretrained_cfg | {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
    batches = open_calibration(model, "digits", images=20)
    data = senet.open_data("digits", "train")
    preprocessing = Preprocessing.of(model.pretrained_cfg)
    pixels = torch.stack([preprocessing.pixels(data[index][0]) for index in (0, len(data) - 1)])
    assert sum(map(len, batches)) == 20
    assert torch.equal(torch.cat(batches)[[0, -1]], preprocessing.normalize(pixels))
    with pytest.raises(ValueError, match="calibration data has 3 images"):
        open_calibration(model, data.subset(range(3)))


def test_images_of_two_sizes_are_refused() -> None:
    batches = [images(), images()[..., :6]]
    with pytest.raises(ValueError, match=r"batch 1 has the shape \(32, 3, 8, 6\), and batch 0 \(32, 3, 8, 8\).*resize"):
        check_batches(batches, (None, 3, None, None))
    assert len(check_batches([images().double()], SHAPE)) == 32  # any floating-point dtype
    assert len(check_batches([(255 * images()).byte()], SHAPE, torch.uint8)) == 32
