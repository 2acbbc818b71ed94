"""Attachment of SE at a module: on its input or output, in place of its batch norm, or in the slot of a skip."""

from typing import Any

from torch import nn

from senet.insertion.families import Spot
from senet.nn.batch_norm import BATCH_NORMS, SEBatchNorm
from senet.nn.held_statistics import holds_statistics
from senet.nn.recalibration import Attachment, Recalibrate, Side, refuse_target

__all__ = ["attachment", "first_or_last_step", "locate"]

_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def locate(unit: str, block: nn.Module, spot: Spot) -> tuple[str, Attachment]:
    """Return the name within the block of the module at a spot, and how SE is attached there.

    Raises:
        ValueError: SE cannot act there, since it is no module, or a container.
    """
    module: Any = getattr(block, spot.child) if spot.child else block
    if module is None or (isinstance(module, Recalibrate) and module.how == "skip"):
        return spot.child, "skip"
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"the residual unit {unit!r}: its {spot.child!r} is a {type(module).__name__} ({module!r}) and not a "
            f"module, so SE cannot act on its output; make it a torch.nn.Module, or choose another placement"
        )
    whole, module = first_or_last_step(f"{unit}.{spot.child}".strip("."), module, spot.side)
    return whole.removeprefix(unit).removeprefix("."), attachment(module, spot.side)


def first_or_last_step(name: str, module: nn.Module, side: Side) -> tuple[str, nn.Module]:
    """Return the module with the same input or output as `module`: the first or last of a sequence.

    A sequence cannot hold SE itself, since it would run the child as another step.

    Raises:
        ValueError: the module is an empty sequence, or another container; or its forward cannot be wrapped, see
            `refuse_target`.
    """
    refuse_target(module)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        step = list(module._modules)[0 if side == "input" else -1]
        name, module = f"{name}.{step}", module._modules[step] or module
        refuse_target(module)
    if type(module).forward is nn.Sequential.forward:
        raise ValueError(
            f"{name!r} ({type(module).__name__}) is empty, and would run SE as its only step; put a torch.nn.Identity "
            f"there, or name another module"
        )
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(
            f"{name!r} ({type(module).__name__}) is a container, and would run SE as another child; name a module "
            f"inside it"
        )
    return name, module


def attachment(module: nn.Module, side: Side) -> Attachment:
    """Return "batch_norm" if SE replaces the module, a batch norm at whose output it acts; otherwise the side."""
    return "batch_norm" if side == "output" and _is_batch_norm(module) else side


def _is_batch_norm(module: nn.Module) -> bool:
    if isinstance(module, SEBatchNorm):
        return True
    # Keep subclasses, which do something more, and batch norms with hooks, methods or tensors of the user's.
    if type(module) not in BATCH_NORMS.values() or list(module.children()):
        return False
    own = {name for name in vars(module) if callable(getattr(type(module), name, None))}
    tensors = {**module._parameters, **module._buffers}
    return (
        not any(vars(module)[name] for name in vars(module) if name.endswith("_hooks"))
        and own <= ({"train"} if holds_statistics(module) else set())
        and tensors.keys() <= _TENSORS
    )
