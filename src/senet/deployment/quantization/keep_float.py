"""What of SE stays in float32 in a network of 8 bits."""

from collections.abc import Sequence
from typing import Literal

from senet.deployment.quantization.se_nodes import Node, find_se_nodes

__all__ = ["KEEP_FLOAT", "KeepFloat", "kept_nodes"]

KeepFloat = Literal["none", "gate", "block"]

# For each format, as measured by benchmarks/quantization.py: see docs/deploy.md.
KEEP_FLOAT: dict[Literal["onnx", "openvino"], KeepFloat] = {"onnx": "gate", "openvino": "block"}


def kept_nodes(nodes: Sequence[Node], keep_float: KeepFloat) -> list[str]:
    """Return the names of the nodes that stay in float32.

    Args:
        nodes: the graph in the order of execution, without its constants.
        keep_float: "none": everything is quantized; "gate": squeeze, both layers and the gate stay; "block": the
            product with the map as well.
    """
    if keep_float == "none":
        return []
    found = find_se_nodes(nodes)
    names = [name for se in found for name in se.gate]
    return names if keep_float == "gate" else names + [name for se in found for name in se.products]
