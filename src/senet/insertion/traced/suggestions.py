"""Globs of modules to paste into `at=`, for a network in which no sites were found."""

import re
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from itertools import islice

from torch import nn

from senet.graph.operations import Call, Operation, Trace, Value
from senet.insertion.site_maps import known_channels
from senet.insertion.traced.arms import PRODUCTS, VIEWS, attends, gates_map
from senet.insertion.traced.blocks import joins_tokens
from senet.insertion.traced.effects import Effects
from senet.insertion.traced.flow import Flow, is_convolution, is_own_convolution
from senet.insertion.traced.joins import joins
from senet.insertion.traced.units import units
from senet.nn.recalibration import Side

__all__ = ["suggest"]

# The most globs in a message, and the most that are tried for it.
_SHOWN = 2
_TRIED = 8
# The most names where no glob matches several modules.
_NAMES = 4


def suggest(
    model: nn.Module, works: Callable[[list[str]], bool], side: Side = "output", run: Trace | None = None
) -> tuple[list[list[str]], bool]:
    """Return values of `at=` that select modules with known channels: `[["blocks.*.bn2"]]`; none if there are none.

    Norms come before convolutions; the ends of branches before others; what is repeated most before the rest; and of
    several layers of a block, the last.

    Args:
        model: the network.
        works: whether sites are found at these names or globs.
        side: "input" or "output" of the modules.
        run: of the network, if it ran.

    Returns:
        names or globs for each suggestion, and whether they are in stem and head of the network, as it has no other
        maps (N, C, *spatial) outside of attention.
    """
    places = None if run is None else _Places(run, side)
    ends = set() if places is None else places.ends
    usable = (lambda name: True) if places is None else places.is_sensible
    found = _working(works, _globs(model, ends, usable, inner=places is None))
    if found or places is None:
        return found, False
    return _working(works, _globs(model, ends, places.has_map)), True


def _working(works: Callable[[list[str]], bool], tried: Iterator[list[str]]) -> list[list[str]]:
    return list(islice((globs for globs in islice(tried, _TRIED) if works(globs)), _SHOWN))


class _Places:
    """Where in a run SE makes sense.

    Args:
        run: of the network.
        side: "input" or "output" of modules.

    Attributes:
        ends: names of modules that end the deepest arm of a sum; the others are skips.
    """

    def __init__(self, run: Trace, side: Side) -> None:
        self._flow, self._side = Flow(run), side
        self._effects = Effects(run)
        sums = [join for join in joins(self._flow) if join.kind == "sum"]
        depths = {(arm.end.number, arm.depth == max(a.depth for a in join.arms)) for join in sums for arm in join.arms}
        branches = {number for number, deepest in depths if deepest}
        given = [(call.name, call.given.number) for call in run.calls if call.given is not None]
        self.ends = {name for name, number in given if number in branches}
        self._skips = {name for name, number in given if (number, False) in depths and number not in branches}
        self._attended: dict[int, int] = {}  # by call, what attention in its own forward computes
        self._attention = set(self._attending())
        self._layers = 0  # the outputs of all convolutions, and of those of the stem
        self._stem = 0
        begun = not joins_tokens(self._flow)
        for operation in run.operations:
            begun = begun or _mixes(self._flow, operation)
            if is_convolution(operation):
                first = not self._flow.ancestors(operation.outputs[0]) & self._layers
                self._stem |= self._flow.bit(operation.outputs[0]) if first or not begun else 0
                self._layers |= self._flow.bit(operation.outputs[0])

    def has_map(self, name: str) -> bool:
        """Return whether a module is called once, at a map of several channels, and in no attention."""
        calls = self._flow.trace.calls_of(name)
        value = None if len(calls) != 1 else calls[0].taken if self._side == "input" else calls[0].given
        if value is None or not self._flow.is_map(value) or value.shape[1] == 1:
            return False
        around = [outer.index for outer in self._flow.trace.enclosing(calls[0].index)]
        after = any(self._flow.ancestors(value) & self._attended.get(index, 0) for index in around)
        attending = after or (self._attended.keys() & set(around) and self._is_attended(value))
        return not attending and not any(index in self._attention for index in around)

    def _is_attended(self, value: Value) -> bool:
        """Return whether only products of maps, or a softmax, read a map, as in queries, keys and values."""
        readers = self._flow.trace.consumers(value)
        return all(
            reader.name in PRODUCTS
            or "softmax" in reader.name
            or (reader.name in VIEWS and all(map(self._is_attended, reader.outputs)))
            for reader in readers
        )

    def is_sensible(self, name: str) -> bool:
        """Return whether it also is in no stem or head, and ends no skip."""
        if not self.has_map(name) or name in self._skips:
            return False
        (call,) = self._flow.trace.calls_of(name)
        assert call.given is not None
        before = self._flow.ancestors(call.given) & self._layers
        begun = bool(before & ~self._stem) or self._begins_block(call, before)
        return begun and not self._effects.of([call.given]) and not self._is_head(call)

    def _begins_block(self, call: Call, before: int) -> bool:
        """Return whether a layer is in a numbered block after the stem, as the first norm of a pre-activation unit."""
        numbered = [
            outer for outer in self._flow.trace.enclosing(call.index) if outer.name.rpartition(".")[2].isdigit()
        ]
        if not before or not numbered or numbered[0] is call:
            return False
        return not any(self._flow.inside(operation, numbered[0]) for operation in self._flow.operations(before))

    def _is_head(self, call: Call) -> bool:
        """Return whether the network returns a module's output, or an elementwise function of it."""
        assert call.given is not None
        after = self._flow.trace.reachable([call.given])
        later = [op for op in self._flow.trace.operations if any(value.number in after for value in op.inputs)]
        return all(op.outputs and op.outputs[0].shape == call.given.shape and not is_convolution(op) for op in later)

    def _attending(self) -> Iterator[int]:
        """Yield the calls that are attention: the innermost ones with parameters, and those that add it to a map.

        A unit that adds, and has a gate or attention in its own forward, is none.
        """
        flow, network = self._flow, 0
        adds = {join.operation.call for join in joins(flow) if join.kind == "sum"}
        for operation in flow.trace.operations:
            constant = operation.name in PRODUCTS and sum(map(flow.depends, operation.inputs)) < 2
            attending = attends(flow, [operation]) and not constant
            if not attending and not gates_map(flow, [operation]):
                continue
            for call in flow.trace.enclosing(operation.call):
                if call.index != network and next(call.module.parameters(), None) is not None:
                    if call.index not in adds:
                        yield call.index
                    elif attending:
                        made = sum(flow.bit(value) for value in operation.outputs)
                        self._attended[call.index] = self._attended.get(call.index, 0) | made
                    break
        adding = [flow.smallest(join.operation.call, join.arms[-1].operations) for join in units(flow).attention]
        calls = [call for call in adding if call is not None]
        for call in calls:
            if any(flow.within(call, other) and call is not other for other in calls):
                yield call.index


