from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet.graph.operations import MODULE_CALL, Operation, Trace, Value
from senet.graph.recorder import trace


class Scaled(nn.Module):
    """Scales a map by what a layer makes of it, and keeps the factor for whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.factor = torch.sigmoid(self.conv(x))
        return x * self.factor


class Net(nn.Module):
    def __init__(self, leak: bool = False) -> None:
        super().__init__()
        self.first, self.scaled, self.idle = nn.Conv2d(3, 4, 1), Scaled(), nn.Identity()
        self.leak = leak

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.idle(self.first(x))
        x.tanh()  # unused
        y = self.scaled(x)
        return [y + self.scaled.factor if self.leak else y.relu(), x]


def names(run: Trace) -> list[str]:
    return [operation.name for operation in run.operations]


def test_only_what_the_outputs_depend_on() -> None:
    run = trace(Net(), torch.empty(1, 3, 5, 5))
    assert names(run) == ["convolution", "tanh", "convolution", "sigmoid", "mul", "relu"]
    assert [value.shape for value in run.outputs] == [(1, 4, 5, 5)] * 2
    assert names(run.live()) == ["convolution", "convolution", "sigmoid", "mul", "relu"]
    assert run.live().calls is run.calls


@pytest.mark.parametrize("leak", [False, True])
def test_a_call_as_one_operation(leak: bool) -> None:
    run = trace(Net(leak), torch.empty(1, 3, 5, 5)).with_calls_as_operations(["scaled", "scaled.conv", "idle"]).live()
    assert names(run) == ["convolution", MODULE_CALL, "add" if leak else "relu"]
    first, scaled, last = run.operations
    assert run.calls[scaled.call or 0].name == "scaled"
    assert scaled.inputs == list(first.outputs)
    assert run.consumers(first.outputs[0]) == [scaled]
    # The output first; then what else is read outside.
    assert scaled.outputs[0] == run.calls_of("scaled")[0].given
    assert last.inputs == list(scaled.outputs)
    assert len(scaled.outputs) == (2 if leak else 1)


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        half = x[:, :2]  # a view: changes with x
        x.mul_(3)
        return half


def test_a_functional_run_follows_what_is_changed_in_place() -> None:
    x = torch.empty(1, 4, 5, 5)
    run = trace(InPlace(), x, tensors="fake", functional=True).live()
    assert names(run) == ["add", "mul", "slice"]
    assert run.outputs == list(run.operations[-1].outputs)
    assert run.calls[0].given == run.outputs[0]
    assert names(trace(InPlace(), x).live()) == ["add", "slice"]  # the view, as it was made


def test_a_run_in_another_dtype() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1).half(), nn.BatchNorm2d(4))
    run = trace(model, torch.empty(1, 3, 5, 5), tensors="fake", dtype=torch.float64)
    assert {value.dtype for value in (*run.inputs, *run.outputs)} == {torch.float64}


class Pair(NamedTuple):
    left: object
    right: object


def test_the_tensors_that_an_operation_read() -> None:
    """In the order of its arguments, whatever holds them."""
    a, b, c, d, e = (Value(number, (2, 3), torch.float32) for number in range(5))
    operation = Operation("index", (a, [b, None, 2], (c, {"x": d})), {"y": Pair(e, 1.5), "z": torch.float64}, (), None)
    assert operation.inputs == [a, b, c, d, e]
    assert operation.inputs == [x for x in tree_leaves((operation.args, operation.kwargs)) if isinstance(x, Value)]
