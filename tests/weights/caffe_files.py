"""Prototxt and caffemodel of small networks in the authors' names, for OpenCV to run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
# caffe.proto, by number: name, type, whether it is repeated.
_PROTO: dict[str, dict[int, tuple[str, Any, bool]]] = {
    "BlobShape": {1: ("dim", _FIELD.TYPE_INT64, True)},
    "BlobProto": {
        1: ("num", _FIELD.TYPE_INT32, False),
        2: ("channels", _FIELD.TYPE_INT32, False),
        3: ("height", _FIELD.TYPE_INT32, False),
        4: ("width", _FIELD.TYPE_INT32, False),
        5: ("data", _FIELD.TYPE_FLOAT, True),
        7: ("shape", "BlobShape", False),
        8: ("double_data", _FIELD.TYPE_DOUBLE, True),
    },
    "LayerParameter": {
        1: ("name", _FIELD.TYPE_STRING, False),
        2: ("type", _FIELD.TYPE_STRING, False),
        7: ("blobs", "BlobProto", True),
    },
    "NetParameter": {1: ("name", _FIELD.TYPE_STRING, False), 100: ("layer", "LayerParameter", True)},
}


def net_parameter() -> Any:
    """The message, with the types of caffe.proto: packed numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, rows in _PROTO.items():
        described = file.message_type.add(name=message)
        for number, (name, kind, repeated) in rows.items():
            one = described.field.add(name=name, number=number)
            one.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = _FIELD.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                one.type = kind
                one.options.packed = repeated and kind != _FIELD.TYPE_STRING
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()


