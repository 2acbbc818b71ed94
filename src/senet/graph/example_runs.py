"""Run a network on its example or, without one, on made-up images of one or several sizes.

All searches and counts that work without an example use this module. They differ in the images that they try and in
whether they need values, see `run_network`.
"""

import inspect
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from senet.graph.example_inputs import LARGE_SIDES, Example, declared_size, example_image, split_example
from senet.graph.operations import Trace
from senet.graph.recorder import check_not_empty, trace, trace_example
from senet.utils.errors import MissingExampleError, first_line

__all__ = ["image_inputs", "resized_example", "run_network", "search_run", "with_values"]

# Sides of images for networks whose layers depend on the size, in the order in which they are tried.
_SIDES = (224, 256, 299, 331, 64, 32, 28)
# The sides of a random image, by the number of spatial axes: as values take time, it is no larger than usual.
_SIDES_WITH_VALUES = {1: 512, 2: 224, 3: 32}


def run_network(
    model: nn.Module,
    example: Example | None = None,
    *,
    images: Iterable[Tensor] = (),
    purpose: str = "",
    prefer_shapes: bool = False,
    gradients: bool = False,
    functional: bool = False,
    find_stored: bool = False,
) -> Trace:
    """Run a network, and record the run.

    Args:
        model: the network.
        example: its input, or None. The network runs on its values.
        images: without an example, images (N, C, *spatial) without values, which are tried in this order. Each stands
            for every input that the network requires.
        purpose: what the run is for, after "did not run on an image (1, 3, 512, 512)".
        prefer_shapes: run on the example without values, too; then, if the network's code reads values, on those of the
            example, or on a random image of the first size.
        gradients, functional: of a run without values, see `trace`.
        find_stored: see `trace`.

    Raises:
        TypeError: the example is not an input.
        MissingExampleError: the network does not run on these images; the message has its own error on the first one.
        ValueError: it does not run on the example, or this is an empty batch.
    """
    if example is not None and not prefer_shapes:
        return trace_example(model, example, find_stored=find_stored)
    if example is not None:
        check_not_empty(example)
    inputs: list[Example] = [image_inputs(model, image) for image in images] if example is None else [example]
    why: Exception | None = None
    for given in inputs:
        try:
            return trace(model, given, gradients=gradients, functional=functional, find_stored=find_stored)
        except Exception as error:  # a network's own code may raise anything on tensors without values
            why = why or error
            if isinstance(error, NotImplementedError):  # an operator without a result on any image without values
                break
    if prefer_shapes:
        try:
            return trace_example(model, with_values(model, inputs[0]), find_stored=find_stored)
        except ValueError:
            if example is not None:
                raise
    count = len(inputs[0]) if example is None else 1
    raise _no_run(model, tree_leaves(inputs[0])[0], count, purpose, why)


def _no_run(
    model: nn.Module, image: Tensor, count: int, purpose: str, why: BaseException | None
) -> MissingExampleError:
    """Return the error of a network that does not run on an image, with its own error as cause."""
    what = f"an image {tuple(image.shape)}{purpose and f' {purpose}'}"
    each = f" (for each of {count} inputs)" if count > 1 else ""
    reason = first_line(why) if isinstance(why, Exception) else ""
    error = MissingExampleError(f"{type(model).__name__} did not run on {what}{each}: {reason}")
    error.__cause__ = why
    return error


def search_run(model: nn.Module, example: Example | None, purpose: str = "to find its sites") -> Trace:
    """Run a network on its example, or without values on images of all sizes that networks usually take.

    The first image is large, so that borders lost by convolutions without padding do not hide the stride. Where the
    shape of a tensor depends on values, as in `torch.nonzero`, the network runs on a random image instead.

    Raises:
        TypeError, ValueError: see `run_network`.
    """
    sides = [LARGE_SIDES, *({1: side, 2: side, 3: side} for side in _SIDES)]
    images = [example_image(model, sides=side) for side in sides]
    size = declared_size(model)
    if size is not None:
        images.insert(1, example_image(model, size=size))
    try:
        return run_network(model, example, images=images, purpose=purpose)
    except MissingExampleError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
    inputs = image_inputs(model, example_image(model, sides=None if size else _SIDES_WITH_VALUES))
    try:
        return trace_example(model, with_values(model, inputs))
    except ValueError as error:
        raise _no_run(model, inputs[0], len(inputs), purpose, error.__cause__) from error.__cause__


def resized_example(example: Example, lengths: Sequence[int]) -> Example:
    """Return an example with images of another size, by nearest neighbours.

    Args:
        example: as for `run_network`.
        lengths: of the spatial axes.

    Returns:
        The example, in which all tensors that end in the spatial size of its first map (N, C, *spatial) have these
        lengths instead. It is returned as it is if it has no such map.

    Raises:
        TypeError: the example is not an input.
    """
    leaves = [leaf for leaf in tree_leaves(split_example(example)) if isinstance(leaf, Tensor)]
    size = next((leaf.shape[2:] for leaf in leaves if leaf.ndim >= 3), None)
    if size is None or size == tuple(lengths):
        return example

    def resized(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or leaf.ndim <= len(size) or leaf.shape[-len(size) :] != size:
            return leaf
        for axis, (length, now) in enumerate(zip(lengths, size, strict=True), leaf.ndim - len(size)):
            places = torch.arange(length, device=leaf.device) * now // length
            leaf = leaf.index_select(axis, places)
        return leaf

    return tree_map(resized, example)  # type: ignore[no-any-return]


def with_values(model: nn.Module, example: Example) -> Example:
    """Return an example with uniform random numbers of 0 to 1, the same in every call, in tensors without values.

    Args:
        model: the network, on whose device the tensors are.
        example: as for `run_network`; other tensors are unchanged.
    """
    generator = torch.Generator().manual_seed(0)
    device = next((x.device for x in (*model.parameters(), *model.buffers())), "cpu")

    def filled(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or not leaf.is_meta:
            return leaf
        return torch.rand(leaf.shape, generator=generator, device="cpu").to(device, leaf.dtype)

    return tree_map(filled, example)  # type: ignore[no-any-return]


def image_inputs(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Return an image for each positional argument that a network's forward requires, at least one."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (image,) * max(1, sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters))
