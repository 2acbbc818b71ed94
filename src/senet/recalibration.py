"""SE at a module that is no batch norm: a child that holds it, and a hook that applies it to what goes in or comes out.

A hook of the module leaves the network's code alone, so any network can take it. The hooks are plain objects that look
their child up by name: a copied, pickled or scripted-by-fx module then finds its own child and not the original's.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from senet.block import SqueezeExcitation

__all__ = ["Recalibrate", "attach", "detach", "reattach"]


class Recalibrate(nn.Module):
    """SE at a site where no batch norm can hold it.

    Args:
        se: the block.
        how: "input" or "output" for a child whose parent's hook applies it, "skip" where it stands on an identity skip
            that had no module.
    """

    def __init__(self, se: SqueezeExcitation, how: str) -> None:
        super().__init__()
        self.se = se
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *spatial)."""
        return self.se(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _InputHook:
    child: str

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args:
            raise ValueError(
                f"SE acts on the input of this {type(module).__name__}, which was called with keywords alone; "
                f"pass the map as its first argument"
            )
        return (getattr(module, self.child)(args[0]), *args[1:])


@dataclass(frozen=True)
class _OutputHook:
    child: str

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return getattr(module, self.child)(output)


def attach(module: nn.Module, child: str, se: SqueezeExcitation, how: str) -> None:
    """Give `module` a child that recalibrates its "input" or its "output".

    Args:
        module: the module at the site.
        child: the child's name; the keys are then `<child>.se.*`.
        se: the block, with the channels of the map.
        how: "input" or "output".
    """
    module.add_module(child, Recalibrate(se, how).train(module.training))
    if how == "input":
        module.register_forward_pre_hook(_InputHook(child))
    else:
        module.register_forward_hook(_OutputHook(child))


def reattach(old: nn.Module, new: nn.Module) -> None:
    """Give `new` the SE that hangs in `old`, whose place a tool gave it: such tools drop hooks."""
    for hooks in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(old, hooks).values():
            if isinstance(hook, _InputHook | _OutputHook):
                child = getattr(old, hook.child)
                new.add_module(hook.child, child)
                (new.register_forward_pre_hook if hooks == "_forward_pre_hooks" else new.register_forward_hook)(hook)  # type: ignore[arg-type]


def detach(module: nn.Module, child: str) -> None:
    """The reverse of `attach`."""
    # A hook's handle does not survive a copy of the module, so the hook itself is looked for.
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(hook, _InputHook | _OutputHook) and hook.child == child:
                del hooks[key]
    del module._modules[child]
