"""What to do about gates: each piece of advice follows from figures, and names them."""

from collections.abc import Sequence

from senet.gates.judging import Figures, Thresholds
from senet.gates.record import BlockGates

__all__ = ["advise_block", "advise_network"]

# A block and what was said of it.
Judged = tuple[BlockGates, tuple[str, ...], Figures]


def advise_block(
    block: BlockGates, verdicts: tuple[str, ...], figures: Figures, thresholds: Thresholds
) -> tuple[str, ...]:
    """What to do about one block.

    Args:
        block: of the recording.
        verdicts: on it.
        figures: behind these, and of what it is worth.
        thresholds: by which it was judged.
    """
    advice = []
    high, measured = figures.get("worth_mean_top1_high"), "worth_mean_top1" in figures
    if _folds(figures, thresholds):
        advice.append(
            f"Fold it (senet fold): with mean gates the top-1 error changes by {_points(figures, 'worth_mean_top1')}, "
            f"of which the upper end is within {thresholds.drop:g}."
        )
    elif not measured and _does_little(verdicts):
        advice.append(
            f"It may fold: the gates deviate by {_share(figures['variation'])} of their size over images. Measure what "
            f"it is worth first."
        )
    elif measured and high is not None and "constant" in verdicts:
        advice.append(
            f"Fold it only after more images: with mean gates the top-1 error changes by "
            f"{_points(figures, 'worth_mean_top1')}, and {figures['images']} images leave more than "
            f"{thresholds.drop:g} open."
        )
    if _at_start(figures, thresholds) and "dead" not in verdicts:
        advice.append(
            f"No gate is further than {_share(figures['start_distance'])} from its start: the block has not learned. "
            f"Train longer, see that its parameters are trained, or take start='paper'."
        )
    elif "dead" in verdicts:
        never, always = figures["never_on"], figures["always_on"]
        what = "another seed or a smaller learning rate; an activation that cannot die, such as leaky_relu"
        advice.append(
            f"Train with another start: {what}. {_share(never)} of the hidden units are never on, {_share(always)} "
            f"always."
        )
    units, unused = figures["hidden_channels"], figures["unused"]
    left = 0 if unused is None or not units else round(units * (1 - unused))
    if units and unused and "unused units" in verdicts and left:
        raise_ = "Or raise" if "dead" in verdicts else "Raise"
        advice.append(
            f"{raise_} r to {block.channels / left:.3g}: {left} of {units} hidden units do all of it (r is "
            f"{block.channels / units:.3g} now)."
        )
    elif units and "collapsed rank" in verdicts and figures["rank"]:
        least = max(1, min(int(units) - 1, round(2 * figures["rank"])))
        if least < units:
            advice.append(
                f"Raise r to {block.channels / least:.3g}: the gates lie in {figures['rank']:.1f} directions, for "
                f"which {least} hidden units are twice enough (there are {units})."
            )
    return tuple(advice)


def advise_network(blocks: Sequence[Judged], thresholds: Thresholds) -> tuple[str, ...]:
    """What to do about the network as a whole.

    Args:
        blocks: all of them, in their order.
        thresholds: by which they were judged.
    """
    advice = [*_start(blocks, thresholds), *_stages(blocks, thresholds)]
    folding = [block.label for block, _, figures in blocks if _folds(figures, thresholds)]
    if folding:
        advice.append(
            f"Fold what costs little: {len(folding)} of {len(blocks)} blocks are within {thresholds.drop:g} points of "
            f"top-1 error one at a time ({_list(folding)}); senet fold measures them together."
        )
    elif any("worth_mean_top1" in figures for _, _, figures in blocks):
        advice.append(
            f"Keep all {len(blocks)} blocks: with mean gates none is within {thresholds.drop:g} points of top-1 error "
            f"by the upper end of its interval."
        )
    else:
        advice.append("Measure what each block is worth before taking any away: no worth was measured.")
    return (*advice, *_widths(blocks, thresholds))


