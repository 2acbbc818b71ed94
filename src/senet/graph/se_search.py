"""Find SE in a network by what its modules do: candidates by the sizes of their layers, and a run of the few there are.

A network without two layers C -> hidden -> C next to each other, hidden not above C or 32, is not run at all. Of two in
the reverse order of definition, only the module that holds them is run.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import nn

from senet.graph.example_inputs import CONVOLUTIONS, LARGE_SIDES, Example, example_image
from senet.graph.excitation import LAYERS, Excitation, Flow, excitations, gate_of, is_channel_attention
from senet.graph.operations import Call, Trace, Value
from senet.graph.recorder import trace

__all__ = ["BehavingSE", "attends_to_channels", "layer_pairs", "search_se"]

# Sides of a map that a module is run on: primes, so that no number of channels is taken for a number of positions.
_SIDES = (11, 13, 7)
# Hidden units that SE has at least in some networks, which are more than the channels of its first stages.
_LEAST_HIDDEN = 32
# How many modules around the two layers are run, from the inside out.
_LEVELS = 4


@dataclass(frozen=True)
class BehavingSE:
    """SE that was recognised in a run.

    Attributes:
        name: of the module that it is in, as in `named_modules`.
        form: "block": the module takes a map and gives the scaled map. "gate": it gives the gate, and the module around
            it multiplies. "inline": it is a part of what the module's forward does.
        reduce, expand: names of the two layers.
        found: in the run.
        gate: name of the module that gives the gate; None where functions do.
        activation, norm: the same between the two layers.
        gate_axis: of the channels of the gate as it is computed.
    """

    name: str
    form: str
    reduce: str
    expand: str
    found: Excitation
    gate: str | None
    activation: str | None
    norm: str | None
    gate_axis: int


def layer_pairs(model: nn.Module, known: Collection[str] = ()) -> list[tuple[str, str]]:
    """Names of two layers C -> hidden -> C that follow each other, hidden not above C or 32: what SE may be made of.

    Children of one module may be defined in the reverse order.

    Args:
        model: the network.
        known: names of modules in which nothing is looked for.
    """
    prefixes = tuple(f"{name}." for name in known)
    layers = [(n, sizes) for n, m in model.named_modules() if (sizes := _sizes(m)) and not n.startswith(prefixes)]
    pairs = []
    for one, other in pairwise(layers):
        if _fit(one[1], other[1]):
            pairs.append((one[0], other[0]))
        if _fit(other[1], one[1]) and one[0].rpartition(".")[0] == other[0].rpartition(".")[0]:
            pairs.append((other[0], one[0]))
    return pairs


def _fit(reduce: tuple[int, int, bool], expand: tuple[int, int, bool]) -> bool:
    """Whether layers of these `_sizes` could be those of SE."""
    fits = reduce[0] == expand[1] and reduce[1] == expand[0] <= max(reduce[0], _LEAST_HIDDEN)
    return reduce[2] and expand[2] and fits


def _sizes(module: nn.Module) -> tuple[int, int, bool] | None:
    """Inputs and outputs of a layer, and whether it looks at one position; None for another module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, True
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels, module.out_channels, set(module.kernel_size) == {1}
    return None


def search_se(model: nn.Module, known: Collection[str] = (), example: Example | None = None) -> list[BehavingSE]:
    """SE in a network that is none of the known classes, in the order of its layers.

    Args:
        model: the network.
        known: names of modules in which nothing is looked for.
        example: an input of the network, for modules that do not run by themselves.
    """
    search = _Search(model, example)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return [
        found
        for one, other in layer_pairs(model, known)
        if (found := search.at(one, other, reverse=order[other] < order[one])) is not None
    ]


