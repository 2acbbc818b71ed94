"""A network as an executable graph of module calls (`torch.fx`), for runs that differ from a module on.

A `Trace` and this graph answer different questions. A trace describes one run, on one shape: every ATen operation with
its shapes and its modules, in any network that runs. It cannot run again. This graph can, on batches of any size and
from any node, and it calls the network's own modules, so that their hooks act. It has neither shapes nor the operations
inside modules, and many networks cannot be traced to one.
"""

import sys
import warnings
from typing import Any

from torch import nn
from torch.fx import Graph, Node, Tracer

from senet.graph.se_modules import find_se
from senet.nn.batch_norm import SEBatchNorm

__all__ = ["concerns", "module_graph"]


def module_graph(model: nn.Module) -> Graph | None:
    """Trace a network in its present mode to calls of modules; None if it cannot be traced.

    Modules of torch.nn, SE modules, and modules that timm excludes from tracing are called as a whole. What the trace
    takes for constant, such as the branch of a condition on a shape, is for the caller to check.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the trace takes for constant
            return _ModuleTracer(model).trace(model)
    except Exception:  # whatever a network's own code raises where it meets a symbol
        return None


def concerns(node: Node, module: str) -> bool:
    """Return whether a node calls a module, one that holds it, or a part of it.

    Args:
        node: of the graph.
        module: its name, as in `named_modules`.
    """
    if node.op not in ("call_module", "get_attr"):
        return False
    name = str(node.target)
    return name == module or module.startswith(f"{name}.") or name.startswith(f"{module}.") or not module


class _ModuleTracer(Tracer):
    def __init__(self, model: nn.Module) -> None:
        library: Any = sys.modules.get("timm.layers")  # if nobody has imported it, the network is not timm's
        functions = () if library is None else tuple(library.get_notrace_functions())
        super().__init__(autowrap_functions=functions)
        self._units = {id(unit.module) for unit in find_se(model)}
        self._kinds = () if library is None else tuple(library.get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (SEBatchNorm, *self._kinds)) or id(m) in self._units:
            return True
        return super().is_leaf_module(m, module_qualified_name)
