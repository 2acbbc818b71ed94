"""A network with SE as ONNX graphs of the two forms that exporters write, and its reference in float64."""

from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

CHANNELS, HIDDEN, CLASSES, SIDE = 8, 4, 5, 8


class Network(nn.Module):
    """Convolution, SE with a gain of 2, ReLU, convolution, mean over space, classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(CHANNELS, HIDDEN), nn.Linear(HIDDEN, CHANNELS)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv1(x)
        s = 2 * self.fc2(self.fc1(u.mean((2, 3))).relu()).sigmoid()
        return self.fc(self.conv2((u * s[..., None, None]).relu()).mean((2, 3)))


@cache
def images() -> Tensor:
    return torch.randn(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@cache
def reference() -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return Network().double()(images().double()).numpy()


def onnx_network(form: str = "gemm", batch: int | str = "n") -> Any:
    """The network as an `onnx.ModelProto`.

    `form` is "gemm" (ReduceMean, Gemm), "conv" (pools, 1x1 convolutions) or "einsum" (ReduceSum times 1 / area, Gemm,
    and the product as an Einsum).
    """
    weights = {name: tensor.detach().numpy() for name, tensor in Network().state_dict().items()}
    node, pads = helper.make_node, [1, 1, 1, 1]
    if form == "conv":
        weights |= {f"{fc}.weight": weights[f"{fc}.weight"][..., None, None] for fc in ("fc1", "fc2")}
        squeeze = [node("GlobalAveragePool", ["u"], ["z"])]
        layers = [
            node("Conv", [a, f"{fc}.weight", f"{fc}.bias"], [b]) for a, fc, b in (("z", "fc1", "a"), ("r", "fc2", "b"))
        ]
        view = node("Identity", ["gain"], ["view"])
    else:
        weights |= {"space": np.array([2, 3]), "shape": np.array([-1, CHANNELS, 1, 1])}
        squeeze = [node("ReduceMean", ["u", "space"], ["z"], keepdims=0)]
        layers = [
            node("Gemm", [a, f"{fc}.weight", f"{fc}.bias"], [b], transB=1)
            for a, fc, b in (("z", "fc1", "a"), ("r", "fc2", "b"))
        ]
        view = node("Reshape", ["gain", "shape"], ["view"])
    product = [view, node("Mul", ["u", "view"], ["scaled"], name="product")]
    if form == "einsum":
        del weights["shape"]
        weights["area"] = np.array(1 / SIDE**2, np.float32)
        squeeze = [node("ReduceSum", ["u", "space"], ["total"], keepdims=0), node("Mul", ["total", "area"], ["z"])]
        product = [node("Einsum", ["u", "gain"], ["scaled"], name="product", equation="nchw,nc->nchw")]
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["u"], pads=pads),
        *squeeze,
        layers[0],
        node("Relu", ["a"], ["r"]),
        layers[1],
        node("Sigmoid", ["b"], ["s"]),
        node("Mul", ["s", "two"], ["gain"]),
        *product,
        node("Relu", ["scaled"], ["y"]),
        node("Conv", ["y", "conv2.weight", "conv2.bias"], ["v"], pads=pads),
        node("GlobalAveragePool", ["v"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    weights["two"] = np.array(2, np.float32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "network", inputs, outputs, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
