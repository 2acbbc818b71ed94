"""Capture a network as a `torch.export.ExportedProgram`, with dynamic axes."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from senet.deployment.export.signature import batch_of, input_tensors, spatial_axes, vary
from senet.graph.example_inputs import Example, describe, split_example
from senet.utils.choices import ExportAxis
from senet.utils.errors import ExportError, first_line

__all__ = ["capture"]

# An example of one image would fix the batch size: PyTorch treats sizes 0 and 1 as constants.
_BATCH = 2
# A limit of an axis that PyTorch infers from code is shorter than this.
_LONGEST = 2**31
# In PyTorch's errors about control flow that depends on values.
_DATA_DEPENDENT = ("data-dependent", "data dependent", "DataDependent")


def capture(model: nn.Module, example: Example, dynamic: Sequence[ExportAxis] = ()) -> ExportedProgram:
    """Capture a network by `torch.export.export`.

    Args:
        model: in evaluation mode.
        example: inputs that the network accepts.
        dynamic: axes of any length: "batch" is axis 0 of every input, "size" the spatial axes of images.

    Raises:
        ExportError: PyTorch cannot capture the network, or an axis is fixed in it.
    """
    if "batch" in dynamic and batch_of(example) == 1:
        example = vary(example, 0, batch=_BATCH)
    args, kwargs = split_example(example)
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, axes in _dynamic_axes(example, dynamic):
        shapes[tensor] = dict.fromkeys(axes, Dim.DYNAMIC)
    printed = io.StringIO()  # PyTorch prints the graph of what it does not capture
    try:
        with torch.no_grad(), redirect_stderr(printed):
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes if dynamic else None, strict=False)
    except Exception as error:  # of the network's own code, or of any part of PyTorch that follows it
        raise _explained(error, model, example, dynamic) from error
    sys.stderr.write(printed.getvalue())
    _check_ranges(program, model, dynamic)
    return program


def _check_ranges(program: ExportedProgram, model: nn.Module, dynamic: Sequence[ExportAxis]) -> None:
    """Check that dynamic axes have no upper limit: a file states none, and would be wrong beyond it.

    Raises:
        ExportError: code of the network depends on the length of an axis.
    """
    for symbol, allowed in program.range_constraints.items():
        # Unbacked symbols are lengths that depend on values, such as the number of boxes.
        if allowed.upper < _LONGEST and not free_unbacked_symbols(symbol):
            raise ExportError(
                f"the {' and '.join(dynamic)} of {type(model).__name__} cannot be dynamic: its code takes another path "
                f"where an axis ({symbol}) is longer than {allowed.upper}; export it with a fixed one"
            )


def _explained(error: Exception, model: nn.Module, example: Example, dynamic: Sequence[ExportAxis]) -> ExportError:
    """Return the error for a network that PyTorch does not capture."""
    kind, text = type(model).__name__, f"{type(error).__name__}: {error}"
    reason = first_line(error)[:300]
    if any(words in text for words in _DATA_DEPENDENT):
        return ExportError(
            f"{kind} cannot be exported, because its control flow depends on values of tensors ({reason}); use "
            f"torch.where or torch.cond there"
        )
    if dynamic and "Constraints violated" in text:
        return ExportError(
            f"the {' and '.join(dynamic)} of {kind} cannot be dynamic ({reason}); export it with a fixed one"
        )
    several = "batch" in dynamic and len(input_tensors(example)) > 1
    remedy = "; give an example of several images, which shows the inputs without a batch" if several else ""
    return ExportError(f"torch.export cannot capture {kind} on {describe(example)}: {reason}{remedy}")


def _dynamic_axes(example: Example, dynamic: Sequence[ExportAxis]) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield input tensors with their dynamic axes."""
    batch = batch_of(example)
    for tensor in input_tensors(example):
        axes = []
        if "batch" in dynamic and tensor.ndim and len(tensor) == batch:
            axes.append(0)
        if "size" in dynamic:
            axes += spatial_axes(tensor)
        if axes:
            yield tensor, axes