class Net:
    """Layers as text, and their weights, drawn as they are added."""

    def __init__(self, seed: int = 0) -> None:
        self.text = ['name: "test"', 'input: "data"']
        self.message = net_parameter()
        self.random = np.random.default_rng(seed)

    def write(self, folder: Path, size: int) -> tuple[Path, Path]:
        head = [*self.text[:2], *(f"input_dim: {n}" for n in (1, 3, size, size))]
        (folder / "net.prototxt").write_text("\n".join([*head, *self.text[2:]]))
        (folder / "net.caffemodel").write_bytes(self.message.SerializeToString())
        return folder / "net.prototxt", folder / "net.caffemodel"

    def layer(self, kind: str, name: str, bottoms: list[str], top: str, text: str = "", *blobs: np.ndarray) -> str:
        inputs = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text.append(f'layer {{ name: "{name}" type: "{kind}" {inputs} top: "{top}" {text} }}')
        if blobs:
            layer = self.message.layer.add(name=name, type=kind)
            for blob in blobs:
                one = layer.blobs.add()
                one.shape.dim.extend(blob.shape)
                one.data.extend(blob.ravel().astype(np.float32).tolist())
        return top

    def convolution(
        self, name: str, bottom: str, shape: tuple[int, ...], stride: int = 1, groups: int = 1, bias: bool = False
    ) -> str:
        out, into, kernel = shape
        weight = self.random.normal(0, (2 / (into * kernel**2)) ** 0.5, (out, into, kernel, kernel))
        text = (
            f"convolution_param {{ num_output: {out} kernel_size: {kernel} stride: {stride} pad: {kernel // 2} "
            f"group: {groups} bias_term: {str(bias).lower()} }}"
        )
        biases = [self.random.normal(0, 0.5, out)] if bias else []
        return self.layer("Convolution", name, [bottom], name, text, weight, *biases)

    def norm(self, name: str, channels: int, relu: bool = True) -> str:
        """The third blob divides the first two."""
        mean, var = self.random.normal(0, 0.2, channels), self.random.uniform(1, 3, channels)
        self.layer(
            "BatchNorm",
            f"{name}/bn",
            [name],
            name,
            "batch_norm_param { use_global_stats: true }",
            mean,
            var,
            np.array([2.0]),
        )
        scale, shift = self.random.uniform(0.5, 1.5, channels), self.random.normal(0, 0.1, channels)
        self.layer("Scale", f"{name}/bn/scale", [name], name, "scale_param { bias_term: true }", scale, shift)
        return self.layer("ReLU", f"{name}/relu", [name], name) if relu else name

    def conv_norm(
        self, name: str, bottom: str, shape: tuple[int, ...], stride: int = 1, groups: int = 1, relu: bool = True
    ) -> str:
        return self.norm(self.convolution(name, bottom, shape, stride, groups), shape[0], relu)

    def pool(self, name: str, bottom: str, how: str) -> str:
        return self.layer("Pooling", name, [bottom], name, f"pooling_param {{ {how} }}")

    def gate(self, name: str, bottom: str, channels: int) -> str:
        squeezed = self.pool(f"{name}_global_pool", bottom, "pool: AVE global_pooling: true")
        hidden = self.convolution(f"{name}_1x1_down", squeezed, (channels // 16, channels, 1), bias=True)
        self.layer("ReLU", f"{hidden}/relu", [hidden], hidden)
        gate = self.convolution(f"{name}_1x1_up", hidden, (channels, channels // 16, 1), bias=True)
        return self.layer("Sigmoid", f"{name}_prob", [gate], gate)

    def flat(self, name: str) -> str:
        return self.layer(
            "Reshape", f"{name}_flat", [name], f"{name}_flat", "reshape_param { shape { dim: 0 dim: 0 } }"
        )

    def classifier(self, bottom: str, channels: int, classes: int) -> None:
        pooled = self.pool("pool5", bottom, "pool: AVE global_pooling: true")
        weight, bias = self.random.normal(0, channels**-0.5, (classes, channels)), self.random.normal(0, 0.1, classes)
        text = f"inner_product_param {{ num_output: {classes} }}"
        self.layer("InnerProduct", "classifier", [pooled], "classifier", text, weight, bias)


def residual(units: tuple[int, ...], kind: str, classes: int = 5) -> Net:
    """SE-ResNet, SE-ResNeXt or SENet-154, as in the authors' files."""
    net, deep, grouped = Net(), kind == "senet154", kind != "resnet"
    if deep:
        x = net.conv_norm("conv1_1/3x3_s2", "data", (64, 3, 3), 2)
        x = net.conv_norm("conv1_2/3x3", x, (64, 64, 3))
        x = net.conv_norm("conv1_3/3x3", x, (128, 64, 3))
    else:
        x = net.conv_norm("conv1/7x7_s2", "data", (64, 3, 7), 2)
    x, channels = net.pool("pool1/3x3_s2", x, "pool: MAX kernel_size: 3 stride: 2"), 128 if deep else 64
    for stage, count in enumerate(units, 2):
        out = 2 ** (stage + 6)
        first = out // 2 if kind != "resnet" else out // 4
        width, groups = {"resnet": (first, 1), "resnext": (first, 32), "senet154": (2 * first, 64)}[kind]
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            stride = 2 if stage > 2 and number == 1 else 1
            strides = (1, stride) if grouped else (stride, 1)
            y = net.conv_norm(f"{name}_1x1_reduce", x, (first, channels, 1), strides[0])
            y = net.conv_norm(f"{name}_3x3", y, (width, first // groups, 3), strides[1], groups)
            y = net.conv_norm(f"{name}_1x1_increase", y, (out, width, 1), relu=False)
            gate = net.gate(name, y, out)
            if number == 1:
                kernel = 3 if deep and stride == 2 else 1
                x = net.conv_norm(f"{name}_1x1_proj", x, (out, channels, kernel), stride, relu=False)
            # The authors' Axpy, gate * y + x, in two layers: OpenCV's scales its third input instead of its second.
            gate = net.flat(gate)
            y = net.layer("Scale", f"{name}_scale", [y, gate], f"{name}_scale", "scale_param { axis: 0 }")
            x = net.layer("Eltwise", name, [y, x], name)
            x, channels = net.layer("ReLU", f"{name}/relu", [x], x), out
    net.classifier(x, channels, classes)
    return net


def inception(modules: dict[str, Any], classes: int = 5) -> Net:
    """SE-BN-Inception with some of its modules, by name and channels as in `senet.models.bn_inception`."""
    net = Net()
    half = "pool: MAX kernel_size: 3 stride: 2"
    x = net.pool("pool1/3x3_s2", net.conv_norm("conv1/7x7_s2", "data", (64, 3, 7), 2), half)
    x = net.conv_norm("conv2/3x3", net.conv_norm("conv2/3x3_reduce", x, (64, 64, 1)), (192, 64, 3))
    x, channels = net.pool("pool2/3x3_s2", x, half), 192
    for suffix, spec in modules.items():
        name = f"inception_{suffix}"
        branches = list(_branches(net, name, x, channels, spec))
        x = net.layer("Concat", f"{name}/output", branches, f"{name}/output")
        channels = spec.out_channels(channels)
        gate = net.gate(name, x, channels)
        gate = net.flat(gate)
        x = net.layer("Scale", f"{name}_scale", [x, gate], f"{name}_scale", "scale_param { axis: 0 }")
    net.classifier(x, channels, classes)
    return net


def _branches(net: Net, name: str, x: str, channels: int, spec: Any) -> Iterator[str]:
    if spec.stride == 1:
        yield net.conv_norm(f"{name}/1x1", x, (spec.conv1x1, channels, 1))
    y = net.conv_norm(f"{name}/3x3_reduce", x, (spec.conv3x3_reduce, channels, 1))
    yield net.conv_norm(f"{name}/3x3", y, (spec.conv3x3, spec.conv3x3_reduce, 3), spec.stride)
    y = net.conv_norm(f"{name}/double3x3_reduce", x, (spec.double3x3_reduce, channels, 1))
    y = net.conv_norm(f"{name}/double3x3a", y, (spec.double3x3, spec.double3x3_reduce, 3))
    yield net.conv_norm(f"{name}/double3x3b", y, (spec.double3x3, spec.double3x3, 3), spec.stride)
    if spec.stride == 2:
        yield net.pool(f"{name}/pool", x, "pool: MAX kernel_size: 3 stride: 2")
    else:
        kind = {"avg": "AVE", "max": "MAX"}[spec.pool]
        pooled = net.pool(f"{name}/pool", x, f"pool: {kind} kernel_size: 3 stride: 1 pad: 1")
        yield net.conv_norm(f"{name}/pool_proj", pooled, (spec.pool_proj, channels, 1))
