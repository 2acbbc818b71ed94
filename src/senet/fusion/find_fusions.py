"""Find chains batch norm, activation, SE whose intermediate maps nothing else uses, in one run of a network."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from senet.fusion.fusion import Fusion
from senet.fusion.parts import (
    activation_of,
    check_excitation,
    inner_activation,
    is_elementwise,
    is_norm,
    read_steps,
)
from senet.graph.chains import Chains, Unusable, drops_nothing, has_own_hooks
from senet.graph.example_inputs import LARGE_SIDES, Example, example_image
from senet.graph.example_runs import image_inputs, run_network
from senet.graph.operations import Call, Trace, Value
from senet.graph.recorder import trace
from senet.graph.se_modules import SEUnit, find_se
from senet.nn.batch_norm import SEBatchNorm
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["Found", "find_fusions"]


@dataclass(frozen=True)
class Found:
    """An SE module, and how it is fused.

    Attributes:
        unit: the SE module.
        norm: name of the batch norm before it; "" if it is not fused.
        block: the module whose forward calls both; None if it is not fused.
        fusion: in the block; None if it is not fused.
        reason: why it is not fused.
    """

    unit: SEUnit
    norm: str = ""
    block: nn.Module | None = None
    fusion: Fusion | None = None
    reason: str = ""


def find_fusions(model: nn.Module, example: Example | None = None) -> Iterator[Found]:
    """Yield every SE module of a network, in its order.

    Args:
        model: the network, without fused modules.
        example: an input; an image is made up unless given.

    Raises:
        TypeError, ValueError: the network has SE and does not run on the example.
    """
    units = find_se(model, example)
    finder = _Finder(model, _run(model, example)) if units else None
    for unit in units:
        assert finder is not None
        try:
            yield finder.find(unit)
        except Unusable as reason:
            yield Found(unit, reason=str(reason))


def _run(model: nn.Module, example: Example | None) -> Trace:
    """Run a network without values: in training, which shows dropout, or in evaluation if it does not run in training.

    Raises:
        TypeError, ValueError: see `run_network`.
    """
    images = [example_image(model, 2), example_image(model, 2, sides=LARGE_SIDES)]
    inputs = [example] if example is not None else [image_inputs(model, image) for image in images]
    state = random.getstate()
    try:
        with torch.random.fork_rng([]):
            for given in inputs:
                try:
                    return trace(model, given, training=True)
                except Exception:  # a network's own code may raise anything on tensors without values
                    continue
    finally:
        random.setstate(state)
    try:
        return run_network(model, example, images=images, purpose="to find its SE", prefer_shapes=True)
    except MissingExampleError as error:
        raise MissingExampleError(f"{error}; give {argument('example')}, an input of the network") from error


class _Finder:
    """Searches one run of a network.

    Args:
        model: the network.
        run: of the network.
    """

    def __init__(self, model: nn.Module, run: Trace) -> None:
        self._run, self._chains = run, Chains(run)
        self._names = {module: name for name, module in model.named_modules()}
        parents = [(child, module) for module in model.modules() for child in module.children()]
        self._inside = {child for child, parent in parents if isinstance(parent, SEBatchNorm)}

    def find(self, unit: SEUnit) -> Found:
        """Return how an SE module is fused.

        Raises:
            Unusable: it is not.
        """
        if unit.module in self._inside:
            raise Unusable("it is part of an SEBatchNorm, which is fused already")
        steps, axes = read_steps(unit)
        calls = self._chains.calls(unit.module)
        if not calls:
            raise Unusable("the network did not call it in a run")
        chains = [self._before(call) for call in calls]
        norm, activated = chains[0][0].module, None if chains[0][1] is None else chains[0][1].module
        same = all((one.module, two and two.module) == (norm, activated) for one, two in chains)
        if not same or len(self._chains.calls(norm)) != len(calls):
            raise Unusable("modules before it are shared with other parts of the network")
        inner = inner_activation(norm)
        if inner is not None and activated is not None:
            raise Unusable("two activations precede it")
        by = getattr(norm, inner) if inner is not None else activated
        block = self._block(chains, calls)
        inside = {module: name for name, module in block.named_modules()}
        taken = chains[0][0].taken
        assert taken is not None
        fusion = Fusion(
            norm=inside[norm],
            se=inside[unit.module],
            activation=None if by is None else activation_of(by),
            activated_by=None if by is None else inside[by],
            steps=steps,
            axes=axes,
            rank=len(taken.shape),
            observers=self._observers(block, inside, unit, [*(c for pair in chains for c in pair if c), *calls], steps),
        )
        self._check(norm, by, unit, fusion, block, inside)
        return Found(unit, self._names[norm], block, fusion)

    def _before(self, se: Call) -> tuple[Call, Call | None]:
        """Return the calls of the batch norm and of the activation, if any, that make the input of an SE call."""
        made = self._makers(se.taken)
        norm = next((call for call in made if is_norm(call.module)), None)
        activation = None
        if norm is None:
            activation = next((call for call in made if is_elementwise(call.module)), None)
            made = [] if activation is None else self._makers(activation.taken)
            norm = next((call for call in made if is_norm(call.module)), None)
        if norm is None:
            raise Unusable(self._why_not(se.taken))
        for call, reader in ((norm, activation or se), *([(activation, se)] if activation else [])):
            self._check_between(call)
            if self._chains.reader(call, lambda module, reader=reader: module is reader.module) is not reader:  # type: ignore[misc]
                raise Unusable("its map, or the one before it, is used elsewhere too, or hooks observe it")
        return norm, activation

    def _makers(self, value: Value | None) -> list[Call]:
        """Return the calls that made and returned a value, innermost first."""
        maker = None if value is None else self._run.producer(value)
        return [] if maker is None else [call for call in self._run.enclosing(maker.call) if call.given == value]

    def _why_not(self, value: Value | None) -> str:
        maker = None if value is None else self._run.producer(value)
        if maker is None or maker.call is None:
            return "it does not follow a batch norm"
        module = self._run.calls[maker.call].module
        if next(module.children(), None) is None:
            return f"it follows a {type(module).__name__}, not a batch norm or its activation"
        return f'it follows the operation "{maker.name}" in the forward of {type(module).__name__}'

    def _check_between(self, call: Call) -> None:
        """Check that no dropout passes the output of a call on, which has a rate of 0 now."""
        for one in self._run.calls:
            if one.taken == one.given == call.given and one.taken is not None and drops_nothing(one.module):
                raise Unusable(f"dropout ({type(one.module).__name__}) precedes it")

    def _block(self, chains: list[tuple[Call, Call | None]], calls: list[Call]) -> nn.Module:
        """Return the innermost module whose forward calls all parts."""
        blocks = []
        for (norm, _), se in zip(chains, calls, strict=True):
            around = {call.index for call in self._run.enclosing(norm.parent)}
            blocks.append(next(call.module for call in self._run.enclosing(se.parent) if call.index in around))
        block = blocks[0]
        kind = type(block).__name__
        if any(other is not block for other in blocks):
            raise Unusable("several modules call it")
        if isinstance(block, torch.fx.GraphModule):
            raise Unusable(f"the generated code of a {kind} calls it")
        if "forward" in vars(block) or hasattr(block, "_senet_spec"):
            raise Unusable(f"the forward of {kind}, which calls it, was replaced")
        return block

    def _observers(
        self,
        block: nn.Module,
        inside: dict[nn.Module, str],
        unit: SEUnit,
        calls: list[Call],
        steps: tuple[str | nn.Module, ...],
    ) -> tuple[str, ...]:
        """Return the names of modules that take or return maps that are not computed, or a squeeze."""
        around = [one.module for call in calls for one in self._run.enclosing(call.parent)]
        known = {block, *(module for module in around if module not in inside)}
        found = dict.fromkeys(module for module in around if module not in known)
        for call in calls:
            if is_norm(call.module):
                found.update(dict.fromkeys(call.module.children()))
        called = {unit.module.get_submodule(step) for step in steps if isinstance(step, str)}
        if any(isinstance(step, nn.Module) for step in steps):
            called = set()  # hooks of function modules follow the operations of the forward
        within = {part for one in called for part in one.modules()}
        if steps:
            found.update(dict.fromkeys(part for part in unit.module.modules() if part not in within))
        found.pop(unit.module, None)
        return tuple(inside[module] for module in found)

    def _check(
        self,
        norm: nn.Module,
        activation: nn.Module | None,
        unit: SEUnit,
        fusion: Fusion,
        block: nn.Module,
        inside: dict[nn.Module, str],
    ) -> None:
        """Check that the parts compute what is known of them."""
        if getattr(norm, "num_features", None) != unit.channels:
            raise Unusable("it has other channels than the batch norm before it")
        parts = [norm, unit.module, *(() if activation is None else (activation,))]
        for module in (*parts, *(block.get_submodule(name) for name in fusion.observers)):
            if has_own_hooks(module):
                raise Unusable(f"{inside[module]} has hooks")
            if "forward" in vars(module):
                raise Unusable(f"the forward of {inside[module]} was replaced")
        if any(hasattr(module, "_senet_spec") for module in parts):
            raise Unusable("SE is attached to a module before it")
        check_excitation(unit.module, fusion)
