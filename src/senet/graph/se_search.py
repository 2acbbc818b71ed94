"""Find SE in a network by what its modules compute: candidates by the sizes of their layers, and a trace of each.

A network without two consecutive layers C -> hidden -> C, hidden at most C or 32, is not traced at all. Of two layers
in the reverse order of definition, only the module that holds them is.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import nn

from senet.graph.example_inputs import CONVOLUTIONS, LARGE_SIDES, Example, example_image
from senet.graph.example_runs import run_network
from senet.graph.excitation import LAYERS, Excitation, Flow, excitations, gate_of, is_channel_attention
from senet.graph.operations import Trace
from senet.graph.recorder import trace
from senet.graph.se_description import RecognizedSE, describe_se, join_names

__all__ = ["attends_to_channels", "layer_pairs", "search_se"]

# Sides of a map that a module runs on: primes, so that no number of channels is mistaken for a number of positions.
_SIDES = (11, 13, 7)
# The least hidden units of SE in some networks, more than the channels of their first stages.
_LEAST_HIDDEN = 32
# How many modules around the two layers are traced, innermost first.
_LEVELS = 4


def layer_pairs(model: nn.Module, known: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the names of consecutive layers C -> hidden -> C, hidden at most C or 32: what may be SE.

    Children of one module may be defined in the reverse order.

    Args:
        model: the network.
        known: names of modules that are not searched.
    """
    prefixes = tuple(f"{name}." if name else "" for name in known)
    layers = [(n, sizes) for n, m in model.named_modules() if (sizes := _sizes(m)) and not n.startswith(prefixes)]
    pairs = []
    for one, other in pairwise(layers):
        if _fit(one[1], other[1]):
            pairs.append((one[0], other[0]))
        if _fit(other[1], one[1]) and one[0].rpartition(".")[0] == other[0].rpartition(".")[0]:
            pairs.append((other[0], one[0]))
    return pairs


def _fit(reduce: tuple[int, int, bool], expand: tuple[int, int, bool]) -> bool:
    """Return whether layers of these `_sizes` may be the layers of SE."""
    fits = reduce[0] == expand[1] and reduce[1] == expand[0] <= max(reduce[0], _LEAST_HIDDEN)
    return reduce[2] and expand[2] and fits


