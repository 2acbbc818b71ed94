"""Replace modules of a network."""

from torch import nn

from senet.insertion.placing import replace_module as replace_child

__all__ = ["replace_module"]


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replace a module in all its places, and return the network: another module if it was the network itself."""
    if old is model:
        return new
    replace_child(model, old, new)
    return model
