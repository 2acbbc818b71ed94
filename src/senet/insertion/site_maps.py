"""Channels and stage of a site, from its module or from a recorded run; errors for sites where SE cannot act."""

from collections.abc import Sequence

from torch import nn

from senet.graph.channel_axes import AMBIGUOUS
from senet.graph.shapes import Map
from senet.graph.stages import stage_of_stride
from senet.nn.recalibrated_class import base_class
from senet.nn.recalibration import Side
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["channels_and_stage", "declared_channels", "known_channels", "refuse_repeated"]

# Modules whose inputs and outputs have their channels on axis 1.
_DECLARING = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.modules.batchnorm._NormBase, nn.GroupNorm),
)


def channels_and_stage(
    names: Sequence[str], module: nn.Module, side: Side, found: Map | None, first_stage: int = 0
) -> tuple[int, int | None]:
    """Return channels and stage of the map at a module, from a recorded run.

    Args:
        names: names of the module; several if it is shared.
        module: the module.
        side: "input" or "output".
        found: the map in the run; None if the module did not run.
        first_stage: number of the stage with stride 1.

    Raises:
        ValueError: SE cannot act there, with the reason.
    """
    name = names[0]
    what = f"{name!r} ({type(module).__name__})"
    if found is None:
        raise ValueError(
            f"{what} did not run when the network ran on the example; name another module, or give "
            f"{argument('example')}, an input of the network that uses it"
        )
    if found.kind != "Tensor":
        raise ValueError(
            f"the {side} of {what} was a {found.kind} and not a tensor when the network ran on the example; name a "
            f"module inside it, or another module"
        )
    refuse_repeated(names, module, found)
    shape = found.shape
    if len(shape) < 3:
        raise ValueError(f"the map at {name!r} has no spatial axis: its shape is {shape}; name another module")
    if found.axis != 1:
        raise ValueError(f"the {side} of {what} has the shape {shape}, {_where(found)}")
    return shape[1], None if found.octaves is None else stage_of_stride(found.octaves, first_stage)


def _where(found: Map) -> str:
    """Describe the wrong axis of the channels, with the remedy."""
    remedy = f"SE scales axis 1 of (N, C, *spatial): name a module whose map has that layout with {argument('at')}"
    if found.axis is None:
        return f"and no parameters around it determine the axis of its channels; {remedy}"
    if found.axis == AMBIGUOUS:
        return f"and the parameters around it disagree about the axis of its channels; {remedy}"
    count = found.shape[found.axis]
    last = " (channels last)" if found.axis == len(found.shape) - 1 else ""
    return f"with its {count} channels on axis {found.axis}{last}; {remedy}, such as one before or after a permute"


def refuse_repeated(names: Sequence[str], module: nn.Module, found: Map) -> None:
    """Check that a forward pass calls a module only once.

    Args:
        names: names of the module; several if it is shared.
        module: the module.
        found: the map in the run.

    Raises:
        ValueError: it is called several times.
    """
    if found.calls > 1:
        which = " and ".join(repr(name) for name in names) + (" are one module," if len(names) > 1 else " is a module,")
        raise ValueError(
            f"{which} a {type(module).__name__}, that is called {found.calls} times in one forward pass: SE would act "
            f"each time with the same weights; give each call a module of its own, or choose others with "
            f"{argument('at')}"
        )


def declared_channels(name: str, module: nn.Module, side: Side) -> int | None:
    """Return the channels declared by a convolution or norm of PyTorch, or by a module of senet, on axis 1.

    Returns:
        None for a module of another class, which may have its channels on another axis.

    Raises:
        ValueError: the module does not declare its channels.
    """
    channels = _attribute(module, side)
    if channels is None:
        raise MissingExampleError(
            f"the number of channels of the {side} of {name!r} ({type(module).__name__}) is unknown; "
            f"give {argument('example')}, an input of the network that uses it"
        )
    return known_channels(module, side)


def known_channels(module: nn.Module, side: Side) -> int | None:
    """Return the channels on axis 1 of the map at a module, as for `declared_channels`; None if they are unknown."""
    ours = base_class(module).__module__.startswith("senet.")
    return _attribute(module, side) if ours or isinstance(module, _DECLARING) else None


def _attribute(module: nn.Module, side: Side) -> int | None:
    attributes = ("in_channels" if side == "input" else "out_channels", "num_features", "num_channels")
    return next((c for c in (getattr(module, a, None) for a in attributes) if isinstance(c, int)), None)
