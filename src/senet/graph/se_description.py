"""Describe SE that was recognized in a trace by the names of its modules: which form it has, and which parts."""

from dataclasses import dataclass

from senet.graph.excitation import LAYERS, Excitation, Flow
from senet.graph.operations import Call, Trace, Value

__all__ = ["RecognizedSE", "describe_se", "join_names"]


@dataclass(frozen=True)
class RecognizedSE:
    """SE that was recognized in a trace.

    Attributes:
        name: the module that it is in, as in `named_modules`.
        form: "block": the module takes a map and returns the scaled map. "gate": it returns the gate, and the module
            around it multiplies. "inline": it is a part of the module's forward.
        reduce, expand: names of the two layers.
        found: the SE in the trace.
        gate: name of the module that returns the gate; None if functions compute it.
        activation: name of the module between the two layers; None if it is a function, or missing.
        norm: name of the normalization between the two layers; None without one.
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


def describe_se(run: Trace, found: Excitation, prefix: str) -> RecognizedSE:
    """Describe SE in a trace.

    Args:
        run: of a module.
        found: the SE in it.
        prefix: the module's name in the network.
    """
    flow = Flow(run)
    form, holder = _holder(run, flow, found)
    gate = _module_between(run, flow, found.expand.given, found.gate)
    norms = [operation for operation in found.middle if "norm" in operation.name]
    norm = run.enclosing(norms[0].call)[0] if norms else None
    activation = None
    if found.middle and found.middle[-1] not in norms:
        start = norms[-1].outputs[0] if norms else found.reduce.given
        activation = _module_between(run, flow, start, found.middle[-1].outputs[0])
    shape = found.gate.shape if gate is None or gate.given is None else gate.given.shape
    return RecognizedSE(
        name=join_names(prefix, holder.name),
        form=form,
        reduce=join_names(prefix, found.reduce.name),
        expand=join_names(prefix, found.expand.name),
        found=found,
        gate=None if gate is None else join_names(prefix, gate.name),
        activation=None if activation is None else join_names(prefix, activation.name),
        norm=None if norm is None else join_names(prefix, norm.name),
        gate_axis=1 if len(shape) < 3 or shape[1] > 1 else -1,
    )


def join_names(*names: str) -> str:
    """Join parts of a module's name by dots, without those that are empty."""
    return ".".join(name for name in names if name)


def _holder(run: Trace, flow: Flow, found: Excitation) -> tuple[str, Call]:
    """Return the form of SE, and the innermost call that pools, computes the gate and, in a block, multiplies."""
    last = found.product or flow.maker(found.gate)
    assert last is not None
    around_expand = {call.index for call in run.enclosing(found.expand.index)}
    inside = run.enclosing(last.call)
    holders = [call for call in inside if call.index in around_expand and not isinstance(call.module, LAYERS)]
    if found.product is not None and found.product.name == "mul":  # a sum with the product is more than the block
        scaled = found.product.outputs[0]
        blocks = [c for c in holders if _is_of(flow, c.taken, found.pooled) and _is_of(flow, c.given, scaled)]
        if blocks:
            return "block", blocks[-1]
    gates = [c for c in run.calls if _is_of(flow, c.taken, found.pooled) and _is_of(flow, c.given, found.gate)]
    return ("gate", gates[0]) if gates else ("inline", holders[0])


def _is_of(flow: Flow, value: Value | None, root: Value) -> bool:
    return value is not None and flow.root(value).number == root.number


def _module_between(run: Trace, flow: Flow, taken: Value | None, given: Value) -> Call | None:
    """Return the call of the outermost module that makes one value of another, apart from views."""
    if taken is None:
        return None
    taken, given = flow.root(taken), flow.root(given)
    for call in run.calls:
        layer = isinstance(call.module, LAYERS)
        if not layer and _is_of(flow, call.taken, taken) and _is_of(flow, call.given, given):
            return call
    return None
