"""Shapes of the maps in a network, from one run: on an example, or on the meta device, where nothing is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from senet.modes import evaluating

__all__ = ["Seen", "meta_shapes", "shapes_of"]

# Pixels of a side of the image that goes through a network on the meta device: large, so that what convolutions
# without padding take off at the borders does not hide the stride.
_SIDE = 512


@dataclass(frozen=True)
class Seen:
    """What a module took and gave in its first call.

    Attributes:
        height: of the network's input.
        taken: shape of the module's first argument.
        given: shape of its output.
    """

    height: int
    taken: tuple[int, ...]
    given: tuple[int, ...]


def shapes_of(model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor) -> dict[str, Seen]:
    """Run a network on an example, in evaluation, and note the shapes at some of its modules.

    Args:
        model: the network.
        modules: by names to call them by.
        example: (N, C, *spatial), the network's input.

    Returns:
        By the same names; without modules that were not reached, or do not take a tensor and give one.
    """
    return _run(modules, example, model, lambda: model(example))


def meta_shapes(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, Seen]:
    """The same for an image of as many channels as the first convolution takes, with the weights on the meta device.

    Raises:
        ValueError: the network does not run on such an image.
    """
    tensors = {n: t.detach().to("meta") for n, t in (*model.named_parameters(), *model.named_buffers())}
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    dtype = torch.float32 if first is None else first.weight.dtype
    example = torch.empty(1, 3 if first is None else first.in_channels, _SIDE, _SIDE, dtype=dtype, device="meta")
    try:
        return _run(modules, example, model, lambda: functional_call(model, tensors, (example,)))
    except Exception as error:  # whatever a network's own code raises
        raise ValueError(
            f"{type(model).__name__} did not run on an image {tuple(example.shape)}, to tell its channels and stages: "
            f"{error}; give example=, an input of the network"
        ) from error


def _run(
    modules: Mapping[str, nn.Module], example: Tensor, model: nn.Module, run: Callable[[], object]
) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                seen.setdefault(name, Seen(example.shape[2], tuple(args[0].shape), tuple(output.shape)))

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        with evaluating(model), torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen
