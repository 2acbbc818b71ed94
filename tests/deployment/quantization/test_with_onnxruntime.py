"""ONNX networks of 8 bits: what is quantized, and that they compute the same as float64 up to 8 bits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import senet
from senet.deployment.quantization import quantize_onnx
from senet.deployment.quantization.se_nodes import find_se_nodes
from senet.deployment.quantization.with_onnxruntime import onnx_nodes
from tests.deployment.quantization.networks import images, onnx_network, reference


def run(model: Any, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x.numpy()})[0]


def quantized_weights(model: Any) -> set[str]:
    return {w.name.removesuffix("_quantized") for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8}


LAYERS = {"fc1.weight", "fc2.weight"}


@pytest.mark.parametrize("form", ["gemm", "conv"])
@pytest.mark.parametrize(("keep_float", "kept"), [("none", set()), ("gate", LAYERS), ("block", LAYERS)])
def test_it_computes_the_same_and_keeps_what_is_asked_for(form: str, keep_float: str, kept: set[str]) -> None:
    given = onnx_network(form)
    before = given.SerializeToString()
    quantized = quantize_onnx(given, images().split(10), keep_float)
    assert given.SerializeToString() == before
    onnx.checker.check_model(quantized)
    found = {name for name in quantized_weights(quantized) if name.endswith(".weight")}
    assert found == {"conv1.weight", "conv2.weight", "fc.weight", *LAYERS} - kept
    by_output = {output: node for node in quantized.graph.node for output in node.output}
    product = next(n for n in quantized.graph.node if n.op_type == "Mul" and "two" not in " ".join(n.input))
    # A quantized product takes its map from 8 bits.
    sources = {by_output[name].op_type for name in product.input if name in by_output}
    assert ("DequantizeLinear" in sources) or keep_float == "block"
    result, expected = run(quantized, images()), reference()
    error = np.abs(result - expected).max() / np.abs(expected).max()
    assert 1e-6 < error < 0.05


def test_se_of_a_sum_and_an_einsum_is_found() -> None:
    quantized = quantize_onnx(onnx_network("einsum"), images().split(10), "block")
    assert "conv1.weight" in quantized_weights(quantized)
    assert not quantized_weights(quantized) & LAYERS
    result, expected = run(quantized, images()), reference()
    assert 1e-6 < np.abs(result - expected).max() / np.abs(expected).max() < 0.05


def test_names_metadata_and_batch_size_stay(tmp_path: Path) -> None:
    given = onnx_network(batch=4)
    given.metadata_props.add(key="senet.classes", value='["a"]')
    onnx.save(given, tmp_path / "given.onnx")
    quantized = quantize_onnx(tmp_path / "given.onnx", [images()])
    assert [(entry.key, entry.value) for entry in quantized.metadata_props] == [("senet.classes", '["a"]')]
    assert [one.name for one in quantized.graph.input] == ["x"]
    assert run(quantized, images()[:4]).shape == (4, 5)


def test_networks_of_two_inputs_are_refused() -> None:
    given = onnx_network()
    given.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ValueError, match="networks of one input can be quantized, and this one has 2"):
        quantize_onnx(given, [images()])


def test_se_is_found_in_files_of_a_fixed_shape(tmp_path: Path) -> None:
    """These have pools whose kernel is the map, and gates that are resized before the product."""
    model = senet.create_model("se_resnet20", num_classes=3).eval()
    senet.export(model, tmp_path / "net.onnx", torch.randn(2, 3, 32, 32))
    assert len(find_se_nodes(onnx_nodes(onnx.load(tmp_path / "net.onnx")))) == 9
