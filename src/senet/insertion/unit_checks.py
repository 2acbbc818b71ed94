"""Check by a run whether a module with a residual unit's children computes `out = relu(branch(x) + skip(x))`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from senet.graph.example_inputs import Example, example_image
from senet.graph.example_runs import search_run
from senet.graph.operations import Call, Operation, Trace, Value
from senet.graph.recorder import trace, trace_example
from senet.insertion.families import Unit
from senet.insertion.traced.flow import is_convolution, is_norm
from senet.nn.recalibrated_class import base_class
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError, first_line

__all__ = ["UnitChecks", "is_trusted", "is_trusted_unit", "residual_unit_error"]

# Packages whose modules run all their children, each once, and whose residual units need no check.
_TRUSTED = ("senet.", "torchvision.", "timm.", "torch.nn.")
_SIDES = {1: 16, 2: 16, 3: 8}


def is_trusted(module: nn.Module) -> bool:
    """Return whether a module's forward is of a library whose residual units are known."""
    own = base_class(module)
    return own.__module__.startswith(_TRUSTED) and "forward" not in vars(module)


def is_trusted_unit(block: nn.Module) -> bool:
    """Return whether a module with the children of a residual unit is known to be one.

    In a network that torch.fx traced, units are modules without a forward.
    """
    return is_trusted(block) and base_class(block).forward is not nn.Module.forward


class UnitChecks:
    """Checks a network's residual units by running them.

    A unit runs alone on the meta device; if that fails, or if there is an example, the whole network runs.

    Args:
        model: the network.
        example: an input of the network, or None.
    """

    def __init__(self, model: nn.Module, example: Example | None) -> None:
        self._model, self._example = model, example
        self._whole: Trace | None = None

    def why_not(self, name: str, block: nn.Module, unit: Unit) -> str:
        """Return why a module is not a residual unit, as text; "" if it is one.

        Args:
            name: name of the module, as in `named_modules`.
            block: the module.
            unit: the type of unit that its children have the names of.

        Raises:
            ValueError: neither the unit nor the network runs without an example.
        """
        run, prefix = self._run(name, block)
        return residual_unit_error(run, prefix, unit)

    def runs_slot(self, name: str, block: Any, slot: str) -> bool:
        """Return whether a unit calls a module in the empty slot of its skip.

        Args:
            name: name of the unit.
            block: the unit.
            slot: the attribute, which is None.
        """
        places = [held for held in (block.__dict__, block._modules) if slot in held]
        for held in places:
            del held[slot]
        block._modules[slot] = nn.Identity()
        self._whole = None
        try:
            run, prefix = self._run(name, block)
        finally:
            del block._modules[slot]
            for held in places:
                held[slot] = None
            self._whole = None
        return bool(run.calls_of(_join(prefix, slot)))

    def _run(self, name: str, block: nn.Module) -> tuple[Trace, str]:
        """Return a recorded run of the unit, and the unit's name in it."""
        if self._example is not None:
            self._whole = self._whole or trace_example(self._model, self._example)
            return self._whole, name
        if self._whole is not None:
            return self._whole, name
        try:
            return trace(block, example_image(block, 2, sides=_SIDES)), ""
        except Exception as error:  # its code may raise anything
            why = first_line(error)
        try:
            self._whole = search_run(self._model, None)
        except MissingExampleError as error:
            raise MissingExampleError(
                f"cannot check whether {name!r} ({type(block).__name__}) is a residual unit: it does not run by "
                f"itself: {why}; give {argument('example')}, an input of the network"
            ) from error
        return self._whole, name


def residual_unit_error(run: Trace, name: str, unit: Unit) -> str:
    """Return why a module in a run is not a residual unit of the tables, for a message; "" if it is one.

    The names of its children say which type of unit it would be. It is one if each child reads what the child before it
    computed, the output of the last one is added to a skip without another convolution or norm, and `downsample`, if it
    is a module, is in the skip.

    Args:
        run: a run of the module, or of a network that contains it.
        name: name of the module in the run.
        unit: the type of unit.
    """
    calls = run.calls_of(name)
    if not calls:
        return "it does not run"
    call, run = calls[0], _within(run, calls[0])
    if call.given is None:
        return f"its output is a {type(call.output).__name__} and not a tensor"
    if call.taken is None:
        return "its input is not a tensor"
    names = [_join(name, child) for child in unit.children]
    before: Value | None = None
    for child in names:
        found = run.calls_of(child)
        if len(found) != 1:
            return f"{child!r} {'runs several times' if found else 'does not run'}"
        taken, given = found[0].taken, found[0].given
        if taken is None or given is None:
            return f"the input or the output of {child!r} is not a tensor"
        if before is not None and taken.number not in run.reachable([before]):
            return f"{child!r} does not read the output of {names[names.index(child) - 1]!r}"
        before = given
    assert before is not None
    end = _join(name, unit.spots["standard"].child)
    branch = run.reachable([before])
    skip = run.reachable([call.taken], without={before.number}) - branch
    joins = [
        operation
        for operation in run.operations
        if operation.name in ("add", "sum", "addcmul")
        and _is_join(operation.inputs, branch, skip)
        and call.given.number in run.reachable(operation.outputs)
    ]
    if not joins:
        return f"nothing is added to the output of {end!r} before its own output"
    if _has_layer(run, before, [value for value in joins[0].inputs if value.number in branch]):
        return f"a layer comes between {end!r} and the sum"
    return _skip_error(run, call, _join(name, unit.spots["identity"].child), before, joins[0])


def _within(run: Trace, call: Call) -> Trace:
    """Return the part of a run in a call."""
    inside = {call.index}
    for other in run.calls[call.index + 1 :]:
        if other.parent not in inside:
            break
        inside.add(other.index)
    operations = [operation for operation in run.operations if operation.call in inside]
    return replace(run, operations=operations, calls=[run.calls[index] for index in sorted(inside)])


def _is_join(inputs: Iterable[Value], branch: set[int], skip: set[int]) -> bool:
    numbers = {value.number for value in inputs if len(value.shape) >= 3}
    return bool(numbers & branch) and bool(numbers & skip)


def _has_layer(run: Trace, start: Value, ends: Iterable[Value]) -> bool:
    """Return whether a convolution or a norm leads from one value to others."""
    after, needed = run.reachable([start]), {value.number for value in ends}
    for operation in reversed(run.operations):
        if any(value.number in needed for value in operation.outputs):
            before = {value.number for value in operation.inputs} & after
            if before and (is_convolution(operation) or is_norm(operation)):
                return True
            needed |= before - {start.number}
    return False


def _skip_error(run: Trace, call: Call, name: str, end: Value, join: Operation) -> str:
    """Return why the module `downsample` is not in the skip; "" if it is, or is no module."""
    slot = name.rpartition(".")[2]
    if not isinstance(getattr(call.module, slot), nn.Module):
        return ""
    found = run.calls_of(name)
    if len(found) != 1 or found[0].given is None:
        return f"{name!r} is not in its skip"
    reached = run.reachable([found[0].given])
    joins = any(value.number in reached for value in join.inputs)
    return (
        "" if joins and (found[0].given == call.taken or end.number not in reached) else f"{name!r} is not in its skip"
    )


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
