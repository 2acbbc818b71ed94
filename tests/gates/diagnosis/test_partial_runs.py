"""Partial runs from a block on, against whole runs of the network."""

from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import senet
from senet.gates.diagnosis.gate_overrides import GateOverrides, override_gates
from senet.gates.diagnosis.partial_runs import PartialRuns
from senet.graph.se_modules import find_se
from senet.insertion.sites import PLACEMENTS
from tests.helpers import assert_close, randomise
from tests.slow import fast_if

pytestmark = pytest.mark.usefixtures("traced")


def _inserted(model: nn.Module, placement: str = "standard") -> nn.Module:
    senet.insert(model, placement=placement, init="paper")
    return model


def _resnet20_with(placement: str) -> nn.Module:
    return _inserted(senet.create_model("resnet20", num_classes=6), placement)


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "se_resnet20": lambda: senet.create_model("se_resnet20", num_classes=6),
    "se_resnet50": lambda: senet.create_model("se_resnet50", num_classes=6),
    "torchvision resnet18": lambda: _inserted(torchvision.models.resnet18(num_classes=6)),
    "timm resnet18": lambda: _inserted(timm.create_model("resnet18", num_classes=6)),
    "timm seresnet18": lambda: timm.create_model("seresnet18", num_classes=6),
    "timm efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=6),
    "torchvision mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=6),
}
_NETWORKS |= {placement: partial(_resnet20_with, placement) for placement in PLACEMENTS}


class _Counts:
    """Calls of leaf modules that compute: how much of the network has run."""

    def __init__(self, model: nn.Module) -> None:
        self.calls = 0
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(self._count)

    def _count(self, *args: object) -> None:
        self.calls += 1


@pytest.mark.parametrize("name", _NETWORKS)
@fast_if(lambda name: name not in ("se_resnet50", "timm resnet18", "timm seresnet18", "identity"))
def test_the_same_as_whole_runs(name: str) -> None:
    """Every block, with another fixed: as the network itself computes it, and in fewer calls."""
    model = randomise(_NETWORKS[name]()).double().eval()
    units = find_se(model)
    chosen = units if len(units) < 6 else [units[i] for i in (0, 1, len(units) // 2, -2, -1)]
    values = {unit.name: torch.rand(unit.channels, dtype=torch.float64) for unit in chosen}
    fixed, *others = values
    fixed, others[0] = others[0], fixed
    variants = {name: [fixed, name] for name in others} | {"original": []}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        plain = model(x)
        expected = {}
        for variant, names in variants.items():
            with override_gates(model, {name: values[name] for name in names}):
                expected[variant] = model(x)
        with override_gates(model, {fixed: values[fixed]}):
            base = model(x)
    runs, overrides = PartialRuns(model), GateOverrides(model, values)
    assert runs.graph is not None
    with overrides.attached():
        for calls in range(2):
            counts = _Counts(model) if calls else None
            actual, found = runs.logits(x, overrides, [fixed], variants)
            assert_close(actual, base)
            for variant in variants:
                assert_close(found[variant], expected[variant])
        assert runs.graph is not None  # it did not fall back
        assert counts is not None
        assert 0 < counts.calls < 0.8 * (len(variants) + 1) * _convolutions(model)
    assert torch.equal(found["original"], plain) or (found["original"] - plain).abs().max() < 1e-10
    # The constants changed something, in each variant.
    assert all((found[variant] - base).abs().max() > 1e-9 for variant in variants)


def _convolutions(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


class _Conditional(nn.Module):
    """No trace goes through this."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.se = nn.Conv2d(3, 8, 3), senet.SqueezeExcitation(8, 2)
        self.end = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.mean() > 100:
            x = -x
        return self.end(self.se(x).mean((2, 3)))


class _Deceptive(_Conditional):
    """The trace is of one way, taken for good."""

    turn = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.turn:
            x = -x
        return self.end(self.se(x).mean((2, 3)))


class _ByShape(_Conditional):
    """The trace cannot know what a shape does, but through code that it takes for a number."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.se(self.first(x)).mean((2, 3))) * _size(x)


def _size(x: Tensor) -> float:
    return 1.0 if isinstance(x, torch.fx.Proxy) else float(len(x) - 1)


@pytest.mark.parametrize("kind", [_Conditional, _Deceptive, _ByShape])
def test_falls_back(kind: type[nn.Module]) -> None:
    """A network that cannot be traced, or whose graph is something else, runs as a whole, with the same results."""
    model = kind().eval()
    x, values = torch.randn(2, 3, 8, 8), {"se": torch.rand(8)}
    runs, overrides = PartialRuns(model), GateOverrides(model, values)
    assert (runs.graph is None) == (kind is _Conditional)
    if kind is _Deceptive:
        model.turn = False
    with torch.no_grad(), overrides.attached():
        for images in (x, torch.cat((x, x))):
            actual, found = runs.logits(images, overrides, [], {"v": ["se"]})
            overrides.active = []
            assert torch.equal(actual, model(images))
            overrides.active = ["se"]
            assert torch.equal(found["v"], model(images))
    assert runs.graph is None


class _InPlace(nn.Module):
    """Everything in place, views of one another, one map used again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = senet.SqueezeExcitation(6, 2), senet.SqueezeExcitation(6, 2)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        half = x[:, :3]  # a view: changes with x
        y = self.one(x)
        x.mul_(3)
        y = torch.relu_(y) + x
        z = self.two(y)
        x.sub_(self.scale)
        return torch.cat((half, z[:, 3:], x), 1).mean((2, 3))


def test_operations_in_place() -> None:
    """What one run changes in place is as it was for the others."""
    model = _InPlace().double().eval()
    values = {name: torch.rand(6, dtype=torch.float64) for name in ("one", "two")}
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    kept, weight = x.clone(), model.scale.detach().clone()
    runs, overrides = PartialRuns(model), GateOverrides(model, values)
    with torch.no_grad(), overrides.attached():
        actual, found = runs.logits(x, overrides, [], {name: [name] for name in values})
        assert runs.graph is not None
        overrides.active = []
        assert_close(actual, model(x))
        for name in values:
            overrides.active = [name]
            assert_close(found[name], model(x))
    assert torch.equal(x, kept)
    assert torch.equal(model.scale, weight)


def test_shared_and_unreached() -> None:
    """A block that is called twice is override_gates both times; one that is never called changes nothing."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.se, self.idle = senet.SqueezeExcitation(4, 2), senet.SqueezeExcitation(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.se(self.se(x) + 1).mean((2, 3))

    model = Twice().double().eval()
    values = {"se": torch.rand(4, dtype=torch.float64), "idle": torch.rand(4, dtype=torch.float64)}
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    expected = ((x * values["se"][:, None, None] + 1) * values["se"][:, None, None]).mean((2, 3))
    for names in (["se"], ["se", "idle"]):
        runs, overrides = PartialRuns(model), GateOverrides(model, values)
        with overrides.attached():
            actual, found = runs.logits(x, overrides, [], {name: [name] for name in names})
        assert (runs.graph is None) == ("idle" in names)
        assert_close(found["se"], expected)
        if "idle" in names:
            assert torch.equal(found["idle"], actual)


def test_errors_are_the_networks_own() -> None:
    """An input that does not fit says so as without all this."""
    model = senet.create_model("se_resnet20", num_classes=4).eval()
    overrides = GateOverrides(model, {})
    with overrides.attached(), pytest.raises(RuntimeError, match="channels"):
        PartialRuns(model).logits(torch.randn(2, 5, 32, 32), overrides, [], {})
