"""A run of a network for the search of sites: on the user's example, or on inputs that are made up."""

import inspect
from collections.abc import Iterator

import torch
from torch import nn

from senet.graph.example_inputs import LARGE_SIDES, Example, declared_size, example_image
from senet.graph.operations import Trace
from senet.graph.recorder import trace, trace_example
from senet.utils.errors import first_line

__all__ = ["run_of"]

# Sides of images that networks take whose layers depend on the size, in the order in which they are tried.
_SIDES = (224, 256, 299, 331, 64, 32, 28)


def run_of(model: nn.Module, example: Example | None) -> Trace:
    """Run a network on an example, or on made-up images on the meta device, and record the run.

    Args:
        model: the network.
        example: its input; if None, images of several sizes are tried, one for each required argument.

    Raises:
        TypeError: the example is not an input.
        ValueError: the network does not run on the example, or on any made-up image.
    """
    if example is not None:
        return trace_example(model, example)
    why = ""
    for images in _images(model):
        try:
            return trace(model, images)
        except Exception as error:  # whatever a network's own code raises
            why = why or f"{first_line(error)} on {', '.join(str(tuple(image.shape)) for image in images)}"
    raise ValueError(f"{type(model).__name__} did not run on an image to find its sites: {why}")


def _images(model: nn.Module) -> Iterator[tuple[torch.Tensor, ...]]:
    count = _required(model)
    sides = [LARGE_SIDES, *({1: side, 2: side, 3: side} for side in _SIDES)]
    images = [example_image(model, sides=side) for side in sides]
    size = declared_size(model)
    if size is not None:
        images.insert(1, example_image(model, size=size))
    for image in images:
        yield (image,) * count


def _required(model: nn.Module) -> int:
    """Return the number of positional arguments that a network's forward requires, at least 1."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters))