def attends_to_channels(module: nn.Module, sizes: Iterable[tuple[int, int]]) -> bool:
    """Whether a module scales the channels of a map by what it pools from it: SE, or attention of another kind.

    Args:
        module: with parameters; without any it is not run.
        sizes: channels and spatial axes of maps that it may take.
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
    def __init__(self, model: nn.Module, example: Example | None) -> None:
        self._model, self._example = model, example
        self._runs: dict[tuple[str, int], list[tuple[Trace, list[Excitation]]]] = {}

    def at(self, one: str, other: str, *, reverse: bool = False) -> BehavingSE | None:
        """The SE that two layers are of; None where they are of something else.

        Args:
            one: name of the first layer.
            other: of the second.
            reverse: whether the second is defined first, as in the MLP of every transformer: a module that does not run
                on the channels of the first layer is then no SE, and nothing more is run.
        """
        gate: BehavingSE | None = None
        unknown = False
        channels = _sizes(self._model.get_submodule(one))
        assert channels is not None
        for name in self._around(one, other):
            ran = False
            for run, excited in self._recordings(name, channels[0]):
                ran = True
                for found in excited:
                    if _of(found, name, one, other):
                        return _described(run, found, name)
                gate = gate or self._gate(run, name, one, other)
                if _is_closed(run) or not _feeds(run, name, one, other):
                    return None  # whatever is around it, the layers have made no gate here
            if reverse and not ran:
                return None
            if ran and gate is not None and gate.name != name:
                return None  # what gives a gate is used, and multiplies nothing
            unknown |= not ran
        if not unknown:
            return None  # a gate that nothing around it could use
        # What is around them takes other inputs, such as several: the whole network is left.
        for run, excited in self._whole():
            for found in excited:
                if _of(found, "", one, other):
                    return _described(run, found, "")
            return None
        return gate

    def _gate(self, run: Trace, name: str, one: str, other: str) -> BehavingSE | None:
        """A module whose output is the gate of its input, as long as nothing around it can be run."""
        call = run.calls[0]
        if call.taken is None or call.given is None:
            return None
        flow = Flow(run)
        found = gate_of(flow, call.given, flow.root(call.taken))
        return _described(run, found, name) if found is not None and _of(found, name, one, other) else None

    def _around(self, one: str, other: str) -> Iterator[str]:
        """The modules that hold both layers, from the inside out."""
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
            # A sequence around them multiplies nothing, and a list does not run.
            if isinstance(module, nn.ModuleList | nn.ModuleDict) and type(module).forward is nn.Module.forward:
                continue
            if length == common or type(module).forward is not nn.Sequential.forward:
                yield name

    def _whole(self) -> list[tuple[Trace, list[Excitation]]]:
        """A run of the network, on its example or on an image; none where it does not run."""
        key = ("", -1)
        if key not in self._runs:
            self._runs[key] = []
            try:
                if self._example is None:
                    run = trace(self._model, example_image(self._model, sides=LARGE_SIDES))
                else:
                    run = trace(self._model, self._example, tensors="real")
                self._runs[key].append((run, list(excitations(run))))
            except Exception:  # the network's own; find_sites names it where it runs the example
                return []
        return self._runs[key]

    def _recordings(self, name: str, channels: int) -> list[tuple[Trace, list[Excitation]]]:
        """Runs of a module, with the SE in each: on the first maps that it takes."""
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
    """Maps that a module may take: of its first convolution; with the channels of the layers; with these last."""
    spatial: Any = next(
        (m for m in convolutions if set(m.kernel_size) != {1}), convolutions[0] if convolutions else None
    )
    axes = [len(spatial.kernel_size)] if spatial is not None else [2, 1, 3]
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    counts = dict.fromkeys((*(m.in_channels for m in convolutions[:1]), channels))
    # A pool over all of the map may have its size in numbers.
    pools = [m.kernel_size for m in module.modules() if isinstance(m, nn.AvgPool2d) and m.kernel_size not in (2, 3)]
    sides = [_SIDES, *((k, k) if isinstance(k, int) else k for k in pools[:1])]
    for shape in (
        *((2, count, *some[:n]) for n in axes for some in sides for count in counts),
        *((2, *_SIDES[:n], channels) for n in axes),
    ):
        yield torch.empty(shape, dtype=dtype, device="meta")


def _is_closed(run: Trace) -> bool:
    """Whether a module looked at more than single positions, and gave a map."""
    call = run.calls[0]
    kernels = [getattr(one.module, "kernel_size", 1) for one in run.calls]
    wide = any(isinstance(kernel, tuple) and set(kernel) != {1} for kernel in kernels)
    given = call.given
    return wide and given is not None and prod(given.shape[2:]) > 1


def _feeds(run: Trace, name: str, one: str, other: str) -> bool:
    """Whether, as far as a run of a module shows, the first layer's output goes into the second."""
    calls = {call.name: call for call in run.calls}
    first, second = (calls.get(layer.removeprefix(f"{name}.") if name else layer) for layer in (one, other))
    if first is None or second is None or second.taken is None:
        return True
    before = Flow(run).back(second.taken, None)
    return before is not None and before[1] is first


