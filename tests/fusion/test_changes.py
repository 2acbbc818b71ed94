"""What changes in a fused block afterwards, and maps that its code stores."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import senet
from tests.fusion.networks import ConvModule, MMSELayer, Net, build
from tests.fusion.steps import check_same, run
from tests.helpers import assert_close


class Unit(nn.Module):
    """Batch norm, activation, SE, and code that depends on a value in a list, which `fuse` does not see."""

    def __init__(self, how: str = "", se: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.bn, self.idle = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Identity()
        self.act, self.se, self.path = nn.SiLU(), se or MMSELayer(8), [how]
        self.kept: Any = []

    @property
    def how(self) -> str:
        return self.path[0]

    @how.setter
    def how(self, how: str) -> None:
        self.path[0] = how

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "batch norm without gradients"):
            y = self.idle(self.bn(self.conv(x)))
        if self.how == "batch norm stored":
            self.kept = y
        if self.how == "activation and SE in a checkpoint":
            return checkpoint(lambda y: self.se(self.act(y)), y, use_reentrant=True)  # type: ignore[no-any-return]
        if self.how == "activation in a checkpoint":
            y = checkpoint(self.act, y, use_reentrant=True)
        elif self.how != "no activation":
            y = self.act(y)
        if self.how == "activation stored":
            self.kept.append(y)
        if self.how == "activation twice":
            y = self.act(y)
        if self.how == "SE in a checkpoint":
            return checkpoint(self.se, y, use_reentrant=True)  # type: ignore[no-any-return]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "SE without gradients"):
            return self.se(y)  # type: ignore[no-any-return]


def pair(unit: Unit) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a network in float64, a fused copy, and images."""
    model, x = Net(unit).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x)
    unit.kept = []
    return model, senet.fuse(copy.deepcopy(model)), x


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no activation", "0 calls of the activation 'act' precede SE: call senet.unfuse"),
        ("activation twice", "2 calls of the activation 'act' precede SE"),
        ("activation in a checkpoint", "a part runs without gradients"),
        ("activation and SE in a checkpoint", "a part runs without gradients"),
        ("SE in a checkpoint", "a part runs without gradients"),
        ("SE without gradients", "a part runs without gradients"),
        ("batch norm without gradients", "the batch norm alone runs without gradients"),
    ],
)
def test_another_path_is_an_error(how: str, message: str) -> None:
    _, fused, x = pair(Unit())
    fused.blocks[0].how = how
    with pytest.raises(RuntimeError, match=message):
        fused(x)
    fused.blocks[0].how = ""
    fused(x)


@pytest.mark.parametrize("module", [nn.Dropout2d(0.5), nn.Conv2d(16, 16, 1)])
def test_a_module_that_is_appended_is_an_error(module: nn.Module) -> None:
    model, x = build("torchvision efficientnet")
    block: Any = senet.fuse(model).features[1]
    block[0].block[1].append(module.double())
    with pytest.raises(RuntimeError, match="something else takes or changes the output of the batch norm"):
        model(x)


class Watched(nn.Module):
    """Calls functions of others with the activated map."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.act, self.se = nn.BatchNorm2d(8), nn.SiLU(), MMSELayer(8)
        self.watchers: list[Callable[[Tensor], Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(x))
        for watch in self.watchers:
            watch(y)
        return self.se(y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("watch", [Tensor.retain_grad, lambda y: y.register_hook(lambda gradient: 2 * gradient)])
def test_the_gradient_of_a_map_that_is_not_computed_is_an_error(watch: Callable[[Tensor], Any]) -> None:
    model, x = Net(Watched()), torch.randn(2, 3, 8, 8)
    model(x)
    assert senet.fuse(model).fuse_report.fused
    model.blocks[0].watchers.append(watch)
    with pytest.raises(RuntimeError, match="observes the gradient of the map before SE: call senet.unfuse"):
        model(x)
    model.blocks[0].watchers.clear()
    model(x).sum().backward()


class Reading(Unit):
    """Reads values, which a run without values does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.detach().mean()) < 1e9 else 2 * x)


