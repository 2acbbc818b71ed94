"""Find the SE modules of a network, and the batch norm and activation with which each is computed, in one run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from senet.fusion.chain import Chain, chains_before, names_in_code, sum_relu_after
from senet.fusion.fusion import Forwards, Fusion, kind_of, options_of, settings_of
from senet.fusion.parts import activation_of, check_excitation, inner_modules, is_norm, read_steps
from senet.graph.chains import Chains, Unusable
from senet.graph.example_inputs import LARGE_SIDES, Example, example_image
from senet.graph.example_runs import image_inputs, run_network
from senet.graph.operations import Call, Trace
from senet.graph.recorder import trace
from senet.graph.se_modules import SEUnit, find_se
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.fused.block_inspection import has_hooks
from senet.nn.inserted_se import find_inserted_se
from senet.nn.recalibrated_class import spec_of
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["Found", "find_fusions"]

# What code calls to observe the gradient of a map.
_GRADIENT_HOOKS = {"register_hook", "retain_grad"}


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
                    return trace(model, given, training=True, find_stored=True)
                except Exception:  # a network's own code may raise anything on tensors without values
                    continue
    finally:
        random.setstate(state)
    try:
        return run_network(
            model, example, images=images, purpose="to find its SE", prefer_shapes=True, find_stored=True
        )
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
        inserted = find_inserted_se(model)
        self._in_batch_norms = {one.se for one in inserted if isinstance(model.get_submodule(one.name), SEBatchNorm)}
        self._holders = {one.se: model.get_submodule(one.name) for one in inserted if one.how == "output"}

    def find(self, unit: SEUnit) -> Found:
        """Return how an SE module is fused.

        Raises:
            Unusable: it is not.
        """
        if unit.module in self._in_batch_norms:
            raise Unusable("it is part of an SEBatchNorm, which is fused already")
        steps, axes = read_steps(unit)
        holder = self._holders.get(unit.module)  # type: ignore[call-overload]
        chains = chains_before(self._chains, unit, holder)
        norm, activation = chains[0].norm.module, chains[0].activated_by
        name, idle = inner_modules(norm)
        if name is not None and activation is not None:
            raise Unusable("two activations precede it")
        activation = activation if name is None else getattr(norm, name)
        block = self._block(chains)
        inside = {module: name for name, module in block.named_modules()}
        taken = chains[0].norm.taken
        between = self._between(chains)
        own = isinstance(unit.module, SqueezeExcitation)
        parts = [part for part in (norm, unit.module, activation) if part is not None]
        fusion = Fusion(
            norm=inside[norm],
            se=inside[unit.module],
            kinds=tuple(map(kind_of, parts)),
            activation=None if activation is None else activation_of(activation),
            activated_by=None if activation is None else inside[activation],
            steps=steps,
            axes=axes,
            rank=0 if taken is None else len(taken.shape),
            observers=tuple(
                inside[module] for module in (*self._observers(chains, unit, steps), *between) if module in inside
            ),
            sum_relu=self._sum_relu(chains, inside) if activation is None and holder is None else (),
            idle=(
                *(f"{inside[norm]}.{name}" for name in idle),
                *(inside[module] for module in between if type(module) is nn.Identity and module in inside),
            ),
            attached=holder is not None,
            settings=(None if own else settings_of(unit.module), None if holder else settings_of(activation)),
            options=options_of(block),
            forwards=Forwards(*map(kind_of, (block, *parts, *unit.module.modules()))),
        )
        if getattr(norm, "num_features", None) != unit.channels:
            raise Unusable("it has other channels than the batch norm before it")
        self._check_code(unit, block, chains, fusion)
        for module in (*parts, *map(block.get_submodule, fusion.observers)):
            _check_plain(module, self._names[module], holder)
        check_excitation(unit, fusion)
        return Found(unit, self._names[norm], block, fusion)

    def _block(self, chains: list[Chain]) -> nn.Module:
        """Return the innermost module whose forward calls all parts."""
        blocks = []
        for chain in chains:
            around = {call.index for call in self._run.enclosing(chain.norm.parent)}
            blocks.append(next(call.module for call in self._run.enclosing(chain.se.parent) if call.index in around))
        block, kind = blocks[0], type(blocks[0]).__name__
        if any(other is not block for other in blocks):
            raise Unusable("several modules call it")
        if isinstance(block, torch.fx.GraphModule):
            raise Unusable(f"the generated code of a {kind} calls it")
        if "forward" in vars(block):
            raise Unusable(f"the forward of {kind}, which calls it, was replaced")
        return block

    def _observers(
        self, chains: list[Chain], unit: SEUnit, steps: tuple[str | nn.Module, ...]
    ) -> dict[nn.Module, None]:
        """Return the modules that take or return a map that is not computed, or a squeeze."""
        found: dict[nn.Module, None] = {}
        for chain in chains:
            shared = self._shared(chain)
            for call in chain.calls:
                found.update({one.module: None for one in self._run.enclosing(call.parent)[: -len(shared)]})
            found.update(dict.fromkeys(chain.norm.module.children()))
        called = [unit.module.get_submodule(step) for step in steps if isinstance(step, str)]
        if any(isinstance(step, nn.Module) for step in steps):
            called = []  # hooks of function modules follow the operations of the forward
        if steps:
            within = {part for one in called for part in one.modules()}
            found.update({part: None for part in unit.module.modules() if part not in within})
        for call in chains[0].calls:
            found.pop(call.module, None)
        return found

    def _between(self, chains: list[Chain]) -> list[nn.Module]:
        """Return the modules that pass a map on between the parts, as they take it."""
        maps = {call.given for chain in chains for call in chain.calls[:-1]}
        passed = [call.module for call in self._run.calls if call.taken == call.given and call.taken in maps]
        return list(dict.fromkeys(passed))

    def _check_code(self, unit: SEUnit, block: nn.Module, chains: list[Chain], fusion: Fusion) -> None:
        """Check that the code around the parts, and that of SE, which does not run, keeps and observes no tensors.

        Raises:
            Unusable: it does.
        """
        modules = {block, unit.module, *map(block.get_submodule, fusion.observers)}
        for module in modules:
            if _GRADIENT_HOOKS & names_in_code(module):
                raise Unusable(f"the code of {type(module).__name__} observes gradients of tensors")
        made = {chain.se.given for chain in chains}
        for operation in self._run.operations:
            around = self._run.enclosing(operation.call)
            # In a batch norm, running statistics and counts are kept, which is its own function.
            own = around[0].given if around and is_norm(around[0].module) else None
            stored = [x for x in operation.outputs if x.number in self._run.stored and x not in made]
            stored = stored if own is None else [x for x in stored if x == own]
            if stored and any(call.module is unit.module for call in around):
                raise Unusable(f"the code of {type(unit.module).__name__} stores a tensor")

    def _sum_relu(self, chains: list[Chain], inside: dict[nn.Module, str]) -> tuple[str, ...]:
        """Return `Fusion.sum_relu`."""
        found = {tuple(sum_relu_after(self._run, chain.se, self._shared(chain)[0])) for chain in chains}
        modules = found.pop()
        plain = not any(has_hooks(module) or "forward" in vars(module) or spec_of(module) for module in modules)
        return tuple(inside[module] for module in modules) if plain and not found else ()

    def _shared(self, chain: Chain) -> list[Call]:
        """Return the calls in which all parts of a chain run."""
        around = {call.index for call in self._run.enclosing(chain.norm.parent)}
        return [call for call in self._run.enclosing(chain.se.parent) if call.index in around]


def _check_plain(module: nn.Module, name: str, holder: nn.Module | None) -> None:
    """Check that nothing observes or replaces the calls of a module.

    Raises:
        Unusable: something does.
    """
    if has_hooks(module):
        raise Unusable(f"{name} has hooks")
    if "forward" in vars(module):
        raise Unusable(f"the forward of {name} was replaced")
    spec = spec_of(module)
    if spec is not None and (module is not holder or spec.inputs or len(spec.outputs) != 1 or spec.method != "forward"):
        raise Unusable(f"other SE is attached to {name}")
