"""Export a network, quantize it, and run it in ONNX Runtime or OpenVINO on one thread."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from senet.deployment.quantization import KeepFloat, quantize_onnx, quantize_openvino

__all__ = ["TOOLS", "Array", "Tool", "Written", "export", "quantize"]

Array = np.ndarray[Any, Any]
Tool = Literal["onnx", "openvino"]
TOOLS: dict[Tool, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}


class Written:
    """A network in files.

    Args:
        path: `.onnx` or `.xml`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def bytes(self) -> int:
        """Size of its files."""
        files = (self.path, self.path.with_suffix(".bin"))
        return sum(file.stat().st_size for file in files if file.is_file())

    def runner(self) -> Callable[[Array], Array]:
        """Return a function from images to logits that runs on one thread: two engines never spin side by side."""
        if self.path.suffix == ".onnx":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            return lambda images: np.asarray(session.run(None, {name: images})[0])
        import openvino

        # In float32 where nothing is quantized: the default of some processors is bfloat16.
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = openvino.Core().compile_model(str(self.path), "CPU", hints).create_infer_request()
        return lambda images: np.array(request.infer([images])[0])


def export(model: nn.Module, example: Tensor, folder: Path, tool: Tool) -> Written:
    """Export a network in float32 for any number of images in a batch."""
    axes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model, (example,), dynamic_shapes=axes, strict=False)
    if tool == "openvino":
        import openvino

        path = folder / "network.xml"
        openvino.save_model(openvino.convert_model(program), str(path), compress_to_fp16=False)
        return Written(path)
    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # of the exporter, on its own code
        torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False)
    return Written(path)


def quantize(given: Written, keep_float: KeepFloat, calibration: Sequence[Tensor]) -> Written:
    """Quantize an exported network; the result is written next to it."""
    path = given.path.with_stem(f"{given.path.stem}-{keep_float}")
    if path.suffix == ".xml":
        import openvino

        model = openvino.Core().read_model(str(given.path))
        openvino.save_model(quantize_openvino(model, calibration, keep_float), str(path), compress_to_fp16=False)
    else:
        import onnx

        onnx.save(quantize_onnx(given.path, calibration, keep_float), str(path))
    return Written(path)
