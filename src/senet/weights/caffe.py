"""Read a `.caffemodel`, the format of the authors' release, with a minimal protobuf schema."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senet.utils.errors import ModelFileError
from senet.utils.extras import optional_import
from senet.utils.input_files import reading

__all__ = ["read_caffemodel"]

# Messages of caffe.proto and their fields: number, name, type. Packed numbers are declared as bytes, their encoding in
# the file: as Python numbers they would take ten times the memory and time.
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "BlobShape": ((1, "dim", "ints"),),
    "BlobProto": (
        (1, "num", "int"),
        (2, "channels", "int"),
        (3, "height", "int"),
        (4, "width", "int"),
        (5, "data", "bytes"),
        (7, "shape", "BlobShape"),
        (8, "double_data", "bytes"),
    ),
    "LayerParameter": ((1, "name", "text"), (2, "type", "text"), (7, "blobs", "BlobProto")),
    "NetParameter": ((1, "name", "text"), (2, "layers", "bytes"), (100, "layer", "LayerParameter")),
}
# First layers: the authors' images are BGR.
_FIRST = ("conv1/7x7_s2", "conv1_1/3x3_s2")


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a Caffe file, under Caffe's layer names and PyTorch's names within a layer.

    A batch norm and the scale after it, "X/bn" and "X/bn/scale", become one layer "X/bn": its statistics are divided
    by the third blob. The first convolution is converted from BGR to RGB.

    Args:
        path: path of the file. No prototxt is required.

    Raises:
        ImportError: protobuf is not installed.
        ModelFileError: the file is not a Caffe model, is truncated, or was written by Caffe before 2015.
    """
    with optional_import("caffe", f"{path} requires protobuf", ImportError):
        import google.protobuf.message  # type: ignore[import-untyped]  # noqa: F401
    with reading(path, error=ModelFileError, message="{name} is not a .caffemodel, or is truncated: {reason}"):
        net = _net_parameter()()
        net.ParseFromString(path.read_bytes())
    if len(net.layers) and not len(net.layer):
        raise ModelFileError(f"{path} is from Caffe before 2015; convert it with Caffe's upgrade_net_proto_binary")
    tensors: dict[str, Tensor] = {}
    for layer in net.layer:
        message = "cannot read layer {what} of {name}: {reason}"
        with reading(path, layer.name[:200], error=ModelFileError, message=message):
            tensors |= _name(layer.name, layer.type, [_tensor(blob) for blob in layer.blobs])
    if not tensors:
        raise ModelFileError(f"{path} is not a .caffemodel: it has no layer with weights")
    return tensors


def _name(layer: str, kind: str, blobs: list[Tensor]) -> dict[str, Tensor]:
    if kind == "BatchNorm" and len(blobs) == 3:
        if any(blob.numel() != size for blob, size in zip(blobs, (len(blobs[0]), len(blobs[0]), 1), strict=True)):
            sizes = ", ".join(str(blob.numel()) for blob in blobs)
            raise ValueError(f"expected as many means as variances and one factor in a batch norm, got {sizes} values")
        factor = float(blobs[2])
        factor = 1 / factor if factor else 0.0  # as in Caffe, which stores weighted sums
        return {f"{layer}.running_mean": blobs[0] * factor, f"{layer}.running_var": blobs[1] * factor}
    if layer in _FIRST and blobs and blobs[0].ndim == 4 and blobs[0].shape[1] == 3:
        blobs[0] = blobs[0].flip(1)
    name = layer.removesuffix("/scale") if kind == "Scale" else layer
    return {f"{name}.{leaf}": blob for leaf, blob in zip(("weight", "bias", "third"), blobs, strict=False)}


def _tensor(blob: Any) -> Tensor:
    data, dtype = (blob.double_data, torch.float64) if blob.double_data else (blob.data, torch.float32)
    raw = data[0] if len(data) == 1 else b"".join(data)
    values = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0)
    if blob.HasField("shape"):
        shape = list(blob.shape.dim)
    else:
        shape = [blob.num, blob.channels, blob.height, blob.width]
        while len(shape) > 1 and shape[0] == 1:  # vectors are (1, 1, 1, n), matrices (1, 1, m, n)
            shape = shape[1:]
    return values.view(shape).float()


@cache
def _net_parameter() -> Any:
    """Return the protobuf class of a file."""
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    field_kind = descriptor_pb2.FieldDescriptorProto
    kinds = {"text": field_kind.TYPE_STRING, "int": field_kind.TYPE_INT32, "ints": field_kind.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name="senet_caffe.proto", package="senet_caffe", syntax="proto2")
    for message, rows in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, name, kind in rows:
            one = described.field.add(name=name, number=number, label=field_kind.LABEL_OPTIONAL)
            if kind in _MESSAGES:
                one.type, one.type_name = field_kind.TYPE_MESSAGE, f".senet_caffe.{kind}"
            else:
                one.type = kinds.get(kind, field_kind.TYPE_BYTES)
            if kind in ("bytes", "ints", "BlobProto", "LayerParameter"):
                one.label = field_kind.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("senet_caffe.NetParameter"))
