"""Check that a network can have SE at all, before its sites are searched."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["check_forward", "check_module", "check_network", "refuse_lazy"]

# Packages of the modules that compute with integers. Those of dynamic quantization take and return float, and so does
# FloatFunctional; LinearPackedParams holds the weights of both kinds.
_QUANTIZED = ("torch.ao.nn.quantized.modules.", "torch.ao.nn.intrinsic.quantized.modules.")


def check_network(model: Any) -> None:
    """Check that a network is a module whose maps and parameters SE can be added to.

    Raises:
        TypeError: it is no `torch.nn.Module`.
        ValueError: it is quantized, scripted or exported, or a lazy module has not created its parameters yet.
    """
    check_module(model)
    _refuse_compiled(model)
    fine = (nn.quantized.FloatFunctional, torch.ao.nn.quantized.modules.linear.LinearPackedParams)
    for name, module in model.named_modules():
        if f"{type(module).__module__}.".startswith(_QUANTIZED) and not isinstance(module, fine):
            raise ValueError(
                f"{name!r} ({type(module).__name__}) is quantized, and SE scales maps of floating-point numbers: "
                f"insert SE into the float network, then quantize"
            )
    refuse_lazy(model)


def _refuse_compiled(model: nn.Module) -> None:
    """Check that SE in modules of the network would run: TorchScript and exported programs do not call them."""
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"this {kind} was compiled by TorchScript, which runs no Python: insert SE before torch.jit.trace"
        )
    if isinstance(model, torch.fx.GraphModule):
        called = [model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == "call_module"]
        if not any(next(module.parameters(), None) is not None for module in called):
            raise ValueError(f"this {kind} was exported, and calls no modules: insert SE before torch.export.export")


def check_forward(model: nn.Module) -> None:
    """Check that a network can be run.

    Raises:
        ValueError: it has no forward, as a ModuleList.
    """
    if "forward" not in vars(model) and type(model).forward is nn.Module.forward:
        raise ValueError(f"{type(model).__name__} has no forward: give the network that calls its modules")


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
