"""Quantize exported networks to 8 bits with calibration data, and keep in float32 what of SE needs it.

Imports `senet.evaluation` and below. `senet.deployment.export` uses it.
"""

from senet.deployment.quantization.calibration import check_batches, open_calibration, read_batches
from senet.deployment.quantization.keep_float import KEEP_FLOAT, KeepFloat
from senet.deployment.quantization.with_nncf import quantize_openvino
from senet.deployment.quantization.with_onnxruntime import quantize_onnx

__all__ = [
    "KEEP_FLOAT",
    "KeepFloat",
    "check_batches",
    "open_calibration",
    "quantize_onnx",
    "quantize_openvino",
    "read_batches",
]