def _mixes(flow: Flow, operation: Operation) -> bool:
    """Return whether an operation is attention, or a linear layer on tokens."""
    return attends(flow, [operation]) or operation.name in ("addmm", "mm", "linear")


def _globs(
    model: nn.Module, ends: Collection[str], usable: Callable[[str], bool], *, inner: bool = False
) -> Iterator[list[str]]:
    """Yield globs of layers, or names where no glob matches usable layers only.

    Args:
        model: the network.
        ends: names of modules that end an arm of a sum.
        usable: whether a layer may be named.
        inner: leave out the first and the last of convolutions that are named, which are stem and head if all is one
            chain: the network did not run.
    """
    for layers, cut in ((_norms(model), 0), (_convolutions(model), int(inner))):
        chosen = [name for name in layers if usable(name)]
        groups: dict[str, list[str]] = {}
        for name in chosen:
            groups.setdefault(_glob(model, name), []).append(name)
        order = {
            glob: (-sum(n in ends for n in group), -len(group), -place)
            for place, (glob, group) in enumerate(groups.items())
        }
        repeated = [glob for glob, group in groups.items() if len(group) > 1]
        for glob in sorted(repeated, key=order.__getitem__):
            narrow = {re.sub(r"(?<=\.)[0-9]+(?=\.)", "*", name) for name in groups[glob]}
            for one in (*narrow, glob)[-2 if len(narrow) == 1 else -1 :]:
                if {name for name, _ in model.named_modules() if fnmatchcase(name, one)} <= set(chosen):
                    yield [one]
                    break
            else:
                yield groups[glob][-_NAMES:]
        named = chosen[cut : len(chosen) - cut]
        if named and not repeated:
            yield named[-_NAMES:]


def _norms(model: nn.Module) -> list[str]:
    """Return the norms of maps: without a convolution of one axis, `BatchNorm1d` is one of vectors."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    has_1d = any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in model.modules())
    named = [(name, module) for name, module in model.named_modules() if name and isinstance(module, kinds)]
    named = [(name, module) for name, module in named if has_1d or not isinstance(module, nn.BatchNorm1d)]
    return [name for name, module in named if known_channels(module, "output") != 1]


def _convolutions(model: nn.Module) -> list[str]:
    kind = nn.modules.conv._ConvNd
    named = [(name, module) for name, module in model.named_modules() if name and isinstance(module, kind)]
    known = [name for name, module in named if (known_channels(module, "output") or 0) > 1]
    return known or [name for name, module in model.named_modules() if name and is_own_convolution(module)]


def _glob(model: nn.Module, name: str) -> str:
    """Return a name with `*` in place of the numbers of repeated modules around it: "layer*.*.bn2".

    What follows the number of a child of a sequence is a part of a block, and keeps its numbers.
    """
    *around, last = name.split(".")
    kinds = (nn.Sequential, nn.ModuleList)
    numbered = [
        place
        for place, part in enumerate(around)
        if part[-1:].isdigit() and isinstance(model.get_submodule(".".join(around[:place])), kinds)
    ]
    repeated = numbered[-1] + 1 if numbered else len(around)
    return ".".join([*(re.sub(r"[0-9]+", "*", part) for part in around[:repeated]), *around[repeated:], last])
