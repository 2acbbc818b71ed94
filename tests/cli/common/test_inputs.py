from typing import Any

import pytest
import torch
from torch import nn

from senet.cli.common.inputs import parse_inputs

NET = nn.Conv2d(3, 4, 3).half()


def test_one_input() -> None:
    inputs: Any = parse_inputs(["1x3x8x9"], NET)
    (image,) = inputs
    assert image.shape == (1, 3, 8, 9)
    assert image.dtype == torch.float16
    assert image.std() > 0.5
    assert torch.equal(image, parse_inputs(["1x3x8x9"], NET)[0])


def test_several_inputs() -> None:
    inputs: Any = parse_inputs(["2x3x8x8:float32", "2:int64"], NET)
    image, step = inputs
    assert (image.dtype, step.dtype, step.tolist()) == (torch.float32, torch.int64, [0, 0])
    named = parse_inputs(["image=1x3x8x8", "step=1:int64"], NET)
    assert {name: tuple(x.shape) for name, x in named.items()} == {"image": (1, 3, 8, 8), "step": (1,)}


def test_none_given() -> None:
    assert parse_inputs(None, NET) is None
    assert parse_inputs([], NET) is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["1,3,8,8"], r"invalid --input '1,3,8,8': expected \[NAME=\]SHAPE\[:DTYPE\], such as 1x3x224x224"),
        (["1x3x-8"], "invalid --input '1x3x-8'"),
        ([""], "invalid --input ''"),
        (["1x3x8:halff"], "'halff' is no dtype of PyTorch"),
        (["1x3x8:nn"], "'nn' is no dtype of PyTorch"),
        (["1x0x8"], "a tensor of 1 to"),
        (["999999x999999x3"], "a tensor of 1 to 1,073,741,824 elements"),
        (["a=1x3", "1x3"], "either all --input have a NAME or none"),
        (["a=1x3", "a=1x3"], "--input names 'a' twice"),
    ],
)
def test_refuses(inputs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_inputs(inputs, NET)
