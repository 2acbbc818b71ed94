"""Detectors rewritten for inference, and exported."""

from typing import Any

import pytest
import torch

import senet
from tests.helpers import randomise, shallow_resnet20
from tests.models.detection.small import SMALL, images


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    with shallow_resnet20():
        return randomise(senet.create_model("faster_rcnn:se_resnet20", freeze_bn=True, **SMALL)).eval()


def test_a_deployed_detector_detects_the_same(model: Any) -> None:
    fast: Any = senet.deploy(model)
    assert not any(type(module).__name__ in ("FrozenBatchNorm2d", "SEBatchNorm") for module in fast.modules())
    with torch.no_grad():
        for found, expected in zip(fast(images()), model(images()), strict=True):
            assert len(expected["boxes"]) > 0
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
