"""Check that SE survives the fusing methods of networks.

Detectors and re-parametrized networks have methods that fold batch norms and rebuild convolutions. They would delete SE
silently, so these methods of the modules around SE are wrapped in a check.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from senet.nn.inserted_se import find_inserted_se

__all__ = ["METHODS", "unwrap_fusing_methods", "wrap_fusing_methods"]

# Names of such methods in ultralytics, torchvision, timm, mobile-one, RepVGG and others.
METHODS = (
    "fuse",
    "fuse_model",
    "fuse_convs",
    "fuse_conv_bn",
    "fuse_bn",
    "merge_bn",
    "reparameterize",
    "reparametrize",
    "switch_to_deploy",
    "convert_to_deploy",
)


class _Checked:
    """A method of a module that must keep the SE inside."""

    def __init__(self, module: nn.Module, method: str) -> None:
        self.module = module
        self.method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = find_inserted_se(self.module)
        result = getattr(type(self.module), self.method)(self.module, *args, **kwargs)
        kept = find_inserted_se(self.module)
        if isinstance(result, nn.Module):
            kept += find_inserted_se(result)
        # A copy has its own blocks, at the same sites.
        lost = [one.name for one in before if not any(one.se is other.se or one.name == other.name for other in kept)]
        if lost:
            raise RuntimeError(
                f"{self.method}() of {type(self.module).__name__} deleted the SE at {', '.join(map(repr, lost))}, "
                f"and the network would run without it: insert SE at the block that fuses, or remove it first with "
                f"senet.remove"
            )
        return result


def wrap_fusing_methods(model: nn.Module, name: str) -> None:
    """Wrap the fusing methods of the modules around a site in a check.

    Args:
        model: the network.
        name: name of the module at the site.
    """
    for module in _around(model, name):
        for method in METHODS:
            if callable(getattr(type(module), method, None)) and method not in module.__dict__:
                module.__dict__[method] = _Checked(module, method)


def unwrap_fusing_methods(model: nn.Module) -> None:
    """Undo `wrap_fusing_methods` for modules without SE inside."""
    for module in model.modules():
        held = [name for name, value in module.__dict__.items() if isinstance(value, _Checked)]
        if held and not find_inserted_se(module):
            for name in held:
                del module.__dict__[name]


def _around(model: nn.Module, name: str) -> list[nn.Module]:
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:length])) for length in range(len(parts))] if name else []
