"""Runs of a network that differ from one SE block on: what is before the block runs once for all of them.

The network is traced to a graph (`torch.fx`) of calls of its modules. Its nodes run once; before the first node that
has to do with a block, the values that are still needed are copied and the rest of the graph runs with that block's
gates replaced, on the copies, as operations may work in place. Then the copies go, and the first run goes on: beside
its own there is never more than one other run in memory. For B blocks that are evenly spread, that is (B + 1) / 2 + 1
passes instead of B + 1.

A network that cannot be traced, or whose graph gives anything else than the network on a batch of a new shape, runs as
a whole each time.
"""

import copy
import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Interpreter, Node, Tracer

from senet.gates.diagnosis.gate_overrides import GateOverrides
from senet.graph.se_modules import find_se
from senet.nn.batch_norm import SEBatchNorm

__all__ = ["PartialRuns"]


class PartialRuns:
    """Runs a network, and variants of it that start where the first SE module differs.

    The network must stay in evaluation mode. No gradients are computed.

    Attributes:
        graph: of the network; None where it runs as a whole.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.graph = _trace(model)
        self._checked: set[tuple[torch.Size, torch.dtype]] = set()

    @torch.no_grad()
    def logits(
        self,
        images: Tensor,
        overrides: GateOverrides,
        active: Collection[str],
        variants: Mapping[str, Collection[str]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs of the network and of its variants.

        Args:
            images: (N, C, *spatial), as the network takes them.
            overrides: attached; what is active in it changes.
            active: names of SE modules whose gates are replaced.
            variants: by whatever name, the SE modules whose gates are replaced instead.

        Returns:
            (N, num_classes), and the same by the names of variants.
        """
        overrides.active = active
        new = (images.shape, images.dtype) not in self._checked
        # First, so that what is wrong with the network or its input shows as it would without all this.
        expected = self.model(images) if new or self.graph is None else None
        if self.graph is not None:
            places = self._places(self.graph, active, variants)
            try:
                run = None if places is None else _Run(self.model, self.graph, places, overrides, active, variants)
                found = None if run is None else run.run(images, enable_io_processing=False)
            except Exception:  # whatever a network's own code raises; the whole network has just run, or will below
                run = found = None
            if run is not None and isinstance(found, Tensor) and (expected is None or _same(found, expected)):
                self._checked.add((images.shape, images.dtype))
                return found, run.found
            self.graph = None
            overrides.active = active
            expected = self.model(images) if expected is None else expected
        others = {}
        for name, names in variants.items():
            overrides.active = names
            others[name] = self.model(images)
        overrides.active = active
        assert expected is not None
        return expected, others

    def _places(
        self, graph: Graph, active: Collection[str], variants: Mapping[str, Collection[str]]
    ) -> dict[Node, list[str]] | None:
        """The variants that branch off before each node; None where one does not branch off anywhere."""
        places: dict[Node, list[str]] = {}
        for name, names in variants.items():
            differ = set(active) ^ set(names)
            node = next((node for node in graph.nodes if any(_touches(node, unit) for unit in differ)), None)
            if node is None:
                return None
            places.setdefault(node, []).append(name)
        return places


class _Run(Interpreter):
    """One run of a graph, in which others branch off."""

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        places: Mapping[Node, list[str]],
        overrides: GateOverrides,
        active: Collection[str],
        variants: Mapping[str, Collection[str]],
    ) -> None:
        super().__init__(model, graph=graph)
        self.places = places
        self.overrides = overrides
        self.active = active
        self.variants = variants
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        for name in self.places.get(n, ()):
            self.overrides.active = self.variants[name]
            rest = Interpreter(self.module, graph=self.graph)
            self.found[name] = rest.run(initial_env=self._copies(n), enable_io_processing=False)
            self.overrides.active = self.active
        return super().run_node(n)

    def _copies(self, here: Node) -> dict[Node, Any]:
        """Copies of what is still needed; views of one another stay that, and the network's own tensors what they are.

        Nodes whose values are not needed any more have None, and are not run again.
        """
        own = {id(value): value for node, value in self.env.items() if node.op == "get_attr"}
        values = copy.deepcopy({node.name: value for node, value in self.env.items()}, own)
        env: dict[Node, Any] = {}
        for node in self.graph.nodes:
            if node is here:
                break
            env[node] = values.get(node.name)
        return env


class _Modules(Tracer):
    """Traces down to modules of torch.nn, SE modules and what other libraries do not trace."""

    def __init__(self, model: nn.Module) -> None:
        library: Any = sys.modules.get("timm.layers")  # of which the network is not, where nobody has imported it
        functions = () if library is None else tuple(library.get_notrace_functions())
        super().__init__(autowrap_functions=functions)
        self._units = {id(unit.module) for unit in find_se(model)}
        self._kinds = () if library is None else tuple(library.get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (SEBatchNorm, *self._kinds)) or id(m) in self._units:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> Graph | None:
    """The graph of a network as it is now, in its mode; None where it cannot be traced."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the trace takes as given, which is checked on the first batch
            return _Modules(model).trace(model)
    except Exception:  # whatever a network's own code raises where it meets a symbol
        return None


def _touches(node: Node, unit: str) -> bool:
    """Whether a node calls an SE module, one that holds it, or a part of it."""
    if node.op not in ("call_module", "get_attr"):
        return False
    name = str(node.target)
    return name == unit or unit.startswith(f"{name}.") or name.startswith(f"{unit}.") or not unit


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether outputs are the same but for rounding: a network's own code may join operations that the graph has apart.

    The tolerance is a thousand times the step of the dtype, relative to the largest output, and at most 2 %.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    both = torch.stack((found, expected)).double()
    if not both.isfinite().all():
        return torch.equal(both[0].isfinite(), both[1].isfinite())
    tolerance = min(1000 * torch.finfo(expected.dtype).eps, 0.02)
    return float((both[0] - both[1]).abs().max()) <= tolerance * max(float(both[1].abs().max()), 1e-30)
