"""Check by a run whether a module with a residual unit's children computes `out = relu(branch(x) + skip(x))`."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from senet.graph.example_inputs import LARGE_SIDES, Example, example_image
from senet.graph.example_runs import run_network
from senet.graph.operations import Trace, Value
from senet.graph.recorder import trace, trace_example
from senet.nn.recalibrated_class import base_class
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError, first_line

__all__ = ["UnitChecks", "is_trusted", "residual_unit_error"]

# Libraries whose residual units need no check.
_TRUSTED = ("senet", "torchvision", "timm", "torch")
_SIDES = {1: 16, 2: 16, 3: 8}


def is_trusted(module: nn.Module) -> bool:
    """Return whether a module's class comes from a library whose residual units are known."""
    return base_class(module).__module__.partition(".")[0] in _TRUSTED


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

    def why_not(self, name: str, block: nn.Module, end: str) -> str:
        """Return why a module is not a residual unit, as text; "" if it is one.

        Args:
            name: name of the module, as in `named_modules`.
            block: the module.
            end: the child that ends the branch.

        Raises:
            ValueError: neither the unit nor the network runs without an example.
        """
        run, prefix = self._run(name, block)
        return residual_unit_error(run, prefix, _join(prefix, end))

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
            self._whole = run_network(self._model, images=[example_image(self._model, sides=LARGE_SIDES)])
        except MissingExampleError as error:
            raise MissingExampleError(
                f"cannot check whether {name!r} ({type(block).__name__}) is a residual unit: it does not run by "
                f"itself: {why}; give {argument('example')}, an input of the network"
            ) from error
        return self._whole, name


def residual_unit_error(run: Trace, name: str, end: str) -> str:
    """Return why a module in a run is not a residual unit, for a message; "" if it is one.

    Args:
        run: a run of the module, or of a network that contains it.
        name: name of the module in the run.
        end: name of the module that ends its branch.
    """
    calls, ends = run.calls_of(name), run.calls_of(end)
    if not calls or not ends:
        return "its branch does not run"
    unit, last = calls[0], ends[0]
    if unit.given is None:
        return f"its output is a {type(unit.output).__name__} and not a tensor"
    if unit.taken is None or last.given is None:
        return f"its input, or the output of {end!r}, is not a tensor"
    branch = run.reachable([last.given])
    skip = run.reachable([unit.taken], without={last.given.number})
    for operation in run.operations:
        if operation.name in ("add", "sum", "addcmul") and _is_join(operation.inputs, branch, skip - branch):
            joined = run.reachable(operation.outputs)
            if unit.given.number in joined:
                return ""
    return f"nothing is added to the output of {end!r} before its own output"


def _is_join(inputs: Iterable[Value], branch: set[int], skip: set[int]) -> bool:
    numbers = {value.number for value in inputs if len(value.shape) >= 3}
    return bool(numbers & branch) and bool(numbers & skip)


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