def _of(found: Excitation, name: str, one: str, other: str) -> bool:
    """Whether SE in a run of a module is that of two layers."""
    return (_join(name, found.reduce.name), _join(name, found.expand.name)) == (one, other)


def _described(run: Trace, found: Excitation, prefix: str) -> BehavingSE:
    flow = Flow(run)
    # The innermost call of a module that pools, computes the gate and, where it is seen, multiplies.
    last = found.product or flow.maker(found.gate)
    assert last is not None
    inside = run.enclosing(last.call)
    expand_at = {id(call) for call in _around_call(run, found.expand)}
    holders = [call for call in inside if id(call) in expand_at and not isinstance(call.module, LAYERS)]
    form, holder = "inline", holders[0]
    if found.product is not None:
        scaled = found.product.outputs[0].number
        blocks = [
            c
            for c in holders
            if _is_of(flow, c.taken, found.pooled) and c.given and flow.root(c.given).number == scaled
        ]
        if blocks:
            form, holder = "block", blocks[-1]
    if form == "inline":
        gates = [c for c in run.calls if _is_of(flow, c.taken, found.pooled) and _is_of(flow, c.given, found.gate)]
        if gates:
            form, holder = "gate", gates[0]
    expanded, reduced = found.expand.given, found.reduce.given
    gate = _module_between(run, flow, expanded, found.gate)
    norms = [operation for operation in found.middle if "norm" in operation.name]
    norm = run.enclosing(norms[0].call)[0] if norms else None
    activation = None
    if found.middle and found.middle[-1] not in norms:
        start = norms[-1].outputs[0] if norms else reduced
        activation = _module_between(run, flow, start, found.middle[-1].outputs[0])
    shape = found.gate.shape if gate is None or gate.given is None else gate.given.shape
    return BehavingSE(
        name=_join(prefix, holder.name),
        form=form,
        reduce=_join(prefix, found.reduce.name),
        expand=_join(prefix, found.expand.name),
        found=found,
        gate=None if gate is None else _join(prefix, gate.name),
        activation=None if activation is None else _join(prefix, activation.name),
        norm=None if norm is None else _join(prefix, norm.name),
        gate_axis=1 if len(shape) < 3 or shape[1] > 1 else -1,
    )


def _around_call(run: Trace, call: Call) -> list[Call]:
    return run.enclosing(call.index)


def _is_of(flow: Flow, value: Value | None, root: Value) -> bool:
    return value is not None and flow.root(value).number == root.number


def _module_between(run: Trace, flow: Flow, taken: Value | None, given: Value) -> Call | None:
    """The outermost module that makes one value of another, both but for views."""
    if taken is None:
        return None
    taken, given = flow.root(taken), flow.root(given)
    for call in run.calls:
        layer = isinstance(call.module, LAYERS)
        if not layer and _is_of(flow, call.taken, taken) and _is_of(flow, call.given, given):
            return call
    return None


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
