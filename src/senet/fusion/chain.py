"""The calls of a batch norm, an activation and SE that follow each other, and use each other's outputs alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from senet.fusion.parts import is_elementwise, is_norm
from senet.graph.chains import Chains, Unusable, drops_nothing
from senet.graph.function_modules import VIEWS
from senet.graph.operations import Call, Operation, Trace, Value
from senet.graph.se_modules import SEUnit

__all__ = ["Chain", "chains_before", "names_in_code", "sum_relu_after"]

_VIEWS = VIEWS | {"slice", "select", "split", "chunk", "narrow"}
# What code calls on an object that has to be a tensor: it examines classes, or calls a Function.
_EXAMINING = {"isinstance", "issubclass", "type", "is_tensor", "__class__", "apply", "ScriptFunction"}
_FUNCTIONS: Any = (FunctionType, staticmethod, classmethod)


@dataclass(frozen=True)
class Chain:
    """Calls that follow each other.

    Attributes:
        norm: of the batch norm.
        activation: of the activation, a module of its own; None if the batch norm activates, or nothing does.
        se: of SE, which may be inside one of the others.
    """

    norm: Call
    activation: Call | None
    se: Call

    @property
    def activated_by(self) -> nn.Module | None:
        """The module that activates."""
        return None if self.activation is None else self.activation.module

    @property
    def calls(self) -> list[Call]:
        """The calls."""
        return [call for call in (self.norm, self.activation, self.se) if call is not None]


def chains_before(chains: Chains, unit: SEUnit, holder: nn.Module | None) -> list[Chain]:
    """Return the chains that end in the calls of an SE module. All consist of the same modules.

    Args:
        chains: of a run of the network.
        unit: the SE module.
        holder: the batch norm or activation to whose output it is attached; None if the network's code calls it.

    Raises:
        Unusable: there are none.
    """
    calls = chains.calls(unit.module)
    if not calls:
        raise Unusable("the network did not call it in a run")
    found = [_chain(chains, call, holder) for call in calls]
    norm = found[0].norm.module
    same = all((one.norm.module, one.activated_by) == (norm, found[0].activated_by) for one in found)
    if not same or len(chains.calls(norm)) != len(calls):
        raise Unusable("modules before it are shared with other parts of the network")
    return found


def sum_relu_after(run: Trace, se: Call, block: Call) -> list[nn.Module]:
    """Return the ReLU that takes the sum of the output of SE and of another map, and modules before it that do nothing.

    Args:
        run: of the network.
        se: the call of SE.
        block: the call whose forward adds and calls the ReLU.

    Returns:
        The modules, the ReLU first; none if something else follows.
    """
    readers = [] if se.given is None else run.consumers(se.given)
    total = _sum(readers[0], se.given, block) if len(readers) == 1 else None
    after = [] if total is None else run.consumers(total)
    if se.given is None or total is None or len(after) != 1 or {se.given, total} & set(run.outputs):
        return []
    call = None if after[0].call is None else run.calls[after[0].call]
    if call is None or type(call.module) is not nn.ReLU or call.parent != block.index or call.taken != total:
        return []
    stored = {se.given, total, call.given if call.module.inplace else total}
    if any(value is not None and value.number in run.stored for value in stored):
        return []
    if _EXAMINING & names_in_code(block.module):
        return []
    idle = [one.module for one in run.calls if one.taken == one.given and one.taken in (se.given, total)]
    return [call.module, *idle] if all(type(module) is nn.Identity for module in idle) else []


def names_in_code(module: nn.Module) -> set[str]:
    """Return the names in the code of the forward of a module, in its methods, and in functions of its Python module.

    PyTorch's own functions take no part. "ScriptFunction" stands for the names in a function of TorchScript.
    """
    classes = [vars(cls) for cls in type(module).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module]
    waiting: list[Any] = [own["forward"] for own in classes if "forward" in own]
    seen: set[object] = set()
    everything: set[str] = set()
    while waiting:
        function = waiting.pop()
        function = inspect.unwrap(function) if isinstance(function, _FUNCTIONS) else function
        if isinstance(function, torch.jit.ScriptFunction):
            everything.add("ScriptFunction")
        if not isinstance(function, FunctionType) or function in seen or _is_of_torch(function):
            continue
        seen.add(function)
        names = set(_names(function.__code__))
        everything |= names
        waiting += inspect.getclosurevars(function).nonlocals.values()
        spaces = [function.__globals__, *classes]
        for space in spaces:
            found = [space[name] for name in names & space.keys()]
            waiting += found
            known = set(map(id, spaces))
            spaces += [vars(one) for one in found if isinstance(one, ModuleType) and id(vars(one)) not in known]
    return everything


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names in the code of a function, and in that of functions inside."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)


def _is_of_torch(function: FunctionType) -> bool:
    return function.__module__ == "torch" or function.__module__.startswith("torch.")


def _sum(operation: Operation, value: Value | None, block: Call) -> Value | None:
    """Return the output of an addition of two values with equal shape and dtype in the forward of a block."""
    if operation.name != "add" or operation.call != block.index or operation.kwargs or len(operation.args) != 2:
        return None
    changed = operation.overload is not None and operation.overload._schema.arguments[0].is_write
    others = [arg for arg in operation.args if arg != value]
    if len(others) != 1 or not isinstance(others[0], Value) or (changed and operation.args[0] != value):
        return None
    same = value is not None and (others[0].shape, others[0].dtype) == (value.shape, value.dtype)
    return operation.outputs[0] if same else None


def _chain(chains: Chains, se: Call, holder: nn.Module | None) -> Chain:
    last = se
    if holder is not None:
        last = next(call for call in chains.run.enclosing(se.index) if call.module is holder)
        if is_norm(holder):
            return Chain(last, None, se)
        if not is_elementwise(holder):
            raise Unusable(f"it is attached to a {type(holder).__bases__[0].__name__}")
    made = _makers(chains, last.taken)
    norm = next((call for call in made if is_norm(call.module)), None)
    activation = last if holder is not None else None
    if norm is None and activation is None:
        activation = next((call for call in made if is_elementwise(call.module)), None)
        made = [] if activation is None else _makers(chains, activation.taken)
        norm = next((call for call in made if is_norm(call.module)), None)
    if norm is None:
        raise Unusable(_why_not(chains, se.taken))
    _check_reader(chains, norm, activation or se)
    if activation is not None and holder is None:
        _check_reader(chains, activation, se)
    return Chain(norm, activation, se)


def _makers(chains: Chains, value: Value | None) -> list[Call]:
    """Return the calls that made and returned a value, innermost first."""
    maker = None if value is None else chains.run.producer(value)
    return [] if maker is None else [call for call in chains.run.enclosing(maker.call) if call.given == value]


def _check_reader(chains: Chains, call: Call, reader: Call) -> None:
    """Check that a call is the only reader of the unmodified output of another call.

    Raises:
        Unusable: it does not.
    """
    for one in chains.run.calls:
        # With a rate of 0 it passes maps on.
        if call.given is not None and one.taken == one.given == call.given and drops_nothing(one.module):
            raise Unusable(f"dropout ({type(one.module).__name__}) precedes it")
    if call.given is not None and call.given.number in chains.run.stored:
        raise Unusable(f"the network's code stores the output of {call.name}, before it")
    if chains.reader(call, lambda module: module is reader.module) is not reader:
        raise Unusable(f"the output of {call.name}, before it, is used elsewhere too, or observed by hooks")


def _why_not(chains: Chains, value: Value | None) -> str:
    """Return why what makes a map is not a batch norm, for a report."""
    maker = None if value is None else chains.run.producer(value)
    while maker is not None and maker.name in _VIEWS and maker.inputs:
        maker = chains.run.producer(maker.inputs[0])
    if maker is None or maker.call is None:
        return "it does not follow a batch norm"
    module = chains.run.calls[maker.call].module
    if next(module.children(), None) is None:
        return f"it follows a {type(module).__name__}, not a batch norm or its activation"
    return f'it follows the operation "{maker.name}" in the forward of {type(module).__name__}'