@pytest.mark.parametrize("unit", [Unit, Reading])
@pytest.mark.parametrize("how", ["batch norm stored", "activation stored"])
def test_a_stored_map_is_not_fused(how: str, unit: type[Unit]) -> None:
    model, fused, x = pair(unit(how))
    report: Any = fused.fuse_report
    (row,) = report.left
    name = "blocks.0.bn" if how == "batch norm stored" else "blocks.0.act"
    assert row.reason == f"the network's code stores the output of {name}, before it"
    assert unit is Reading or fused.blocks[0].kept == []
    check_same(model, fused, x)


def maximum() -> nn.Module:
    return timm.layers.SEModule(8, rd_channels=4)


CHANGES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any]]] = {
    "pool": (lambda: MMSELayer(8), lambda unit: setattr(unit.se, "global_avgpool", nn.AdaptiveMaxPool2d(1))),
    "activation of SE": (lambda: MMSELayer(8), lambda unit: setattr(unit.se.conv1, "activate", nn.Tanh())),
    "attribute": (maximum, lambda unit: setattr(unit.se, "add_maxpool", True)),
    "attribute inside": (lambda: MMSELayer(8), lambda unit: unit.se.conv2.__dict__.update(with_norm=True)),
    "norm of SE": (maximum, lambda unit: setattr(unit.se, "bn", nn.GroupNorm(1, 4).double())),
    "idle": (lambda: MMSELayer(8), lambda unit: setattr(unit, "idle", nn.Dropout(0.5))),
    "no statistics": (lambda: MMSELayer(8), lambda unit: unit.bn._buffers.update(running_mean=None, running_var=None)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changes_are_seen(case: str, fused: list[Any]) -> None:
    make, change = CHANGES[case]
    model, other, x = pair(Unit(se=make()))
    run(other, x)
    assert fused == ["silu"]
    other.load_state_dict(model.state_dict())
    for one in (model, other):
        if case == "attribute inside":
            one.blocks[0].se.conv2.bn = nn.BatchNorm2d(8, dtype=torch.float64)
        change(one.blocks[0])
    check_same(model, other, x)
    assert fused == ["silu"]


class Optional(Unit):
    """Has an option, which stores the activated map."""

    stores: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.how = "activation stored" if self.stores else ""
        return super().forward(x)


def test_an_option_of_the_block_is_seen(fused: list[Any]) -> None:
    unit = Optional()
    unit.stores = False
    model, other, x = pair(unit)
    run(other, x)
    assert fused == ["silu"]
    model.load_state_dict(other.state_dict())
    for one in (model, other):
        one.blocks[0].stores = True
    check_same(model, other, x)
    assert fused == ["silu"]
    for kept, expected in zip(other.blocks[0].kept, model.blocks[0].kept, strict=True):
        assert_close(kept, expected)
    other.blocks[0].stores = False
    run(other, x)
    assert fused == ["silu"] * 2


def times(factor: float, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda module, x: factor * forward(module, x)


@pytest.mark.parametrize("kind", [Unit, MMSELayer, ConvModule, nn.SiLU])
def test_a_forward_of_a_class_that_is_replaced_is_seen(
    kind: Any, fused: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other, x = pair(Unit())
    run(other, x)
    assert fused == ["silu"]
    model.load_state_dict(other.state_dict())
    monkeypatch.setattr(kind, "forward", times(0.5, kind.forward))
    check_same(model, other, x)
    check_same(model, copy.deepcopy(other), x)
    assert fused == ["silu"]
    again = senet.fuse(copy.deepcopy(model))
    assert len(again.fuse_report.fused) == (kind is Unit)
    check_same(model, again, x)
    assert type(pickle.loads(pickle.dumps(again))) is Net


def test_hooks_between_the_parts_see_their_own_maps(fused: list[Any]) -> None:
    model, other, x = pair(Unit())
    seen: list[Tensor] = []
    for one in (model, other):
        one.blocks[0].idle.register_forward_hook(lambda module, args, output: seen.append(output.detach().clone()))
        one(x)
    assert torch.equal(*seen)
    assert not fused
