"""SE around what users did to their modules: half networks with float norms, hooks, attributes, parametrizations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import senet
from senet.insertion.sites import PLACEMENTS
from senet.nn.inserted_se import find_inserted_se
from tests.networks import FAMILIES


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_se_has_the_dtype_of_the_maps_where_norms_are_float32(placement: Any) -> None:
    model = FAMILIES["ours pre-activation basic"]().bfloat16().eval()  # a norm has the first parameter of each unit
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    x = torch.randn(1, 3, 16, 16).bfloat16()
    before = model(x)
    senet.insert(model, placement, reduction=4)
    assert {p.dtype for i in find_inserted_se(model) for p in i.se.parameters()} == {torch.bfloat16}
    assert torch.equal(model(x), before)
    senet.remove(model)
    senet.insert(model, at="layer1.1.bn1")  # a norm, without layers in it
    assert find_inserted_se(model)[0].se.fc1.weight.dtype == torch.bfloat16


def with_attribute(bn: Any) -> None:
    bn.tag = ["mine"]


def with_method(bn: Any) -> None:
    bn.forward = lambda y: 2 * y


def with_mode(bn: Any) -> None:
    bn.train = lambda mode=True: bn  # a common way to freeze statistics


def with_buffer(bn: Any) -> None:
    bn.register_buffer("steps", torch.ones(2))


def with_hook(bn: Any) -> None:
    bn.register_state_dict_pre_hook(lambda module, prefix, keep_vars: None)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (with_attribute, "batch_norm"),
        (with_method, "output"),
        (with_mode, "output"),
        (with_buffer, "output"),
        (with_hook, "output"),
    ],
)
def test_what_users_add_to_a_batch_norm_stays(change: Callable[[Any], None], how: str) -> None:
    model = FAMILIES["torchvision basic"]().eval()
    bn = model.layer1[0].bn2
    bn.running_var.uniform_(0.5, 1.5)
    change(bn)
    x, keys, own = torch.randn(1, 3, 16, 16), list(model.state_dict()), set(vars(bn))
    before = model(x)
    senet.insert(model, reduction=4)
    assert {i.name: i.how for i in find_inserted_se(model)}["layer1.0.bn2"] == how
    assert (model.layer1[0].bn2 is bn) == (how == "output")
    assert torch.equal(model(x), before)
    assert set(keys) <= set(model.state_dict())
    if change is with_attribute:
        assert model.layer1[0].bn2.tag is bn.tag
        model.layer1[0].bn2.tag = "changed"
    senet.remove(model)
    now = model.layer1[0].bn2
    assert (type(now), set(vars(now)), list(model.state_dict())) == (nn.BatchNorm2d, own, keys)
    assert change is not with_attribute or now.tag == "changed"


def test_a_plain_batch_norm_passes_on_no_attribute_of_its_own() -> None:
    own, bn = senet.SEBatchNorm(8, se=senet.SqueezeExcitation(8)), nn.BatchNorm2d(8)
    assert set(vars(own.to_batch_norm())) == set(vars(bn))
    assert set(vars(senet.SEBatchNorm.from_batch_norm(bn, senet.SqueezeExcitation(8)))) == set(vars(own))


class Residual(nn.Module):
    def __init__(self, parametrize: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = (parametrize(nn.Conv2d(8, 8, 3, padding=1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("parametrize", [spectral_norm, weight_norm])
def test_se_acts_on_the_input_of_a_parametrized_convolution(parametrize: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Residual(parametrize), Residual(parametrize)).eval()
    x = torch.randn(1, 3, 8, 8)
    before = model(x)
    senet.insert(model, "pre", reduction=4)
    assert [(i.name, i.how) for i in find_inserted_se(model)] == [("1.first", "input"), ("2.first", "input")]
    assert torch.equal(model(x), before)
