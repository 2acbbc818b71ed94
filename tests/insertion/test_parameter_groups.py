import re
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

import senet
from senet.nn.inserted_se import se_parameters


class Tiny(nn.Module):
    """A convolution with bias, norms of every kind, and two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.group = nn.GroupNorm(2, 8)
        self.layer = nn.LayerNorm([8, 4, 4])  # its weight has three axes
        self.fc = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.fc.weight
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(self.group(self.bn(self.conv(x)))).mean((2, 3))
        out: torch.Tensor = self.tied(self.fc(y)) * self.scale
        return out


def with_se() -> nn.Module:
    return senet.insert(Tiny(), at=["bn", "group"], reduction=4)


def group_of(groups: list[dict[str, Any]], parameter: nn.Parameter) -> dict[str, Any]:
    (group,) = [group for group in groups if any(other is parameter for other in group["params"])]
    assert sum(other is parameter for other in group["params"]) == 1
    return group


def test_each_parameter_is_in_one_group_with_its_rate_and_decay() -> None:
    model = with_se()
    groups = senet.param_groups(model, lr=0.1, se_lr=5.0, weight_decay=1e-4)
    se = {id(parameter) for parameter in se_parameters(model)}
    assert len(se) == 8
    decayed = set()
    for name, parameter in model.named_parameters():
        group = group_of(groups, parameter)
        assert group["lr"] == (5.0 if id(parameter) in se else 0.1), name
        assert group["weight_decay"] in (0.0, 1e-4)
        decayed |= {name} if group["weight_decay"] else set()
    layers = {f"{site}.{layer}.weight" for site in ("bn.se", "group.standard.se") for layer in ("fc1", "fc2")}
    assert decayed == {"conv.weight", "fc.weight", *layers}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len(groups) == 4
    torch.optim.SGD(groups, momentum=0.9)


def test_what_is_not_given_is_the_optimizers() -> None:
    groups = senet.param_groups(with_se(), se_lr=3.0)
    optimizer = torch.optim.SGD(groups, lr=0.5, weight_decay=0.01)
    assert sorted((group["lr"], group["weight_decay"]) for group in optimizer.param_groups) == [
        (0.5, 0.0),
        (0.5, 0.01),
        (3.0, 0.0),
        (3.0, 0.01),
    ]
    rates = {group["lr"] for group in senet.param_groups(with_se(), lr=0.2)}
    assert rates == {0.2}


def test_decay_all() -> None:
    groups = senet.param_groups(with_se(), weight_decay=0.1, decay_all=True)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1]  # the network and SE


def test_frozen_parameters_are_left_out() -> None:
    model = with_se()
    model.get_submodule("conv").requires_grad_(False)
    model.get_submodule("bn.se.fc1").requires_grad_(False)
    held = {id(parameter) for group in senet.param_groups(model, se_lr=1.0) for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_decay_of_a_plain_network_is_timms(name: str) -> None:
    model = timm.create_model(name)
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    expected = {
        id(parameter): group["weight_decay"]
        for group in param_groups_weight_decay(model, 0.05, no_weight_decay_list=exempt)
        for parameter in group["params"]
    }
    groups = senet.param_groups(model, weight_decay=0.05)
    assert {id(p): group["weight_decay"] for group in groups for p in group["params"]} == expected


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match=re.escape("se_lr=2.0 has no effect: the network has no SE")):
        senet.param_groups(Tiny(), se_lr=2.0)
    with pytest.raises(ValueError, match="'0.weight' of a lazy module is not created yet: run the network once"):
        senet.param_groups(nn.Sequential(nn.LazyConv2d(8, 3)))
    for options in ({"lr": -1.0}, {"se_lr": float("nan")}, {"weight_decay": float("inf")}):
        with pytest.raises(
            ValueError, match=f"invalid {next(iter(options))}=.*: expected a finite number of 0 or more"
        ):
            senet.param_groups(senet.insert(Tiny(), at="conv"), **options)
    for types, message in (
        ({"lr": "a"}, "lr must be a number, got 'a'"),
        ({"decay_all": "no"}, "decay_all must be True"),
    ):
        with pytest.raises(TypeError, match=message):
            senet.param_groups(Tiny(), **types)  # type: ignore[arg-type]
