from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from senet.graph.recorder import trace, trace_example
from senet.graph.tensor_kinds import TensorKind


class Twice(nn.Module):
    """Runs one convolution twice, and adds in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += self.conv(y)
        return y


def test_records_operations_with_their_modules() -> None:
    run = trace_example(nn.Sequential(Twice(), nn.ReLU()), torch.randn(2, 4, 5, 5))
    assert [operation.name for operation in run.operations] == ["convolution", "convolution", "add", "relu"]
    names = [[call.name for call in run.enclosing(operation.call)] for operation in run.operations]
    assert names == [["0.conv", "0", ""], ["0.conv", "0", ""], ["0", ""], ["1", ""]]
    first, second, add, relu = run.operations
    assert second.inputs[0] == first.outputs[0]
    assert add.inputs == [*first.outputs, *second.outputs]
    assert relu.inputs == list(add.outputs) != list(first.outputs)
    assert [run.tensors[value.number] for value in first.inputs[1:]] == ["0.conv.weight", "0.conv.bias"]
    assert len(run.calls_of("0.conv")) == 2
    assert run.calls[0].taken == run.inputs[0]
    assert run.calls[0].given == relu.outputs[0]


class Several(nn.Module):
    """Takes two maps, one by keyword, and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, one: Tensor, other: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"sum": self.conv(one) + scale * self.conv(other)}


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_takes_several_inputs(kind: str) -> None:
    x, y = torch.randn(2, 1, 3, 8, 8)
    example = {"tuple": (x, y, 2.0), "list": [x, y], "dict": {"one": x, "other": y, "scale": 2.0}}[kind]
    run = trace_example(Several(), example)
    assert [value.shape for value in run.inputs] == [(1, 3, 8, 8)] * 2
    assert run.calls[0].given is None
    assert list(run.calls[0].output) == ["sum"]


def test_inputs_in_attributes_of_an_object_are_inputs() -> None:
    class Batched(Several):
        def forward(self, batch: SimpleNamespace) -> dict[str, Tensor]:  # type: ignore[override]
            return super().forward(batch.one, batch.other)

    x, y = torch.randn(2, 1, 3, 8, 8)
    run = trace_example(Batched(), (SimpleNamespace(one=x, other=y),))
    assert run.inputs == [call.taken for call in run.calls[1:]]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 5, 8, 8), r"Sequential does not run on example \(\(1, 5, 8, 8\) float32 on cpu\).*5 channels"),
        (torch.zeros(1, 3, 8, 8).double(), r"float64 on cpu\): .*; its weights are float32 on cpu; give example="),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64 on cpu.*its weights are float32 on cpu"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "float32 on meta.*its weights are float32 on cpu"),
        ((), r"does not run on example \(no tensor\)"),
        (
            {"image": torch.zeros(1, 3, 8, 8)},
            "unexpected keyword argument 'image'.*give example= as the network takes it, with all",
        ),
    ],
)
def test_an_example_that_does_not_fit_is_refused_with_the_networks_words(example: object, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    with pytest.raises(ValueError, match=message):
        trace_example(model, example)  # type: ignore[arg-type]
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("example", ["image.png", 3, {1: torch.zeros(1)}, None])
def test_an_example_of_another_type_is_refused(example: object) -> None:
    with pytest.raises(TypeError, match="example must be a tensor, a tuple of inputs, or a dict of inputs by keyword"):
        trace_example(nn.ReLU(), example)  # type: ignore[arg-type]


def test_on_the_meta_device_nothing_is_computed() -> None:
    model = Twice()
    weight = model.conv.weight
    run = trace(model, torch.empty(1, 4, 9, 9, device="meta"))
    assert [operation.name for operation in run.operations] == ["convolution", "convolution", "add"]
    assert "conv.weight" in run.tensors.values()
    assert model.conv.weight is weight


def test_a_module_of_two_names_keeps_its_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model.alias = model[1]
    model.tied = nn.Conv2d(4, 4, 1)
    model.tied.weight = model[0].weight
    before = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    run = trace(model, torch.empty(1, 4, 9, 9, device="meta"))
    assert [call.name for call in run.calls] == ["", "0", "1", "1", "tied"]
    after = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    assert all(after[name] is tensor for name, tensor in before.items())


def test_producers_and_consumers() -> None:
    run = trace(Twice(), torch.empty(1, 4, 9, 9))
    first, second, add = run.operations
    assert run.producer(run.inputs[0]) is None
    assert run.producer(second.inputs[0]) is first
    assert run.consumers(run.inputs[0]) == [first]
    assert run.consumers(first.outputs[0]) == [second, add]
    assert run.reachable(second.outputs) == {second.outputs[0].number, add.outputs[0].number}
    everything = {value.number for operation in run.operations for value in operation.outputs}
    assert run.reachable(run.inputs) == {run.inputs[0].number} | everything
    assert run.reachable(run.inputs, without={first.outputs[0].number}) == {run.inputs[0].number}


@pytest.mark.parametrize("tensors", ["real", "meta", "fake"])
def test_runs_with_and_without_values_record_the_same(tensors: TensorKind) -> None:
    model = nn.Sequential(Twice(), nn.ReLU()).half()
    run = trace(model, torch.zeros(1, 4, 9, 9, dtype=torch.float16), tensors=tensors)
    assert [operation.name for operation in run.operations] == ["convolution", "convolution", "add", "relu"]
    assert all(value.dtype == torch.float16 for operation in run.operations for value in operation.outputs)
    assert run.operations[0].outputs[0].nbytes == 2 * 4 * 81
    assert [(call.index, call.name, call.parent) for call in run.calls] == [
        (0, "", None),
        (1, "0", 0),
        (2, "0.conv", 1),
        (3, "0.conv", 1),
        (4, "1", 0),
    ]


def test_keyword_arguments_of_a_call() -> None:
    run = trace_example(Several(), {"one": torch.randn(1, 3, 8, 8), "other": torch.randn(1, 3, 8, 8), "scale": 2.0})
    assert run.calls[0].kwargs == {"one": run.inputs[0], "other": run.inputs[1], "scale": 2.0}


class Caching(nn.Module):
    """Keeps what it computed for a size, as detectors keep anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.last: Tensor | None = None
        self.by_size: dict[torch.Size, Tensor] = {}
        self.sizes: list[Tensor] = [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        if self.last is None or self.last.shape != x.shape:
            self.last = torch.ones_like(x)
            self.extra = self.last + 1
            self.sizes.append(self.last)
        grid = self.by_size.setdefault(x.shape, self.last)
        return self.conv(x + grid + self.sizes[-1].mean())


@pytest.mark.parametrize("tensors", ["meta", "fake"])
def test_caches_of_a_run_without_values_are_dropped(tensors: TensorKind) -> None:
    """The network would read tensors without values in its next run."""
    model = Caching()
    lists = model.sizes, model.by_size
    trace(model, torch.rand(1, 3, 4, 4), tensors=tensors)
    assert model.last is None
    assert not hasattr(model, "extra")
    assert (model.sizes, model.by_size) == ([torch.zeros(1)], {})
    assert model.sizes is lists[0]
    assert model.by_size is lists[1]
    assert model(torch.rand(1, 3, 4, 4)).isfinite().all()
    assert len(model.sizes) == 2
    before = model.last
    trace(model, torch.rand(1, 3, 5, 5), tensors=tensors)
    assert model.last is before
    assert len(model.sizes) == 2