def _start(blocks: Sequence[Judged], thresholds: Thresholds) -> list[str]:
    still = [b.label for b, verdicts, figures in blocks if _at_start(figures, thresholds) and "dead" not in verdicts]
    if not still:
        return []
    what = "All gates are" if len(still) == len(blocks) else f"The gates of {_list(still)} are"
    return [
        f"{what} within {_share(thresholds.start)} of where they started: the start has not moved. Train longer, see "
        f"that these parameters are trained, or take start='paper'."
    ]


def _stages(blocks: Sequence[Judged], thresholds: Thresholds) -> list[str]:
    """Stages of which no block does much."""
    stages = sorted({block.stage for block, _, _ in blocks if block.stage is not None})
    measured = any("worth_mean_top1" in figures for _, _, figures in blocks)
    weights = {id(block): _parameters(block) for block, _, _ in blocks}
    total = max(1, sum(weights.values()))
    advice = []
    if all(_folds(f, thresholds) if measured else _does_little(verdicts) for _, verdicts, f in blocks):
        return ["Train without SE, or see why it does not learn: no block's gates do anything that is worth it."]
    for stage in stages:
        inside = [one for one in blocks if one[0].stage == stage]
        if len(stages) < 2 or not all(
            _folds(f, thresholds) if measured else _does_little(verdicts) for _, verdicts, f in inside
        ):
            continue
        saved = sum(weights[id(block)] for block, _, _ in inside) / total
        rest = ", ".join(str(other) for other in stages if other != stage)
        why = (
            f"each of its {len(inside)} blocks is within {thresholds.drop:g} points of top-1 error with mean gates"
            if measured
            else f"the gates of all its {len(inside)} blocks are nearly constant or saturated (not measured on logits)"
        )
        advice.append(
            f"Leave SE out of stage {stage} in the next training (stages={{{rest}}}): {why}, and they hold "
            f"{_share(saved)} of SE's parameters."
        )
    return advice


def _widths(blocks: Sequence[Judged], thresholds: Thresholds) -> list[str]:
    """Whether the hidden layers are too wide or too narrow, all in all."""
    known = [(block, figures) for block, _, figures in blocks if figures["hidden_channels"] and figures["rank"]]
    known = [one for one in known if len(one[0].sample_gates) >= thresholds.images]
    if len(known) < 2:
        return []
    units = sum(int(figures["hidden_channels"] or 0) for _, figures in known)
    wide = sum(float(figures["unused"] or 0) * int(figures["hidden_channels"] or 0) for _, figures in known)
    if wide >= thresholds.unused * units:
        left = round(units - wide)
        return [
            f"Raise r: {_share(wide / units)} of all {units} hidden units have no say in the gates; {left} would do."
        ]
    full = [b.label for b, figures in known if float(figures["rank_share"] or 0) >= _FULL and not figures["unused"]]
    if 2 * len(full) > len(known):
        return [
            f"Try a lower r: in {len(full)} of {len(known)} blocks the gates lie in {_share(_FULL)} or more of the "
            f"directions that their hidden units allow, and no unit is unused ({_list(full)})."
        ]
    return []


# Of the directions that hidden units allow, from where on they might be too few.
_FULL = 0.9


def _folds(figures: Figures, thresholds: Thresholds) -> bool:
    low, high = figures.get("worth_mean_top1_low"), figures.get("worth_mean_top1_high")
    if high is None:
        return False
    if low == high and figures.get("worth_mean_logits"):
        # No image changed, of which a bootstrap makes no width: 3 of M could, at 95 % (Hanley and Lippman-Hand 1983).
        high += 300 / max(1, figures["images"] or 1)
    return high <= thresholds.drop


def _does_little(verdicts: tuple[str, ...]) -> bool:
    return bool({"constant", "saturated on"} & set(verdicts))


def _at_start(figures: Figures, thresholds: Thresholds) -> bool:
    distance = figures["start_distance"]
    return distance is not None and distance <= thresholds.start


def _parameters(block: BlockGates) -> int:
    """Weights of both layers, or of the one there is; without biases."""
    return block.channels * (block.channels if block.hidden_channels is None else 2 * block.hidden_channels)


def _points(figures: Figures, key: str) -> str:
    value, low, high = (figures.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    return f"{value or 0:+.2f} points [{low or 0:+.2f}, {high or 0:+.2f}]"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.3g} %"


def _list(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
