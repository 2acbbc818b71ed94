"""Run an exported file, and compare its outputs with those of the network in PyTorch."""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from senet.deployment.engines.engine import Engine
from senet.deployment.engines.onnx_engine import OnnxEngine
from senet.deployment.engines.openvino_engine import OpenVinoEngine
from senet.deployment.engines.torch_engine import TorchEngine
from senet.deployment.export.export_report import Comparison
from senet.deployment.export.signature import all_finite, input_tensors, tensors_in
from senet.graph.example_inputs import Example, call
from senet.utils.choices import ExportFormat
from senet.utils.errors import ExportError, NonFiniteError, first_line
from senet.utils.modes import evaluating

__all__ = ["check_deterministic", "compare", "open_file"]

# Runs an exported file: tensors in, tensors out.
Run = Callable[[Sequence[Tensor]], list[Tensor]]
_ENGINES: dict[ExportFormat, Any] = {"onnx": OnnxEngine, "openvino": OpenVinoEngine, "torch": TorchEngine}


def open_file(path: Path, format: ExportFormat) -> Run:
    """Return a function that runs an exported file in its engine.

    Raises:
        ExportError: the engine does not load the file.
    """
    try:
        engine: Engine = _ENGINES[format](path, torch.get_num_threads())
    except Exception as error:  # each engine has its own classes of errors
        raise ExportError(f"the exported file cannot be loaded: {first_line(error)}") from error
    return engine.run


@torch.no_grad()
def compare(run: Run, model: nn.Module, examples: Iterable[Example]) -> Comparison:
    """Compare an exported file with its network.

    Args:
        run: the file.
        model: the network, in float32.
        examples: batches of inputs.

    Raises:
        ExportError: the file does not run on an input, or returns tensors of another number or shape.
        NonFiniteError: the network returns NaN or infinity.
    """
    difference = relative = 0.0
    equal = images = 0
    classified = True
    for example in examples:
        with evaluating(model):
            # It may change its inputs in place.
            own = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, example)
            expected = tensors_in(call(model, own))
        try:
            found = run(input_tensors(example))
        except Exception as error:  # each engine has its own classes of errors
            raise ExportError(f"the exported file does not run: {first_line(error)}") from error
        _check_shapes(found, expected)
        for one, other in zip(found, expected, strict=True):
            error_here = float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
            scale = float(other.double().abs().max()) if one.numel() else 0.0
            difference, relative = max(difference, error_here), max(relative, error_here / (scale or 1.0))
        images += len(expected[0]) if expected[0].ndim else 1
        classified = classified and len(expected) == 1 and expected[0].ndim == 2
        if classified:
            equal += int((found[0].argmax(1) == expected[0].argmax(1)).sum())
    return Comparison(difference, relative, equal / images if classified and images else None, images)


def check_deterministic(model: nn.Module, example: Example, tolerance: float) -> None:
    """Check that a network returns the same for the same inputs.

    Raises:
        ExportError: its results differ by more than the tolerance.
    """
    once = compare(lambda _: tensors_in(call(model, copy.deepcopy(example))), model, [example])
    if once.relative > tolerance:
        raise ExportError(
            f"{type(model).__name__} returns something else each time it runs on the same input, as with dropout or "
            f"noise in evaluation, and no file can be compared with it: make it deterministic"
        )


def _check_shapes(found: list[Tensor], expected: list[Tensor]) -> None:
    """Check outputs before they are compared.

    Raises:
        ExportError: another number of outputs, or other shapes.
        NonFiniteError: the network itself returns NaN or infinity.
    """
    if not expected:
        raise ExportError("the network returns no tensors, and nothing could be exported")
    if not all_finite(expected):
        raise NonFiniteError("the network itself returns NaN or infinity; load other weights, or give real images")
    shapes, wanted = [tuple(x.shape) for x in found], [tuple(x.shape) for x in expected]
    if shapes != wanted:
        raise ExportError(f"the exported file returns tensors of shapes {shapes}, and the network {wanted}")
    if not all_finite(found):
        raise ExportError("the exported file returns NaN or infinity, and the network does not; export with fp32")
