"""The channels and the stage of a site, from the module there or from a run, which may show that SE cannot act."""

from collections.abc import Sequence

from torch import nn

from senet.graph.channel_axes import AMBIGUOUS
from senet.graph.shapes import Map
from senet.graph.stages import stage_of_stride
from senet.nn.recalibrated_class import base_class

__all__ = ["channels_and_stage", "declared_channels", "refuse_repeated"]

# Their channels are on axis 1 of what they take and give.
_DECLARING = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.modules.batchnorm._NormBase, nn.GroupNorm),
)


def channels_and_stage(
    names: Sequence[str], module: nn.Module, side: str, found: Map | None, first_stage: int = 0
) -> tuple[int, int | None]:
    """Channels and stage of the map that a run showed at a module.

    Args:
        names: of the module, several where it is in several places.
        module: itself.
        side: "input" or "output".
        found: of the run; None where the module did not run.
        first_stage: the stage's number where the stride is 1.

    Raises:
        ValueError: SE cannot act there, with the reason.
    """
    name = names[0]
    what = f"{name!r} ({type(module).__name__})"
    if found is None:
        raise ValueError(
            f"{what} did not run when the network ran on the example; name another module, or give an example= that "
            f"reaches it"
        )
    if found.kind != "Tensor":
        raise ValueError(
            f"{what} did not take a tensor and give one when the network ran on the example: its {side} is a "
            f"{found.kind}; name a module inside it, or another one"
        )
    refuse_repeated(names, module, found)
    shape = found.shape
    if len(shape) < 3:
        raise ValueError(f"the map at {name!r} has no spatial axis: its shape is {shape}; name another module")
    if found.axis != 1:
        raise ValueError(f"the {side} of {what} has the shape {shape}, {_where(found)}")
    return shape[1], None if found.octaves is None else stage_of_stride(found.octaves, first_stage)


def _where(found: Map) -> str:
    """What is wrong with the axis of the channels."""
    remedy = "SE scales axis 1 of (N, C, *spatial): name a module whose map has that layout with at=[...]"
    if found.axis is None:
        return f"and no parameters that make or read it show which axis its channels are on; {remedy}"
    if found.axis == AMBIGUOUS:
        return f"and the parameters that make and read it disagree about the axis of its channels; {remedy}"
    count = found.shape[found.axis]
    last = " (channels last)" if found.axis == len(found.shape) - 1 else ""
    return f"with its {count} channels on axis {found.axis}{last}; {remedy}, such as one before or after a permute"


def refuse_repeated(names: Sequence[str], module: nn.Module, found: Map) -> None:
    """Refuse a module that one forward pass calls several times.

    Args:
        names: of the module, several where it is in several places.
        module: itself.
        found: of the run.

    Raises:
        ValueError: it is called several times.
    """
    if found.calls > 1:
        which = " and ".join(repr(name) for name in names) + (" are one module," if len(names) > 1 else " is a module,")
        raise ValueError(
            f"{which} a {type(module).__name__}, that is called {found.calls} times in one forward pass: SE would act "
            f"there each time with the same weights; give each call a module of its own, or choose others with at="
        )


def declared_channels(name: str, module: nn.Module, side: str) -> int | None:
    """The channels that a convolution or a norm of PyTorch, or a module of senet, says that it has, on axis 1.

    Returns:
        None for a module of another class that says how many it has, and may have them on another axis.

    Raises:
        ValueError: a module that does not say it.
    """
    attributes = ("in_channels" if side == "input" else "out_channels", "num_features", "num_channels")
    channels = next((c for c in (getattr(module, a, None) for a in attributes) if isinstance(c, int)), None)
    if channels is None:
        raise ValueError(
            f"{name!r} ({type(module).__name__}) does not say how many channels its {side} has; "
            f"give example=, an input of the network that reaches it"
        )
    ours = base_class(module).__module__.startswith("senet.")
    return channels if ours or isinstance(module, _DECLARING) else None
