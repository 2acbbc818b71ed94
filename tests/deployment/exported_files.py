"""A tiny network, and files of it that no exporter of senet wrote: for tests that run exported networks."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.deployment.metadata import Metadata, write_onnx, write_openvino, write_torch

__all__ = ["FORMATS", "PREPROCESSING", "Tiny", "metadata", "tiny", "write", "write_pixels"]

FORMATS = (".onnx", ".xml", ".pt2")
PREPROCESSING = Preprocessing(resize=10, crop=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
_SIDE = 8
_OPSET = 18


class Tiny(nn.Module):
    """A convolution, the mean over space, and a layer of two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.num_classes = 2
        self.pretrained_cfg = PREPROCESSING.as_cfg() | {"num_classes": 2, "label_names": ["cat", "dog"]}

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2)."""
        return self.fc(self.conv(x).relu().mean((2, 3)))


def tiny() -> Tiny:
    """Return the network with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    return Tiny().eval()


def metadata(**changes: Any) -> Metadata:
    values: dict[str, Any] = {"model": "Tiny", "precision": "fp32", "classes": ("cat", "dog")}
    return Metadata(**values | {"preprocessing": PREPROCESSING} | changes)


def write(path: Path, batch: int | None = None, about: Metadata | None = None) -> Path:
    """Write `tiny()` to a file of the format of its suffix, written node by node or by torch.export.

    Args:
        path: of the file.
        batch: of the input; None accepts any.
        about: written into the file; None leaves it without metadata.
    """
    if path.suffix == ".pt2":
        dimension = None if batch is not None else {0: torch.export.Dim("n", min=1)}
        example = torch.zeros(batch or 2, 3, _SIDE, _SIDE)
        program = torch.export.export(tiny(), (example,), dynamic_shapes=None if batch is not None else (dimension,))
        torch.export.save(program, path, extra_files=write_torch(about) if about else {})
        return path
    model = _onnx(batch)
    if path.suffix == ".onnx":
        if about:
            write_onnx(model, about)
        onnx.save(model, path)
        return path
    onnx.save(model, path.with_suffix(".tmp.onnx"))
    converted = openvino.Core().read_model(path.with_suffix(".tmp.onnx"))
    if about:
        write_openvino(converted, about)
    openvino.save_model(converted, path, compress_to_fp16=False)
    return path


def write_pixels(path: Path) -> Path:
    """Write an ONNX file that takes 8-bit pixels (N, H, W, 3) and returns the largest of each channel, (N, 3)."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x"], ["logits"], keepdims=0, axes=[1, 2]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "pixels", [pixels], [logits])
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    write_onnx(model, metadata(classes=None, takes_pixels=True))
    onnx.save(model, path)
    return path


def _onnx(batch: int | None) -> Any:
    weights = {name: numpy_helper.from_array(value.numpy(), name) for name, value in tiny().state_dict().items()}
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["u"]),
        helper.make_node("ReduceMean", ["u", "axes"], ["z"], keepdims=0),
        helper.make_node("Gemm", ["z", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    first = "n" if batch is None else batch
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [first, 3, _SIDE, _SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [first, 2])
    graph = helper.make_graph(nodes, "tiny", [image], [logits], [*weights.values(), axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
