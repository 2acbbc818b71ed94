"""Calls under a symbolic trace of torch.fx."""

from typing import Any

from torch import nn
from torch.fx import Proxy

__all__ = ["emit_call"]


def emit_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record a call of a module by torch.fx as one node, which calls it as a whole.

    Returns:
        The node's proxy; None where no argument is of a symbolic trace, or the module is the root of the trace, which
        has no name: its parts are then to be recorded.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Proxy):
            tracer = value.tracer
            find = getattr(tracer, "path_of_module", None)
            path = find(module) if find is not None else ""
            return tracer.create_proxy("call_module", path, args, kwargs) if path else None
    return None
