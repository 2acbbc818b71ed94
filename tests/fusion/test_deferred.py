"""A map that is computed with the sum and the ReLU after it, and what happens where something else uses it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import senet
import tests.fusion.steps
from senet.fusion.deferred import Deferred
from tests.fusion.networks import MMSELayer, Net
from tests.fusion.steps import check_same, run
from tests.helpers import assert_close


def deferred(calls: list[Any]) -> tuple[Deferred, Tensor]:
    """A map that is not computed yet, and its value; calls get what it is computed with."""
    y = torch.randn(2, 3)

    def compute(skip: Tensor | None) -> Tensor:
        calls.append(skip)
        return 2 * y if skip is None else (2 * y + skip).relu()

    return Deferred(compute, y), 2 * y


SUMS: list[Callable[[Any, Tensor], Any]] = [
    lambda x, skip: x + skip,
    lambda x, skip: skip + x,
    torch.add,
    lambda x, skip: torch.add(skip, x),
    lambda x, skip: x.__iadd__(skip),
]


@pytest.mark.parametrize("add", SUMS)
def test_sum_and_relu_are_one_call(add: Callable[[Any, Tensor], Any]) -> None:
    calls: list[Any] = []
    x, value = deferred(calls)
    skip = torch.randn(2, 3)
    total = add(x, skip)
    assert not calls
    assert torch.equal(total.relu(), (value + skip).relu())
    assert calls == [skip]
    with pytest.raises(RuntimeError, match="used once more: call senet.unfuse"):
        x.value()


@pytest.mark.parametrize(
    "use",
    [
        lambda x, skip: x * skip,
        lambda x, skip: F.relu(x),
        lambda x, skip: torch.cat((x, skip)),
        lambda x, skip: torch.add(x, skip, alpha=2),
        lambda x, skip: x + skip.double(),
        lambda x, skip: x + 1.0,
        lambda x, skip: x + x,
        lambda x, skip: (x + skip) + skip,
        lambda x, skip: (x + skip).sum(),
        lambda x, skip: skip.clone().add_(x),
        lambda x, skip: x.relu(),
        lambda x, skip: x.shape,
        lambda x, skip: x - skip,
        lambda x, skip: 2 - x,
        lambda x, skip: 0.5 * x,
        lambda x, skip: x.__imul__(0.5),
        lambda x, skip: x / skip + 2**x,
        lambda x, skip: -abs(x),
        lambda x, skip: x @ skip.T,
        lambda x, skip: x[1:],
        lambda x, skip: (x > 0) & (x != skip) | ~(skip <= x),
        lambda x, skip: len(x),
        lambda x, skip: [row.tolist() for row in x],
        lambda x, skip: (bool(x[:1, :1]), float(x[:1, :1]), str(x), f"{x[0][0]:.3f}"),
        lambda x, skip: copy.deepcopy(x),
        lambda x, skip: pickle.loads(pickle.dumps(x)),
        lambda x, skip: nn.Linear(3, 3, dtype=torch.float32)(x).shape,
    ],
)
def test_another_use_computes_the_map(use: Callable[[Any, Tensor], Any]) -> None:
    calls: list[Any] = []
    x, value = deferred(calls)
    skip = torch.randn(2, 3)
    found, expected = use(x, skip), use(value, skip)
    assert calls == [None]
    assert torch.equal(found, expected) if isinstance(found, Tensor) else found == expected


def test_other_names_of_a_sum_in_place() -> None:
    x, value = deferred([])
    same, skip = x, torch.randn(2, 3)
    x += skip
    assert torch.equal(same * 1, value + skip)


def test_a_skip_that_changes_before_the_relu() -> None:
    x, _ = deferred([])
    skip = torch.randn(2, 3)
    total = x + skip
    skip.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place before the ReLU: call senet.unfuse"):
        total.relu()


class Unit(nn.Module):
    """A residual unit that computes what follows SE in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.bn, self.se = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), MMSELayer(8)
        self.idle, self.relu, self.path = nn.Identity(), nn.ReLU(inplace=True), [how]  # no option that fuse looks at
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y, (how,) = self.idle(self.se(self.bn(self.conv(x)))), self.path
        if how == "after":
            y = x + y
        elif how == "in place":
            y += x
        elif how == "scaled":
            y = y + 0.5 * x
        elif how == "function":
            return F.relu(y + x)
        elif how == "dict":
            return {"maps": [y + x]}  # type: ignore[return-value]
        elif how == "stored":
            self.kept = y
            y = y + x
        elif how == "sum alone":
            return y + x  # type: ignore[no-any-return]
        elif how == "twice":
            y = y + x
            return y + self.relu(y)  # type: ignore[no-any-return]
        elif how == "broadcast":
            y = y + x.mean((2, 3), keepdim=True)
        return self.relu(y)  # type: ignore[no-any-return]


