"""What was found, in words, and the block that a page opens on."""

from collections.abc import Sequence
from math import isfinite

from senet.gates.diagnosis.diagnosis import BlockDiagnosis, Diagnosis

__all__ = ["leading_block", "summarize"]

_MOST_NAMES = 4


def leading_block(diagnosis: Diagnosis) -> int:
    """Return the index of the block that matters most.

    It is the block whose ablation raises the error most, and of equal ones the loss. Without ablations it is the block
    whose gates depend most on the class.

    Args:
        diagnosis: of one block or more.
    """
    return max(range(len(diagnosis.blocks)), key=lambda index: _importance(diagnosis.blocks[index]))


def _importance(block: BlockDiagnosis) -> tuple[float, ...]:
    by_class = _class_share(block) or 0.0
    if not block.ablations:
        return 0.0, 0.0, by_class
    spans = (block.ablations[0].top1, block.ablations[0].loss)
    return *(0.0 if span is None else _known(span.value) for span in spans), by_class


def _known(value: float) -> float:
    return value if isfinite(value) else 0.0


def _class_share(block: BlockDiagnosis) -> float | None:
    value = block.figures.get("eta_squared_median")
    return None if value is None or not isfinite(value) else float(value)


def summarize(diagnosis: Diagnosis) -> str:
    """Return in a few sentences which block matters most, what the blocks do, and how that changes with depth.

    Args:
        diagnosis: of one block or more.
    """
    blocks = diagnosis.blocks
    sentences = [_effect(blocks[leading_block(diagnosis)], len(blocks)), _tally(blocks)]
    first, last = _class_share(blocks[0]), _class_share(blocks[-1])
    if len(blocks) > 1 and first is not None and last is not None:
        sentences.append(
            f"The class explains {100 * first:.0f} % of the variance of the gates in the first block and "
            f"{100 * last:.0f} % in the last."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _effect(block: BlockDiagnosis, count: int) -> str:
    """Say what happens with constant gates in a block, or how far its gates depend on the class."""
    matters = "matters" if count == 1 else "matters most"
    if not block.ablations:
        share = _class_share(block)
        depends = "depend" if count == 1 else "depend most"
        explained = "" if share is None else f"{100 * share:.0f} % of their variance is between classes"
        return explained and f"The gates of {block.label} {depends} on the class: {explained}."
    ablation = block.ablations[0]
    error, top1 = ablation.errors[0], ablation.top1
    held = "at their means" if ablation.by == "mean" else f"at {'1' if ablation.by == 'one' else ablation.by}"
    higher = ablation.better == "higher"
    if not top1.value > 0:
        verb = "lower" if higher else "raise"
        raises = f"the block do not {verb}" if count == 1 else f"no block {verb}"
        return f"Held {held}, the gates of {raises} the {error}."
    chance = "" if top1.low > 0 else ", which may be chance"
    return (
        f"{block.label} {matters}: with its gates held {held}, the {error} {'drops' if higher else 'rises'} by "
        f"{top1.value:.2f} points "
        f"({top1.low:+.2f} to {top1.high:+.2f}){chance}."
    )


def _tally(blocks: Sequence[BlockDiagnosis]) -> str:
    """Say how many blocks have each verdict, the most frequent one first."""
    groups: dict[str, list[str]] = {}
    for block in blocks:
        groups.setdefault(block.verdicts[0] if block.verdicts else "without a verdict", []).append(block.label)
    if len(blocks) == 1:
        return f"The block is {next(iter(groups))}."
    parts = [
        f"{len(labels)} {verdict} ({_listed(labels)})"
        for verdict, labels in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]
    joined = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    number, rest = joined.split(" ", 1)
    return f"Of {len(blocks)} blocks, {number} {'is' if number == '1' else 'are'} {rest}."


def _listed(labels: list[str]) -> str:
    shown, more = labels[:_MOST_NAMES], len(labels) - _MOST_NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
