"""OpenVINO networks of 8 bits: what is quantized, and that they compute the same as float64 up to 8 bits."""

from io import BytesIO
from typing import Any

import numpy as np
import openvino
import pytest

from senet.deployment.quantization import quantize_openvino
from tests.deployment.quantization.networks import CHANNELS, HIDDEN, images, onnx_network, reference


def quantized_layers(model: Any) -> list[list[int]]:
    """Shapes of the 8-bit weights."""
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    return sorted(list(op.shape) for op in constants if op.get_element_type() == openvino.Type.i8)


def layers(form: str) -> list[list[int]]:
    ones = [1, 1] if form == "conv" else []
    return [[HIDDEN, CHANNELS, *ones], [CHANNELS, HIDDEN, *ones]]


@pytest.mark.parametrize(
    ("form", "keep_float"), [("gemm", "none"), ("gemm", "gate"), ("conv", "block"), ("einsum", "block")]
)
def test_it_computes_the_same_and_keeps_what_is_asked_for(
    form: str, keep_float: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = openvino.convert_model(BytesIO(onnx_network(form).SerializeToString()))
    operations = len(given.get_ops())
    quantized = quantize_openvino(given, [images()], keep_float)
    assert len(given.get_ops()) == operations
    assert capfd.readouterr().out == ""
    found = quantized_layers(quantized)
    assert [8, 3, 3, 3] in found
    for shape in layers(form):
        assert (shape in found) == (keep_float == "none")
    nodes = {op.get_friendly_name(): op for op in quantized.get_ops()}
    sources = {value.get_source_output().get_node().get_type_name() for value in nodes["product"].inputs()}
    assert ("FakeQuantize" in sources) == (keep_float != "block")
    compiled = openvino.compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": 1})
    result, expected = compiled(images().numpy())[0], reference()
    error = np.abs(result - expected).max() / np.abs(expected).max()
    assert 1e-6 < error < 0.05
