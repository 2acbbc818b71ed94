"""Windows of SE blocks from the size of training images: each block gets the size of its map."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet.graph.example_inputs import Example, example_image
from senet.graph.example_runs import resized_example, run_network
from senet.graph.operations import Trace, Value
from senet.graph.recorder import trace_example
from senet.insertion.network_checks import check_module
from senet.insertion.site import Site
from senet.nn.block import SqueezeExcitation
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["set_window", "site_windows"]


def set_window(
    model: nn.Module, size: int | Sequence[int] | None = None, *, example: Example | None = None
) -> nn.Module:
    """Have SE squeeze over windows of the training size, where maps in evaluation are larger than in training.

    A network trained on crops and run on larger images squeezes more than it did in training. With windows, each
    position is gated by the part of the map around it that has the size of the map in training. Weights, training, and
    evaluation of images of the training size are unchanged, so this is for networks that are already trained too.

    The network runs once on an image of the training size. Each block's `window` becomes the size of its map there;
    blocks that do not run keep theirs.

    Args:
        model: a network with SE of senet, from `senet.insert` or of its own. SE with the squeeze "none" has no window.
        size: of the images in training: one length for each spatial axis, or an integer for all. None without an
            `example` removes the windows.
        example: an input of the training size, if the network takes several or its input is unknown: a tensor, or a
            tuple or dict of inputs.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a network, `size` not integers, or `example` of another type.
        ValueError: the network has no SE of senet; both `size` and `example` are given; the network does not run on
            such an image; or a block runs on maps of several sizes. The network is then unchanged.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> model = senet.set_window(model.eval(), 32)  # trained on images of 32x32
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 2])
    """
    check_module(model)
    found = {n: m for n, m in model.named_modules() if isinstance(m, SqueezeExcitation) and m.squeeze != "none"}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no SE of senet that squeezes over space; add SE with senet.insert"
        )
    if size is not None and example is not None:
        raise ValueError("size= and example= are both given: the example has the size of training images; omit size=")
    if size is None and example is None:
        for se in found.values():
            se.window = None
        return model
    run = trace_example(model, example) if example is not None else _run(model, size)
    windows = {name: _window(name, (call.taken for call in run.calls_of(name))) for name in found}
    for name, window in windows.items():
        if window is not None:
            found[name].window = window
    return model


def site_windows(
    model: nn.Module, sites: Iterable[Site], size: int | Sequence[int], example: Example | None = None
) -> list[tuple[int, ...] | None]:
    """Return the size of the map at each site for an image of the training size; None if it does not run.

    Args:
        model: the network, without SE at these sites.
        sites: of `find_sites`.
        size: as for `set_window`.
        example: an input of any size, which is resized; by default an image.

    Raises:
        TypeError, ValueError: see `set_window`.
    """
    run = _run(model, size, example)
    windows = []
    for site in sites:
        calls = run.calls_of(site.unit if site.how == "skip" else site.name)
        maps = [call.taken if site.how == "input" else call.given for call in calls]
        windows.append(_window(site.name, maps))
    return windows


def _run(model: nn.Module, size: int | Sequence[int] | None, example: Example | None = None) -> Trace:
    """Trace a network on an image of a size, without values if it can."""
    maps = [x for x in tree_leaves(example) if isinstance(x, Tensor) and x.ndim >= 3] if example is not None else []
    image = maps[0] if maps else example_image(model)
    lengths = _lengths(size, image.ndim - 2)
    if example is None:
        images = [example_image(model, size=(image.shape[1], *lengths))]
        try:
            return run_network(model, images=images, purpose="of the training size", prefer_shapes=True)
        except MissingExampleError as error:
            raise MissingExampleError(f"{error}; give {argument('example')}, an input of the network") from error
    try:
        return run_network(model, resized_example(example, lengths), prefer_shapes=True)
    except ValueError as error:
        raise ValueError(
            f"{error}; insert SE without {argument('window')}, then call senet.set_window(model, example=...) with an "
            f"input of the training size"
        ) from error


def _lengths(size: int | Sequence[int] | None, axes: int) -> tuple[int, ...]:
    """Return the length of each spatial axis.

    Raises:
        TypeError: the size is not integers.
        ValueError: it has another number of axes, or a length below 1.
    """
    lengths: Any = (size,) * axes if isinstance(size, int) else size
    sequence = isinstance(lengths, Sequence) and not isinstance(lengths, str)
    if not sequence or not all(isinstance(n, int) and not isinstance(n, bool) for n in lengths):
        raise TypeError(f"the window's size must be integers, such as 224 or (256, 512), got {size!r}")
    if len(lengths) != axes or min(lengths) < 1:
        raise ValueError(
            f"the window's size must be {axes} lengths of 1 or more, the size of training images, got {size!r}"
        )
    return tuple(lengths)


def _window(name: str, maps: Iterable[Value | None]) -> tuple[int, ...] | None:
    """Return the one size of a block's maps; None if there are none."""
    sizes = {value.shape[2:] for value in maps if value is not None}
    if len(sizes) > 1:
        listed = " and ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise ValueError(
            f"{name!r} runs on maps of several sizes, {listed}, in one forward pass: it has no single training size; "
            f"set its window= to the size you want"
        )
    return next(iter(sizes), None)
