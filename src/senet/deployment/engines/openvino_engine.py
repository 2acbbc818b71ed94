"""Run OpenVINO files (.xml with .bin) on the CPU."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senet.deployment.engines.engine import Port, import_engine
from senet.deployment.metadata import read_openvino
from senet.utils.choices import ExportFormat
from senet.utils.errors import ModelFileError

__all__ = ["INTERRUPTED", "OpenVinoEngine", "weights_of"]

# The text of an `.xml` while its `.bin` is replaced: a killed export leaves it.
INTERRUPTED = "<!-- senet: the export to this file was interrupted -->"


class OpenVinoEngine:
    """An OpenVINO file, compiled for the CPU.

    Computes in float32, or in integers where the file is quantized: by default OpenVINO rounds to bfloat16 on
    processors that have it, and results would depend on the machine.

    Args:
        path: of the .xml; the .bin is alongside.
        threads: number of threads; None is one per core.
        batch: length of the batch axis, where the file leaves it open: a fixed one is faster. None leaves it open.
    """

    format: ExportFormat = "openvino"

    def __init__(self, path: Path, threads: int | None = None, batch: int | None = None) -> None:
        openvino = import_engine("openvino", path)
        with path.open("rb") as file:
            if file.read(len(INTERRUPTED)) == INTERRUPTED.encode():
                raise ValueError("its export was interrupted, and it is incomplete; export it again")
        weights = weights_of(path)
        if not weights.is_file():
            raise ModelFileError(f"{path} lacks its weights {weights.name}: keep both files in one folder")
        core = openvino.Core()
        model = _read(core, path, weights)
        self.metadata = read_openvino(model, path)
        if batch is not None:
            shapes = {value: value.get_partial_shape() for value in model.inputs}
            for shape in shapes.values():
                if shape.rank.get_length() and shape[0].is_dynamic:
                    shape[0] = batch
            model.reshape(shapes)
        self.inputs = tuple(_port(value, f"input{number}") for number, value in enumerate(model.inputs))
        self.outputs = tuple(_port(value, f"output{number}") for number, value in enumerate(model.outputs))
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self.compiled = core.compile_model(model, "CPU", options)
        self._tensor = openvino.Tensor
        self._request = self.compiled.create_infer_request()

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network, see `Engine.run`."""
        feed = {
            number: self._tensor(value.contiguous().numpy(), shared_memory=True) for number, value in enumerate(inputs)
        }
        results = self._request.infer(feed)
        # A request reuses the memory of its outputs.
        return [torch.from_numpy(results[number]).clone() for number in range(len(self.outputs))]


def weights_of(path: str | PathLike[str]) -> Path:
    """Return the file of weights of an `.xml` file: the one where a symbolic link leads."""
    return Path(path).resolve().with_suffix(".bin")


def _read(core: Any, path: Path, weights: Path) -> Any:
    """Read a network.

    Raises:
        ValueError: a file is damaged.
    """
    try:
        return core.read_model(path, weights)
    except RuntimeError as error:
        # After places in OpenVINO's source, and before its list of other formats.
        reason = str(error).strip().split("\n")[-1].partition(" Please check")[0]
        raise ValueError(f"it or {weights.name} is damaged: {reason.strip()}; export it again") from error


def _port(value: Any, name: str) -> Port:
    shape = value.get_partial_shape()
    lengths = tuple(None if axis.is_dynamic else axis.get_length() for axis in shape) if shape.rank.is_static else ()
    names = sorted(value.get_names())
    kind = value.get_element_type().to_dtype()
    return Port(names[0] if names else name, lengths, getattr(torch, kind.name))
