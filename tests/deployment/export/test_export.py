"""Exported files compute what the network does, at every size they state, and say how images enter them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor

import senet
from senet.data import Preprocessing
from senet.deployment.engines import load_exported
from senet.deployment.export import ExportReport
from senet.deployment.export.signature import tensors_in
from tests.deployment.export.networks import CFG, OtherValues, TwoInputs, in_float64, small
from tests.slow import fast_if

pytestmark = pytest.mark.usefixtures("traced")

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
# Largest error relative to the largest logit.
ERRORS = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 3e-2, "int8": 0.1}


def run(path: Path, *inputs: Tensor) -> list[Tensor]:
    """Run a file in its engine, as a user without senet does."""
    arrays = [x.numpy() for x in inputs]
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        found = session.run(None, {port.name: x for port, x in zip(session.get_inputs(), arrays, strict=True)})
    elif path.suffix == ".xml":
        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = list(compiled(arrays).values())
    else:
        module = torch.export.load(path).module()
        return torch.utils._pytree.tree_leaves(module(*inputs))
    return [torch.from_numpy(np.array(x)) for x in found]


def close(found: Tensor, expected: Tensor, error: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) <= error * float(expected.abs().max())


@pytest.mark.parametrize(
    ("format", "precision"),
    [
        *[("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32"), ("openvino", "fp16")],
        *[("torch", "fp32"), ("torch", "fp16"), ("torch", "bf16")],
    ],
)
@fast_if(lambda format, precision: (format, precision) in [("onnx", "fp32"), ("openvino", "fp16"), ("torch", "bf16")])
def test_a_file_runs_at_any_batch_and_size(format: str, precision: Any, tmp_path: Path) -> None:
    model, path = small(), tmp_path / f"small{SUFFIXES[format]}"
    report = senet.export(model, path, precision=precision, dynamic=("batch", "size"))
    for shape in ((1, 3, 12, 12), (5, 3, 20, 9)):
        images = torch.randn(shape)
        close(run(path, images)[0], in_float64(model, images), ERRORS[precision])
    assert isinstance(report, ExportReport)
    assert (report.format, report.precision, report.inputs) == (
        format,
        precision,
        {"image": "(-1, 3, -1, -1) float32"},
    )
    assert report.comparison.top1 == 1
    assert report.comparison.inputs == 4 + 3 + 1
    if format == "onnx":
        graph = onnx.load(path).graph
        assert [axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim] == [
            "batch",
            "",
            "height",
            "width",
        ]
        assert [port.name for port in graph.output] == ["output"]
        assert not any(node.op_type in ("BatchNormalization", "Dropout") for node in graph.node)
    files = {path.name, "small.bin"} if format == "openvino" else {path.name}
    assert {file.name for file in tmp_path.iterdir()} == files
    assert report.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    exported = senet.load_exported(path)
    assert exported.precision == precision
    assert exported.classes == tuple(CFG["label_names"])
    assert exported.preprocessing == Preprocessing.of(CFG)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_is_close_on_its_calibration_data(format: str, tmp_path: Path) -> None:
    model, path = small(), tmp_path / f"small{SUFFIXES[format]}"
    images = [torch.randn(8, 3, 12, 12) for _ in range(4)]
    batches = (batch.double() for batch in images)
    report = senet.export(model, path, precision="int8", calibration=batches, dynamic=("batch", "size"))
    close(run(path, images[0])[0], in_float64(model, images[0]), ERRORS["int8"])
    assert report.comparison.relative > 1e-4  # it is quantized
    assert report.comparison.inputs == 32 + 3 + 1  # another batch, and another size


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_values_that_are_no_tensors_are_constants_of_the_file(format: str, tmp_path: Path) -> None:
    model, path = OtherValues().eval(), tmp_path / f"net{SUFFIXES[format]}"
    image = torch.randn(1, 3, 6, 6)
    report = senet.export(model, path, {"logits": image, "times": 3, "mask": None})
    assert (list(report.inputs), report.outputs) == (["logits"], ["logits_1", "sum"])
    exported = load_exported(path)
    assert [port.name for port in exported.inputs] == ["logits"]
    assert [port.name for port in exported.outputs] == ["logits_1", "sum"]
    other = torch.randn(1, 3, 6, 6)
    for one, expected in zip(exported(other), tensors_in(model(other, 3)), strict=True):
        torch.testing.assert_close(one, expected.detach())


def test_the_network_is_not_changed(tmp_path: Path) -> None:
    model, before = small(), small().state_dict()
    senet.export(model, tmp_path / "small.pt2", precision="fp16")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_rewriting_the_modules_are_the_networks_own(tmp_path: Path) -> None:
    report = senet.export(small(), tmp_path / "small.pt2", rewrite=False)
    assert report.rewritten is None
    names = torch.export.load(tmp_path / "small.pt2").state_dict
    assert {"se.fc1.weight", "bn2.running_mean"} <= set(names)


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_pixels_are_normalized_in_the_graph(format: str, tmp_path: Path) -> None:
    model, path = small(), tmp_path / f"small{SUFFIXES[format]}"
    report = senet.export(model, path, with_preprocessing=True, dynamic=("batch", "size"))
    assert report.inputs == {"pixels": "(-1, -1, -1, 3) uint8"}
    pixels = torch.randint(0, 256, (2, 3, 14, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(CFG[key]).view(-1, 1, 1) for key in ("mean", "std"))
    expected = in_float64(model, (pixels.double() / 255 - mean) / std)
    close(run(path, pixels.permute(0, 2, 3, 1).contiguous())[0], expected, 1e-5)


@pytest.mark.parametrize(("format", "form"), [("onnx", dict), ("openvino", tuple), ("torch", dict)])
def test_several_inputs_and_outputs(format: str, form: Callable[..., Any], tmp_path: Path) -> None:
    model, path = TwoInputs().eval(), tmp_path / f"two{SUFFIXES[format]}"
    image, extra = torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    example = (image, extra) if form is tuple else {"extra": extra, "image": image}
    report = senet.export(model, path, example)
    assert report.inputs == {"image": "(2, 3, 8, 8) float32", "extra": "(2, 6) float32"}
    assert report.outputs == ["logits", "maps"]
    assert report.comparison.top1 is None
    if format == "torch" and form is dict:
        found = list(torch.export.load(path).module()(image=image, extra=extra).values())
    else:
        found = run(path, image, extra)
    expected = model(image, extra)
    opened = senet.load_exported(path)(image, extra)
    for values in (found, opened):
        close(values[0], expected["logits"].detach(), 1e-5)
        close(values[1], expected["maps"].detach(), 1e-5)


def test_preprocessing_follows_the_example_and_the_arguments(tmp_path: Path) -> None:
    path = tmp_path / "small.pt2"
    senet.export(small(), path, torch.randn(1, 3, 24, 24), classes=["a", "b", "c"])
    exported = senet.load_exported(path)
    assert exported.preprocessing == Preprocessing(32, 24, CFG["mean"], CFG["std"], "bicubic")
    assert exported.classes == ("a", "b", "c")
    given = Preprocessing(30, (16, 20), (0.5,) * 3, (0.5,) * 3)
    report = senet.export(small(), path, preprocessing=given)
    assert report.inputs == {"image": "(1, 3, 16, 20) float32"}
    assert senet.load_exported(path).preprocessing == given
    entries = {"senet.model": ""}
    torch.export.load(path, extra_files=entries)
    assert json.loads(entries["senet.model"]) == "Small"


def test_a_failed_export_leaves_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "small.xml"
    for file in (path, tmp_path / "small.bin"):
        file.write_bytes(b"old")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(senet.ExportError, match="differs from PyTorch by .* choose a higher precision"):
        senet.export(small(), path, precision="fp16", tolerance=0)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    senet.export(small(), path, precision="fp16")
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_openvino_keeps_the_shape_of_the_example(tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    senet.export(small(), path, torch.randn(2, 3, 12, 12))
    assert senet.load_exported(path).inputs[0].shape == (2, 3, 12, 12)
    senet.export(small(), path, torch.randn(2, 3, 12, 12), dynamic=["batch"])
    assert senet.load_exported(path).inputs[0].shape == (None, 3, 12, 12)


def test_the_form_of_se_follows_what_the_file_fixes(tmp_path: Path) -> None:
    """The squeeze of an ONNX file is a pool, and its gates are resized, where batch and size are fixed."""

    def exported(batch: int, dynamic: tuple[Any, ...] = (), precision: Any = "fp32") -> tuple[set[str], set[str]]:
        images = torch.randn(batch, 3, 12, 12)
        report = senet.export(small(), tmp_path / "net.onnx", images, dynamic=dynamic, precision=precision)
        assert report.rewritten is not None
        nodes = onnx.load(tmp_path / "net.onnx").graph.node
        return {node.op_type for node in nodes}, {row.action for row in report.rewritten.rows}

    for batch in (1, 2):  # the convolution is before SE, and keeps its weights
        fixed, actions = exported(batch)
        assert {"AveragePool", "Resize"} <= fixed
        assert "moved" in actions
    for free, _ in (exported(1, ("size",)), exported(1, ("batch",)), exported(1, (), "fp16")):
        assert not {"AveragePool", "Resize"} & free


def test_a_network_that_changes_its_input_in_place(tmp_path: Path) -> None:
    class Shifts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.net(x.sub_(0.5))
            return result

    x = torch.randn(1, 3, 32, 32)
    assert senet.export(Shifts().eval(), tmp_path / "net.pt2", x.clone()).comparison.relative < 1e-5


def test_an_example_that_is_not_contiguous_runs_in_openvino(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    assert senet.export(small(), tmp_path / "net.xml", x).comparison.relative < 1e-5
