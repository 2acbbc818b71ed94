import pytest
import torch
from torch import Tensor, nn

from senet.graph.recorder import record, record_on_meta


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
    recording = record(nn.Sequential(Twice(), nn.ReLU()), torch.randn(2, 4, 5, 5))
    assert [operation.name for operation in recording.operations] == ["convolution", "convolution", "add", "relu"]
    names = [[call.name for call in recording.modules_at(operation.call)] for operation in recording.operations]
    assert names == [["0.conv", "0", ""], ["0.conv", "0", ""], ["0", ""], ["1", ""]]
    first, second, add, relu = recording.operations
    assert second.inputs[0] == first.outputs[0]
    assert add.inputs == [*first.outputs, *second.outputs]
    assert relu.inputs == list(add.outputs) != list(first.outputs)
    assert [recording.parameters[value.number] for value in first.inputs[1:]] == ["0.conv.weight", "0.conv.bias"]
    assert len(recording.calls_of("0.conv")) == 2
    assert recording.calls[0].taken == recording.inputs[0]
    assert recording.calls[0].given == relu.outputs[0]


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
    recording = record(Several(), example)
    assert [value.shape for value in recording.inputs] == [(1, 3, 8, 8)] * 2
    assert recording.calls[0].given is None
    assert list(recording.calls[0].output) == ["sum"]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 5, 8, 8), r"Sequential does not run on example \(\(1, 5, 8, 8\) float32 on cpu\).*5 channels"),
        (torch.zeros(1, 3, 8, 8).double(), r"float64 on cpu\): .*; its weights are float32 on cpu; give example="),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64 on cpu.*its weights are float32 on cpu"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "float32 on meta.*its weights are float32 on cpu"),
        ((), r"does not run on example \(no tensor\)"),
        ({"image": torch.zeros(1, 3, 8, 8)}, "unexpected keyword argument 'image'.*a dict of inputs by keyword"),
    ],
)
def test_an_example_that_does_not_fit_is_refused_with_the_networks_words(example: object, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    with pytest.raises(ValueError, match=message):
        record(model, example)  # type: ignore[arg-type]
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("example", ["image.png", 3, {1: torch.zeros(1)}, None])
def test_an_example_of_another_type_is_refused(example: object) -> None:
    with pytest.raises(TypeError, match="example must be a tensor, a tuple of inputs, or a dict of inputs by keyword"):
        record(nn.ReLU(), example)  # type: ignore[arg-type]


def test_on_the_meta_device_nothing_is_computed() -> None:
    model = Twice()
    weight = model.conv.weight
    recording = record_on_meta(model, torch.empty(1, 4, 9, 9, device="meta"))
    assert [operation.name for operation in recording.operations] == ["convolution", "convolution", "add"]
    assert "conv.weight" in recording.parameters.values()
    assert model.conv.weight is weight


def test_a_module_of_two_names_keeps_its_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model.alias = model[1]
    model.tied = nn.Conv2d(4, 4, 1)
    model.tied.weight = model[0].weight
    before = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    recording = record_on_meta(model, torch.empty(1, 4, 9, 9, device="meta"))
    assert [call.name for call in recording.calls] == ["", "0", "1", "1", "tied"]
    after = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    assert all(after[name] is tensor for name, tensor in before.items())
