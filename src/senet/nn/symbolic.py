"""Record module calls in symbolic traces of torch.fx."""

from typing import Any

from torch import nn
from torch.fx import Proxy

__all__ = ["emit_call"]


def emit_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record a module's call in a torch.fx trace as a single node.

    Returns:
        The node's proxy; None if there is no symbolic trace, or if the module is the root of the trace, which has no
        name: the caller then records its parts.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Proxy):
            tracer = value.tracer
            find = getattr(tracer, "path_of_module", None)
            path = find(module) if find is not None else ""
            return tracer.create_proxy("call_module", path, args, kwargs) if path else None
    return None
