"""Check that a network can have SE at all, before its sites are searched."""

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["check_module", "check_network", "refuse_lazy"]

# Packages of the modules that compute with integers. Those of dynamic quantization take and return float, and so does
# FloatFunctional.
_QUANTIZED = ("torch.ao.nn.quantized.modules.", "torch.ao.nn.intrinsic.quantized.modules.")


def check_network(model: Any) -> None:
    """Check that a network is a module whose maps and parameters SE can be added to.

    Raises:
        TypeError: it is no `torch.nn.Module`.
        ValueError: it is quantized, or a lazy module has not created its parameters yet.
    """
    check_module(model)
    for name, module in model.named_modules():
        packaged = f"{type(module).__module__}.".startswith(_QUANTIZED)
        if packaged and not isinstance(module, nn.quantized.FloatFunctional):
            raise ValueError(
                f"{name!r} ({type(module).__name__}) is quantized, and SE scales maps of floating-point numbers: "
                f"insert SE into the float network, then quantize"
            )
    refuse_lazy(model)


def check_module(model: Any) -> None:
    """Check that a network is a module.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")


def refuse_lazy(model: nn.Module) -> None:
    """Check that all parameters and buffers exist.

    Raises:
        ValueError: a lazy module has not created its own yet.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name!r} of a lazy module is not created yet: run the network once first")
