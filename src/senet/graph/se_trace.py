"""A trace in which each SE module is one operation: from a map to the scaled map."""

from dataclasses import dataclass

import torch
from torch import nn

from senet.graph.example_inputs import Example, example_image, split_example
from senet.graph.operations import MODULE_CALL, Operation, Trace
from senet.graph.recorder import trace
from senet.graph.se_modules import SEUnit, find_se
from senet.graph.tensor_kinds import has_shapes_of_values, tensors_in
from senet.utils.errors import GatesError, first_line
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["SETrace", "trace_se"]


@dataclass(frozen=True)
class SETrace:
    """What a network with SE computes.

    Attributes:
        run: the trace, functional, without operations that its outputs do not depend on. The calls of SE modules of
            the form "block" are single operations. SE that is a part of another module's forward is not.
        units: the SE modules by name.
    """

    run: Trace
    units: dict[str, SEUnit]

    def products(self, name: str) -> list[Operation]:
        """Return the operations that stand for an SE module, one for each call; the first input is the map."""
        return [operation for operation in self.run.operations if self.unit_of(operation) == name]

    def unit_of(self, operation: Operation) -> str | None:
        """Return the name of the SE module that an operation stands for; None for any other operation."""
        if operation.name != MODULE_CALL or operation.call is None:
            return None
        return self.run.calls[operation.call].name


def trace_se(model: nn.Module, example: Example | None = None) -> SETrace:
    """Trace a network in evaluation, without values, with each SE module as one operation.

    Args:
        model: the network; unchanged.
        example: an input: a tensor (N, C, *spatial), or a tuple or dict of inputs; `example_image` unless given.

    Raises:
        TypeError: the example is not an input.
        GatesError: the network has no SE, does not run on the example, or cannot be traced.
    """
    units = {unit.name: unit for unit in find_se(model)}
    if not units or "" in units:
        what = "is an SE module itself" if units else "has no SE"
        raise GatesError(f"{type(model).__name__} {what}: there are no gates to fold in it; give a network with SE")
    example = example_image(model, 2) if example is None else example
    inputs = split_example(example)  # raises the TypeError
    try:
        # In float64, so that an example in another dtype than the network fits too.
        run = trace(model, example, tensors="fake", functional=True, dtype=torch.float64)
    except Exception as error:  # whatever a network's own code raises
        if is_out_of_memory(error):
            raise
        if has_shapes_of_values(error):
            raise GatesError(
                f"what {type(model).__name__} computes depends on the values of the image ({error}), as the boxes of a "
                f"detector do; give the part with SE, such as its child `backbone`"
            ) from error
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors_in(inputs)) or "without a tensor"
        raise GatesError(
            f"{type(model).__name__} did not run on an input {shapes}: {first_line(error)}; "
            f"give example=, an input of the network"
        ) from error
    blocks = {name for name, unit in units.items() if unit.form == "block"}
    return SETrace(run.with_calls_as_operations(blocks).live(), units)
