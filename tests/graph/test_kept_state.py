"""Runs of a tool leave the state of a network, and the caches of its code, as they were."""

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.graph.kept_state import same_state
from senet.graph.recorder import trace

X = torch.randn(1, 3, 6, 6)
GRIDS: dict[Any, Tensor] = {}
Find = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A network that adds a grid of its map's size, which it keeps."""

    in_class: dict[Any, Tensor] = {}  # noqa: RUF012

    def __init__(self, find: Find) -> None:
        super().__init__()
        self.conv, self.bn, self.find = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), find
        self.held = SimpleNamespace(grid=None, grids=[{}])

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y + self.find(self, y)  # type: ignore[no-any-return]


def grid(y: Tensor) -> Tensor:
    return torch.linspace(0, 1, y.shape[-1], dtype=y.dtype, device=y.device)


def in_a_dict(grids: dict[Any, Tensor], y: Tensor) -> Tensor:
    if y.shape not in grids:
        grids[y.shape] = grid(y)
    return grids[y.shape]


def in_an_object(model: Net, y: Tensor) -> Tensor:
    if model.held.grid is None:
        model.held.grid = grid(y)
    return model.held.grid  # type: ignore[no-any-return]


def in_a_global(model: Net, y: Tensor) -> Tensor:
    return in_a_dict(GRIDS, y)


def in_a_closure() -> Find:
    grids: dict[Any, Tensor] = {}
    return lambda model, y: in_a_dict(grids, y)


@functools.cache
def cached(size: int, like: str) -> Tensor:
    return torch.linspace(0, 1, size, device=like)


WAYS: dict[str, Find] = {
    "object": in_an_object,
    "nested": lambda model, y: in_a_dict(model.held.grids[0], y),
    "global": in_a_global,
    "class": lambda model, y: in_a_dict(model.in_class, y),
    "closure": in_a_closure(),
    "functools": lambda model, y: cached(y.shape[-1], "meta" if y.is_meta else "cpu").to(y.dtype),
}


@pytest.mark.parametrize("way", WAYS)
def test_runs_leave_no_tensors_in_caches(way: str) -> None:
    model = Net(WAYS[way]).eval()
    trace(model, X)
    assert way != "functools" or not cached.cache_info().currsize
    new = senet.deploy(model, X)
    assert new.report.of("folded")
    torch.testing.assert_close(new(X), model(X))
    kept = WAYS[way](model, model.conv(X))
    assert kept.dtype == torch.float32
    with same_state(model):
        assert model(torch.randn(1, 3, 6, 6)).shape == (1, 4, 4, 4)
    assert WAYS[way](model, model.conv(X)) is kept or way == "functools"


class AlwaysTrained(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1)


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn(self.conv(x)))


class Memory(nn.Module):
    """A network that keeps the means of its last inputs, and counts its runs in several ways.

    Its forward also changes one parameter, replaces another one, and draws a random number.
    """

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), AlwaysTrained(4))
        self.units = nn.Sequential(Unit(), Unit())
        self.register_buffer("bank", torch.zeros(3, 4))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.history, self.last = 0, [0], torch.zeros(4)
        self.rate, self.temperature = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.units(self.stem(x)).mean((2, 3)).detach()
        self.bank[self.pointer % 3] = y[:1]
        self.pointer += 1
        self.calls = self.calls + 1
        self.count += 1
        self.history.append(self.count)
        self.last.copy_(y[0])
        self.rate.data.mul_(0.9)
        self.temperature = nn.Parameter(self.temperature + torch.rand(1))
        return y + self.bank.mean() + torch.nonzero(x[0, 0] > 9).sum()


def state(model: Memory) -> dict[str, Any]:
    tensors = {name: x for name, x in model.state_dict().items() if ".se." not in name} | {"last": model.last}
    return {"count": model.count, "history": [*model.history]} | {name: x.tolist() for name, x in tensors.items()}


@pytest.mark.parametrize("example", [None, X])
def test_a_run_with_values_changes_no_state(example: Tensor | None) -> None:
    model = Memory().eval()
    model(X)
    before, tensors = state(model), list(map(id, (*model.parameters(), *model.buffers())))
    output = copy.deepcopy(model)(X)
    random = torch.get_rng_state()
    assert [site.name for site in senet.find_sites(model, example=example)] == ["units.0.bn", "units.1.bn"]
    assert state(model) == before
    assert list(map(id, (*model.parameters(), *model.buffers()))) == tensors
    assert torch.equal(torch.get_rng_state(), random)
    senet.insert(model, example=example)
    assert state(model).items() >= before.items()
    assert torch.equal(model(X), output)