def _sizes(module: nn.Module) -> tuple[int, int, bool] | None:
    """Return a layer's inputs and outputs, and whether it reads one position at a time; None for another module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, True
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels, module.out_channels, set(module.kernel_size) == {1}
    return None


def search_se(
    model: nn.Module, known: Collection[str] = (), example: Example | None = None, run: Trace | None = None
) -> list[RecognizedSE]:
    """Find SE that is not of a known class, in the order of its layers.

    Args:
        model: the network.
        known: names of modules that are not searched.
        example: an input of the network, for modules that do not run by themselves.
        run: of the network, which then does not run again.
    """
    search = _Search(model, example, run)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return [
        found
        for one, other in layer_pairs(model, known)
        if (found := search.at(one, other, reverse=order[other] < order[one])) is not None
    ]


def attends_to_channels(module: nn.Module, sizes: Iterable[tuple[int, int]]) -> bool:
    """Return whether a module scales the channels of a map by what it pools from the map: SE, or another attention.

    Args:
        module: the module; without parameters it is not traced.
        sizes: channels and numbers of spatial axes of maps that it may take.
    """
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    if dtype is None or isinstance(module, (*LAYERS, nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        return False
    for channels, axes in sizes:
        x = torch.empty((2, channels, *_SIDES[:axes]), dtype=dtype, device="meta")
        try:
            return is_channel_attention(trace(module, x))
        except Exception:  # whatever its own code raises where it takes other maps
            continue
    return False


class _Search:
    def __init__(self, model: nn.Module, example: Example | None, run: Trace | None) -> None:
        self._model, self._example, self._run = model, example, run
        self._runs: dict[tuple[str, int], list[tuple[Trace, list[Excitation]]]] = {}

    def at(self, one: str, other: str, *, reverse: bool = False) -> RecognizedSE | None:
        """Return the SE that two layers belong to; None if they belong to something else.

        Args:
            one: name of the first layer.
            other: name of the second.
            reverse: whether the second is defined first, as in the MLP of every transformer. A module that does not run
                on the channels of the first layer is then no SE, and no more modules are traced.
        """
        gate: RecognizedSE | None = None
        unknown = False
        channels = _sizes(self._model.get_submodule(one))
        assert channels is not None
        for name in self._around(one, other):
            ran = False
            for run, excited in self._traced(name, channels[0]):
                ran = True
                for found in excited:
                    if _of(found, name, one, other):
                        return describe_se(run, found, name)
                gate = gate or self._gate(run, name, one, other)
                if _is_closed(run) or not _feeds(run, name, one, other):
                    return None  # the layers make no gate here, whatever is around the module
            if reverse and not ran:
                return None
            if ran and gate is not None and gate.name != name:
                return None  # the gate is used here, and multiplies nothing
            unknown |= not ran
        if not unknown:
            return None  # nothing around the gate could use it
        # The modules around the layers take other inputs, such as several: trace the whole network.
        for run, excited in self._whole():
            for found in excited:
                if _of(found, "", one, other):
                    return describe_se(run, found, "")
            return None
        return gate

    def _gate(self, run: Trace, name: str, one: str, other: str) -> RecognizedSE | None:
        """Return the SE of a module that returns the gate of its input, while no module around it has run."""
        call = run.calls[0]
        if call.taken is None or call.given is None:
            return None
        flow = Flow(run)
        found = gate_of(flow, call.given, flow.root(call.taken))
        return describe_se(run, found, name) if found is not None and _of(found, name, one, other) else None

    def _around(self, one: str, other: str) -> Iterator[str]:
        """Yield the modules that hold both layers, innermost first."""
        first, second = one.split("."), other.split(".")
        common = 0
        while common < min(len(first), len(second)) - 1 and first[common] == second[common]:
            common += 1
        for path in (first, second):
            child = self._model.get_submodule(".".join(path[: common + 1]))
            if sum(_sizes(module) is not None for module in child.modules()) > 1:
                return  # the last layer of one block and the first of the next
        for length in range(common, max(-1, common - _LEVELS), -1):
            name = ".".join(first[:length])
            module = self._model.get_submodule(name)
            # A sequence around the layers multiplies nothing, and a list does not run.
            if isinstance(module, nn.ModuleList | nn.ModuleDict) and type(module).forward is nn.Module.forward:
                continue
            if length == common or type(module).forward is not nn.Sequential.forward:
                yield name

    def _whole(self) -> list[tuple[Trace, list[Excitation]]]:
        """Trace the network, on its example or on an image; return nothing if it does not run."""
        key = ("", -1)
        if key not in self._runs:
            self._runs[key] = []
            try:
                image = example_image(self._model, sides=LARGE_SIDES)
                run = self._run or run_network(self._model, self._example, images=[image])
                self._runs[key].append((run, list(excitations(run))))
            except Exception:  # the network's own; find_sites names it where it runs the example
                return []
        return self._runs[key]

    def _traced(self, name: str, channels: int) -> list[tuple[Trace, list[Excitation]]]:
        """Trace a module on the first maps that it takes, and return the traces with the SE in each."""
        module = self._model.get_submodule(name)
        convolutions = [m for m in module.modules() if isinstance(m, CONVOLUTIONS)]
        key = (name, 0 if convolutions else channels)
        if key not in self._runs:
            self._runs[key] = []
            for x in _shapes(module, convolutions, channels):
                try:
                    run = trace(module, x)
                except Exception:  # whatever a module's own code raises where it takes other inputs
                    continue
                self._runs[key].append((run, list(excitations(run))))
                if convolutions or self._runs[key][-1][1]:
                    break
        return self._runs[key]


def _shapes(module: nn.Module, convolutions: list[Any], channels: int) -> Iterator[torch.Tensor]:
    """Yield maps that a module may take: with the channels of its first convolution, of the layers, and these last."""
    spatial: Any = next(
        (m for m in convolutions if set(m.kernel_size) != {1}), convolutions[0] if convolutions else None
    )
    axes = [len(spatial.kernel_size)] if spatial is not None else [2, 1, 3]
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    counts = dict.fromkeys((*(m.in_channels for m in convolutions[:1]), channels))
    # A pool over the whole map may have a fixed size.
    pools = [m.kernel_size for m in module.modules() if isinstance(m, nn.AvgPool2d) and m.kernel_size not in (2, 3)]
    sides = [_SIDES, *((k, k) if isinstance(k, int) else k for k in pools[:1])]
    for shape in (
        *((2, count, *some[:n]) for n in axes for some in sides for count in counts),
        *((2, *_SIDES[:n], channels) for n in axes),
    ):
        yield torch.empty(shape, dtype=dtype, device="meta")


def _is_closed(run: Trace) -> bool:
    """Return whether a module read more than single positions, and returned a map."""
    call = run.calls[0]
    kernels = [getattr(one.module, "kernel_size", 1) for one in run.calls]
    wide = any(isinstance(kernel, tuple) and set(kernel) != {1} for kernel in kernels)
    given = call.given
    return wide and given is not None and prod(given.shape[2:]) > 1


def _feeds(run: Trace, name: str, one: str, other: str) -> bool:
    """Return whether the first layer's output goes into the second, as far as a trace of a module shows."""
    calls = {call.name: call for call in run.calls}
    first, second = (calls.get(layer.removeprefix(f"{name}.") if name else layer) for layer in (one, other))
    if first is None or second is None or second.taken is None:
        return True
    before = Flow(run).back(second.taken, None)
    return before is not None and before[1] is first


def _of(found: Excitation, name: str, one: str, other: str) -> bool:
    """Return whether SE in a trace of a module has these two layers."""
    return (join_names(name, found.reduce.name), join_names(name, found.expand.name)) == (one, other)
