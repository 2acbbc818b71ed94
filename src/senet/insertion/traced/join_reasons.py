"""Why joins are no units.

A join is no unit if

- an arm leaves the resolutions between fork and join (the skip of a U-Net, the lateral of a feature pyramid),
- an arm holds another unit (a skip around several units, an aggregation of them); an inner sum that one unit's own
  forward makes is part of that unit,
- no arm has a convolution, or an arm has attention or noise (a variational autoencoder samples from two layers),
- an arm looks up a codebook (vector quantization), or scales a map by another one (modulation),
- an arm has more than four convolutions, and the arms most of the network's (a long skip, two streams),
- it makes the network's output from a bare convolution, as where a network adds a correction to its image, or the
  scores of several heads,
- it concatenates scores of several heads with the maps that made them (pose networks).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from senet.graph.operations import Value
from senet.insertion.traced.arms import attends, gates_map
from senet.insertion.traced.flow import ACTIVATIONS, NOISE, Flow, is_convolution, is_norm
from senet.insertion.traced.join_scope import own_within
from senet.insertion.traced.joins import Arm, Join, changes_resolution
from senet.insertion.traced.unit import Unit

__all__ = ["NoUnit", "held_units", "is_inner", "why_no_unit"]

# Arms with more convolutions in one than these, and together half of the network's, are a whole network.
_MOST = 4
_PASSING = ("add", "sub", "mul", "div", "view", "_unsafe_view", "reshape", "pixel_shuffle", "contiguous", "clone")
_NEAREST = ("argmin", "argmax", "min", "max", "topk")
_LOOKUPS = ("embedding", "index_select", "gather", "one_hot", "scatter")


@dataclass(frozen=True)
class NoUnit:
    """Why a join is no unit.

    Attributes:
        reason: for messages.
        attention: whether that is because an arm has attention.
    """

    reason: str
    attention: bool = False


def held_units(flow: Flow, arms: Iterable[Arm], found: Iterable[Unit]) -> list[Unit]:
    """Return the residual units in some arms."""
    own = 0
    for arm in arms:
        own |= arm.own
    return [u for u in found if u.rule == "residual" and u.join is not None and own & flow.bit(u.join.output)]


def is_inner(flow: Flow, join: Join, arms: Iterable[Arm], held: list[Unit]) -> bool:
    """Return whether the arms hold further convolutions and a single unit, whose sum is in the same forward."""
    if len(held) != 1 or join.operation.call is None or flow.trace.calls[join.operation.call].parent is None:
        return False
    (unit,) = held
    if unit.join is None or unit.branch is None or unit.join.operation.call != join.operation.call:
        return False
    return max(len(arm.convolutions) for arm in arms) > len(unit.branch.convolutions)


def why_no_unit(flow: Flow, join: Join, arms: Iterable[Arm], held: list[Unit], found: list[Unit]) -> NoUnit | None:
    """Return why a join is no unit; None if it may be one.

    Args:
        flow: of the run.
        join: the join.
        arms: of it.
        held: units in these arms.
        found: the units so far.
    """
    if changes_resolution(flow, join):
        return NoUnit("an arm of its join has another resolution, as the skip of a U-Net")
    if held:
        return NoUnit("its join is around other units")
    # Layers on pooled values, such as those of attention, are not counted.
    layers = max(sum(flow.is_map(op.outputs[0]) for op in arm.convolutions) for arm in arms)
    if layers > _MOST and _convolutions_in(flow, join) > flow.convolutions // 2:
        return NoUnit("its join is around most of the network")
    if join.kind == "sum" and _is_output(flow, join, found):
        return NoUnit("its join is of outputs of the network")
    if join.kind == "concat" and _is_of_scores(flow, join):
        return NoUnit("its join is of scores and the maps that made them")
    if any(_is_noise(flow, arm.end) for arm in arms):
        return NoUnit("sampling")
    if any(_quantizes(arm) for arm in arms):
        return NoUnit("quantization")
    gated = join.kind == "sum" and any(gates_map(flow, arm.operations) for arm in arms)
    if gated or any(attends(flow, arm.operations) for arm in arms):
        return NoUnit("attention", attention=True)
    if join.kind == "sum" and any(_modulates(flow, arm.end) for arm in arms):
        return NoUnit("modulation: one map is scaled and shifted by others")
    return None


def _is_output(flow: Flow, join: Join, found: Iterable[Unit]) -> bool:
    """Return whether a sum of bare convolutions is the network's output, and no unit like earlier ones."""
    makers = [arm for arm in join.arms if arm.convolutions]
    if not all(_is_bare(flow, arm.end) for arm in makers):
        return False
    if len(makers) == len(join.arms) or join.fork in flow.trace.inputs:
        outputs = flow.is_score(join.output)
    else:  # a network that returns pooled values, such as features, ends in a unit
        maps = any(flow.is_map(value) and flow.ancestors(value) & flow.bit(join.output) for value in flow.trace.outputs)
        outputs = maps and flow.is_last(join.output)
    if not outputs:
        return False
    call = flow.smallest(join.operation.call, [op for arm in join.arms for op in arm.operations])
    kinds = {type(unit.call.module) for unit in found if unit.call is not None}
    return call is None or type(call.module) is nn.Sequential or type(call.module) not in kinds