class Examining(Unit):
    """Checks that it has a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.idle(self.se(self.bn(self.conv(x))))
        self.examine(y)
        return self.relu(y + x)  # type: ignore[no-any-return]

    def examine(self, y: Tensor) -> None:
        assert [isinstance(one, Tensor) for one in (y,)] == [True]


def examine(y: Tensor) -> None:
    def inner() -> bool:
        return isinstance(y, Tensor)

    assert inner()


class CallingFunctions(Examining):
    """A function does."""

    def examine(self, y: Tensor) -> None:
        examine(y)


class CallingModules(Examining):
    """A function of another module does."""

    def examine(self, y: Tensor) -> None:
        assert tests.fusion.steps.is_map(y)


def method(function: Callable[[Tensor], None]) -> Callable[[Any, Tensor], None]:
    return lambda unit, y: function(y)


class CallingVariables(Examining):
    """A function in a variable around a method does."""

    examine = method(examine)


@pytest.mark.parametrize(
    "unit", [Unit("stored"), Examining(""), CallingFunctions(""), CallingModules(""), CallingVariables("")]
)
def test_units_without_a_sum(unit: Unit, fused: list[Any]) -> None:
    model, x = Net(unit).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x)
    unit.kept = None
    before = copy.deepcopy(model)
    check_same(senet.fuse(model), before, x)
    assert fused == [None] * 2
    assert type(unit.kept) in (Tensor, type(None))


@pytest.mark.parametrize("how", ["after", "in place", "scaled", "function", "twice", "broadcast", "none"])
def test_units(how: str, fused: list[Any]) -> None:
    model, x = Net(Unit(how), Unit(how)).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x)
    before = copy.deepcopy(model)
    senet.fuse(model)
    check_same(model, before, x)
    assert fused == ["sum" if how in ("after", "in place", "scaled", "twice") else None] * 4


def test_what_changes_after_fusing(fused: list[Any]) -> None:
    model, x = Net(Unit("after")).double(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(x)
    before = copy.deepcopy(model)
    senet.fuse(model)
    for change in (
        lambda unit: unit.relu.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
        lambda unit: unit.idle.register_forward_hook(lambda module, args, output: 3 * output),
        lambda unit: setattr(unit, "idle", nn.Dropout(0.5)),
        lambda unit: setattr(unit, "relu", nn.GELU()),
        lambda unit: unit.path.__setitem__(0, "function"),
        lambda unit: unit.path.__setitem__(0, "sum alone"),
    ):
        change(model.blocks[0])
        change(before.blocks[0])
        fused.clear()
        for one, two in zip(run(model, x), run(before, x), strict=True):
            assert_close(one, two)
        assert fused == [None]


def test_a_unit_returns_tensors() -> None:
    model = Net(Unit("after")).double()
    model(torch.randn(4, 3, 8, 8, dtype=torch.float64))
    senet.fuse(model).blocks[0].path[0] = "sum alone"
    assert type(model.blocks(torch.randn(4, 8, 8, 8, dtype=torch.float64))) is Tensor
    model.blocks[0].path[0] = "dict"
    assert type(model.blocks(torch.randn(4, 8, 8, 8, dtype=torch.float64))["maps"][0]) is Tensor
