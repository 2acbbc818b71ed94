"""Replace modules of a network, and find what would observe the replacement: hooks."""

from torch import nn

from senet.insertion.placing import replace_module as replace_child

__all__ = ["has_own_hooks", "replace_module"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replace a module in all its places, and return the network: another module if it was the network itself."""
    if old is model:
        return new
    replace_child(model, old, new)
    return model


def has_own_hooks(module: nn.Module) -> bool:
    """Return whether hooks observe or change the calls of a module."""
    return any(getattr(module, name) for name in _HOOKS)
