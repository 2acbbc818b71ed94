"""Check sites before the first change, and put SE there."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from senet.insertion.attachment import attachment, first_or_last_step
from senet.insertion.fusing_methods import wrap_fusing_methods
from senet.insertion.site_maps import known_channels
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.recalibration import Attachment, Recalibrate, attach, refuse_target
from senet.utils.arguments import argument, in_python_or
from senet.utils.choices import Placement, check_choice
from senet.utils.structures import found_in, held_attributes

__all__ = ["check_places", "place", "reference_tensor", "replace_module", "skip_slot"]


def check_places(model: nn.Module, places: Iterable[tuple[str, Attachment, str, int]]) -> None:
    """Check that `place` can put SE at sites.

    Args:
        model: the network.
        places: for each site its name, how SE is attached and the name of the child, as for `place`, and the channels.

    Raises:
        ValueError: a site already has SE, is given twice, or cannot have SE, with the reason.
    """
    seen: dict[tuple[nn.Module, str], str] = {}
    held = _held_outside(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, how, child, channels in places:
        if how == "skip":
            _check_slot(model, name)
            continue
        module = modules.get(name)
        if module is None:
            raise ValueError(f"the network has no module {name!r}")
        if (module, child) in seen:
            raise ValueError(
                f"{seen[module, child]!r} and {name!r} are one module, where SE would act twice; pick one "
                f"with {argument('at')}"
            )
        seen[module, child] = name
        if how == "batch_norm":
            _check_batch_norm(name, module)
            if id(module) in held:
                raise ValueError(
                    f"{name!r} is also held by {held[id(module)]!r}, outside of the module tree, where SE would not "
                    f"replace it; hold modules as children only, or name another module with {argument('at')}"
                )
        else:
            _check_module(name, module, how, child)
        there = known_channels(module, "input" if how == "input" else "output")
        if there not in (None, channels):
            raise ValueError(f"{name!r} ({type(module).__name__}) has {there} channels, and SE has {channels}")


def _held_outside(model: nn.Module) -> dict[int, str]:
    """Return the attributes with structures and functions that hold modules, by the identity of the module."""
    found: dict[int, str] = {}
    for name, owner in model.named_modules():
        for attribute, value in held_attributes(owner).items():
            for module in found_in(value, nn.Module):
                found.setdefault(id(module), f"{name}.{attribute}".strip("."))
    return found


def _check_slot(model: nn.Module, name: str) -> None:
    unit, slot = skip_slot(model, name)
    if getattr(unit, slot, unit) is not None:
        held = getattr(unit, slot, None)
        if isinstance(held, Recalibrate):
            raise _occupied(name)
        raise ValueError(f"{name!r} is not the empty slot of an identity skip")


def _check_batch_norm(name: str, module: nn.Module) -> None:
    if isinstance(module, SEBatchNorm):
        raise _occupied(name)
    if attachment(module, "output") != "batch_norm":
        raise ValueError(f"{name!r} is a {type(module).__name__} and not a plain batch norm, which SE could replace")


def _check_module(name: str, module: nn.Module, how: Attachment, child: str) -> None:
    if how not in ("input", "output"):
        raise ValueError(f"SE at {name!r} must be attached as batch_norm, input, output or skip, got {how!r}")
    check_choice("placement", child, Placement)
    refuse_target(module)
    if first_or_last_step(name, module, how)[0] != name:
        raise ValueError(f"{name!r} is a sequence, which would run SE as another step; name a module inside it")
    if isinstance(module, SEBatchNorm) or isinstance(dict(module.named_children()).get(child), Recalibrate):
        raise _occupied(name)
    if hasattr(module, child):
        raise ValueError(
            f"{name!r} ({type(module).__name__}) has its own attribute {child!r}, the name of SE's child; name a "
            f"module inside it with {argument('at')}"
        )


def _occupied(name: str) -> ValueError:
    remedy = in_python_or("remove it first with senet.remove(model)", "give the plain network")
    return ValueError(f"{name!r} already has SE; {remedy}")


def place(model: nn.Module, name: str, how: Attachment, child: str, se: SqueezeExcitation) -> None:
    """Insert one block at one site.

    Args:
        model: the network.
        name: name of the module at the site, as in `Site`.
        how: see `Site`.
        child: name of the child, if `how` is "input" or "output".
        se: the block; it gets the mode of the module at the site.
    """
    wrap_fusing_methods(model, name)
    if how == "skip":
        unit, slot = skip_slot(model, name)
        setattr(unit, slot, Recalibrate(se, "skip").train(unit.training))
        return
    module = model.get_submodule(name)
    if how == "batch_norm":
        replace_module(model, module, SEBatchNorm.from_batch_norm(module, se))
    else:
        attach(module, child, se, how)


def skip_slot(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the unit of an identity skip, and the attribute for a module in the skip."""
    parent, _, slot = name.rpartition(".")
    return model.get_submodule(parent), slot


def reference_tensor(model: nn.Module, unit: str) -> Tensor:
    """Return a tensor with the device and dtype for SE in a unit.

    The dtype of the maps is that of the layers that make them: norms may have float32 weights in a half network. A unit
    without layers, such as a norm, has the dtype of the layers around it.
    """
    around = [model.get_submodule(name) for name in (*_outwards(unit), "")]
    layers = next((tensor for module in around for tensor in _floating(module) if tensor.ndim > 1), None)
    first = next((tensor for module in around for tensor in _floating(module)), torch.empty(0))
    return torch.empty(0, device=first.device, dtype=(first if layers is None else layers).dtype)


def _floating(module: nn.Module) -> Iterator[Tensor]:
    """Yield the floating point tensors of a module, those of all modules in it included."""
    return (tensor for tensor in chain(module.parameters(), module.buffers()) if tensor.is_floating_point())


def _outwards(name: str) -> Iterator[str]:
    """Yield the names of a module and of those around it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module everywhere: a shared module is in several places."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
