"""The number behind `eps` of a batch norm with SE."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.epsilon import Epsilon, read_epsilon
from senet.nn.recalibration import attach, detach


def own() -> Any:
    return next(m for m in senet.create_model("se_resnet20").modules() if isinstance(m, SEBatchNorm))


def attached() -> Any:
    bn = nn.BatchNorm2d(4)
    attach(bn, "se", senet.SqueezeExcitation(4, reduction=2), "output")
    return bn


@pytest.mark.parametrize("made", [own, attached])
def test_the_number_is_read_without_the_property(made: Any) -> None:
    """Dynamo of PyTorch 2.11 takes `module.__dict__["eps"]` for the property, in which it then recurses without end."""
    bn = made()
    for module in (bn, copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
        module.__dict__["eps"] = None
        assert read_epsilon(module) == 1e-5
        module.eps = 0.25
        module.__dict__["eps"] = None
        assert read_epsilon(module) == 0.25
        assert isinstance(module.eps, Epsilon)


def test_a_batch_norm_without_se_has_its_own_number_again() -> None:
    bn = attached()
    before = set(nn.BatchNorm2d(4).__dict__)
    detach(bn, "se")
    assert set(bn.__dict__) == before
    bn.eps = 0.5
    assert read_epsilon(bn) == 0.5
    assert torch.isfinite(bn(torch.randn(2, 4, 3, 3))).all()