def _is_of_scores(flow: Flow, join: Join) -> bool:
    """Return whether bare convolutions are concatenated with a map before them, which no norm or activation reads.

    Examples are the heatmaps of pose networks, which the next stage refines.
    """
    makers = [arm for arm in join.arms if arm.convolutions]
    if not 1 < len(makers) < len(join.arms) or not all(_is_bare(flow, arm.end) for arm in makers):
        return False
    return not any(is_norm(reader) or reader.name in ACTIVATIONS for reader in flow.trace.consumers(join.output))


def _is_bare(flow: Flow, value: Value) -> bool:
    """Return whether a value is the output of a convolution, possibly biased, scaled, resized or in another shape."""
    maker = flow.trace.producer(value)
    while maker is not None and (maker.name in _PASSING or maker.name.startswith("upsample")):
        before = [v for v in maker.inputs if flow.depends(v)]
        maker = flow.trace.producer(before[0]) if len(before) == 1 else None
    return maker is not None and is_convolution(maker)


def _is_noise(flow: Flow, value: Value) -> bool:
    """Return whether a value is noise times its deviation."""
    maker = flow.trace.producer(value)
    factors = maker.inputs if maker is not None and maker.name == "mul" else []
    return any(op is not None and op.name in NOISE for op in map(flow.trace.producer, factors))


def _modulates(flow: Flow, value: Value) -> bool:
    """Return whether a value is the product of two maps, neither of which is activated, as a gate or its rest is."""
    maker = flow.trace.producer(value)
    factors = maker.inputs if maker is not None and maker.name == "mul" else []
    maps = [factor for factor in factors if factor.shape == value.shape and flow.is_map(factor)]
    return len(maps) == 2 and not any(_is_activated(flow, factor) for factor in maps)


def _is_activated(flow: Flow, value: Value) -> bool:
    """Return whether an activation made a value, or what it is 1 minus, as the second gate of a highway network."""
    maker = flow.trace.producer(value)
    if maker is not None and maker.name in ("rsub", "sub", "neg"):
        before = [v for v in maker.inputs if flow.depends(v)]
        maker = flow.trace.producer(before[0]) if len(before) == 1 else maker
    return maker is None or maker.name in ACTIVATIONS


def _quantizes(arm: Arm) -> bool:
    """Return whether an arm looks up the nearest vectors of a codebook."""
    names = {operation.name for operation in arm.operations}
    return bool(names & set(_NEAREST)) and bool(names & set(_LOOKUPS))


def _convolutions_in(flow: Flow, join: Join) -> int:
    """Return how many convolutions the arms have in the module that joins."""
    return sum(map(is_convolution, flow.operations(own_within(flow, join))))
