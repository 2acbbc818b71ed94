"""Run a network and variants of it that differ from one SE block on; what comes before the block runs once for all.

The network is an executable graph of module calls (`senet.graph.module_graph`). Before the first node that concerns a
block, the values that are still needed are copied, as operations may work in place, and the rest of the graph runs on
the copies with that block's gates overridden. Then the copies are released, and the first run continues: at most one
other run is in memory. For B evenly spread blocks, this takes (B + 1) / 2 + 1 passes instead of B + 1.

A network that cannot be traced, or whose graph returns anything but the network's output on a batch of a new shape,
runs as a whole each time.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Interpreter, Node

from senet.gates.diagnosis.gate_overrides import GateOverrides
from senet.graph.module_graph import concerns, module_graph

__all__ = ["PartialRuns"]


class PartialRuns:
    """Runs of a network, and of variants that start at the first SE module that differs.

    The network must stay in evaluation mode. No gradients are computed.

    Attributes:
        graph: of the network; None if it runs as a whole.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.graph = module_graph(model)
        self._checked: set[tuple[torch.Size, torch.dtype]] = set()

    @torch.no_grad()
    def logits(
        self,
        images: Tensor,
        overrides: GateOverrides,
        active: Collection[str],
        variants: Mapping[str, Collection[str]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs of the network and of its variants.

        Args:
            images: (N, C, *spatial), as the network takes them.
            overrides: attached to the network; its active modules change.
            active: names of SE modules whose gates are overridden.
            variants: for each variant, by any name, the SE modules whose gates are overridden instead.

        Returns:
            The network's output (N, num_classes), and that of each variant by its name.
        """
        overrides.active = active
        new = (images.shape, images.dtype) not in self._checked
        # First, so that an error of the network or its input is raised as by the network alone.
        expected = self.model(images) if new or self.graph is None else None
        if self.graph is not None:
            places = self._places(self.graph, active, variants)
            try:
                run = None
                if places is not None:
                    run = _BranchingRun(self.model, self.graph, places, overrides, active, variants)
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
        """Return the variants that branch off before each node; None if one does not branch off anywhere."""
        places: dict[Node, list[str]] = {}
        for name, names in variants.items():
            differ = set(active) ^ set(names)
            node = next((node for node in graph.nodes if any(concerns(node, unit) for unit in differ)), None)
            if node is None:
                return None
            places.setdefault(node, []).append(name)
        return places


class _BranchingRun(Interpreter):
    """One run of a graph, from which others branch off."""

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
        """Copy the values that are still needed.

        Views stay views of one another, and the network's own tensors stay shared. Nodes whose values are no longer
        needed get None, and do not run again.
        """
        own = {id(value): value for node, value in self.env.items() if node.op == "get_attr"}
        values = copy.deepcopy({node.name: value for node, value in self.env.items()}, own)
        env: dict[Node, Any] = {}
        for node in self.graph.nodes:
            if node is here:
                break
            env[node] = values.get(node.name)
        return env


def _same(found: Tensor, expected: Tensor) -> bool:
    """Return whether outputs are the same up to rounding: the network may fuse operations that the graph has separate.

    The tolerance is a thousand times the dtype's eps, relative to the largest output, and at most 2 %.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    both = torch.stack((found, expected)).double()
    if not both.isfinite().all():
        return torch.equal(both[0].isfinite(), both[1].isfinite())
    tolerance = min(1000 * torch.finfo(expected.dtype).eps, 0.02)
    return float((both[0] - both[1]).abs().max()) <= tolerance * max(float(both[1].abs().max()), 1e-30)
