"""Run a network once for a rewriting, and count the work of the run."""

import torch
from torch import nn

from senet.graph.counts import count
from senet.graph.example_inputs import Example, example_image
from senet.graph.operations import Trace
from senet.graph.recorder import trace, trace_example
from senet.utils.errors import MissingExampleError, first_line
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["bytes_moved", "macs", "run_example"]


def run_example(model: nn.Module, example: Example | None) -> Trace:
    """Run a network on an example, with values; or on a made-up image, without values if the network takes that.

    Args:
        model: the network.
        example: a tensor, or a tuple or dict of inputs.

    Raises:
        TypeError: the example is not an input.
        MissingExampleError: the network does not run on a made-up image.
        ValueError: it does not run on the example.
    """
    if example is not None:
        return trace_example(model, example)
    image = example_image(model)
    try:
        return trace(model, image)
    except Exception as error:  # whatever a network's own code raises, such as where it reads values
        if is_out_of_memory(error):
            raise
    try:
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        return trace(model, torch.zeros(image.shape, dtype=image.dtype, device=device), tensors="real")
    except Exception as error:  # the network's own
        if is_out_of_memory(error):
            raise
        raise MissingExampleError(
            f"{type(model).__name__} does not run on an image {tuple(image.shape)}: {first_line(error)}; give "
            f"example=, an input of the network: a tensor, a tuple of inputs or a dict of inputs by keyword"
        ) from error


def macs(run: Trace) -> int:
    """Count the multiply-adds of a run."""
    return sum(count(operation).macs for operation in run.operations)


def bytes_moved(run: Trace) -> int:
    """Count the bytes that the operations of a run read and write, each tensor once for each operation."""
    total = 0
    for operation in run.operations:
        if operation.overload is not None and not operation.overload.is_view:
            total += sum(value.nbytes for value in {*operation.inputs, *operation.outputs})
    return total
