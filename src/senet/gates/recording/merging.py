"""Merge recordings of parts of a data set."""

from collections.abc import Sequence

from senet.gates.recording.provenance import differences
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits
from senet.gates.recording.sampling import merged_sample
from senet.utils.errors import GatesError

__all__ = ["merge_gates"]


def merge_gates(parts: Sequence[Gates]) -> Gates:
    """Merge recordings of parts. The statistics equal those of a single recording up to rounding.

    Args:
        parts: recordings of `record_gates` with different `part` but the same network, data and options, in any order.
            Missing parts can be merged with the result later; the result is complete if no part is missing.

    Returns:
        The merged recording. The parts are unchanged.

    Raises:
        GatesError: there are no parts, a part is duplicate, or the parts differ in network, data or options.

    Examples:
        >>> from senet.gates import merge_gates
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> batches = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
        >>> parts = [senet.record_gates(model, batches, part=(i, 2)) for i in range(2)]
        >>> merge_gates(parts).complete
        True
    """
    if not parts:
        raise GatesError("no recordings to merge; give those of record_gates(..., part=(i, n))")
    parts = sorted(parts, key=lambda part: _numbers(part)[0])
    first = parts[0]
    for part in parts[1:]:
        differ = differences(first.state.get("identity", {}), part.state.get("identity", {}))
        if differ or part.state.get("of") != first.state.get("of") or part.classes != first.classes:
            differ = differ or f"number of parts ({first.state.get('of')} and {part.state.get('of')})"
            raise GatesError(f"the recordings differ in {differ}; merge parts with the same network, data and options")
        if [_shape(block) for block in part.blocks] != [_shape(block) for block in first.blocks]:
            raise GatesError("the recordings differ in their SE blocks; merge parts of the same network")
    numbers = sorted(number for part in parts for number in _numbers(part))
    duplicate = next((number for number in numbers if numbers.count(number) > 1), None)
    if duplicate is not None:
        raise GatesError(f"part {duplicate} of {first.state['of']} is duplicate; give each part once")
    sample, blocks = merged_sample(parts, int(first.state["sample"]), int(first.state["seed"]))
    for part in parts[1:]:
        for block, other in zip(blocks, part.blocks, strict=True):
            _merge(block, other)
    finished = all(part.state.get("finished") is True for part in parts)
    return Gates(
        network=first.network,
        data=first.data,
        classes=list(first.classes),
        blocks=blocks,
        sample=sample,
        complete=finished and len(numbers) == first.state["of"],
        state=first.state | ({"parts": numbers, "batches": None, "finished": finished} if len(parts) > 1 else {}),
    )


def _numbers(part: Gates) -> list[int]:
    numbers = part.state.get("parts")
    if not isinstance(numbers, list) or not numbers or not all(isinstance(number, int) for number in numbers):
        raise GatesError("a recording has no part number; record it with record_gates")
    return numbers


def _shape(block: BlockGates) -> tuple[object, ...]:
    return block.name, block.channels, block.hidden_channels, block.gates.edges.tobytes(), block.squeeze


def _merge(block: BlockGates, other: BlockGates) -> None:
    block.gates.merge(other.gates)
    block.squeezes.merge(other.squeezes)
    if block.hidden is not None and other.hidden is not None:
        outputs = block.hidden.outputs
        outputs.merge(other.hidden.outputs)
        block.hidden = HiddenUnits(
            block.hidden.positive + other.hidden.positive,
            block.hidden.calls + other.hidden.calls,
            outputs,
            block.hidden.weights,
        )
