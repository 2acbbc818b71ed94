"""What to do about gates: each piece of advice follows from figures, and names them."""

from collections.abc import Sequence

from senet.gates.diagnosis.tango import CONFIDENCE, MAX_DROP, images_needed, least_bound
from senet.gates.diagnosis.verdicts import Figures, Thresholds
from senet.gates.recording.record import BlockGates

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
    measured = "worth_mean_top1" in figures
    if _folds(figures, thresholds):
        advice.append(f"Fold it (senet fold{_budget(thresholds)}): {_change(figures)}, within {thresholds.drop:g}.")
    elif not measured and _does_little(verdicts):
        advice.append(
            f"It may fold: the gates deviate by {_share(figures['variation'])} of their size over images. Measure what "
            f"it is worth first."
        )
    elif measured and _does_little(verdicts):
        advice.append(_fold_later(figures, thresholds))
    if _at_start(figures, thresholds) and "dead" not in verdicts:
        advice.append(
            f"No gate is further than {_share(figures['start_distance'])} from its start: the block has not learned. "
            f"Train longer, see that its parameters are trained, or take init='paper'."
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
        advice.append(_keep(blocks, thresholds))
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
        f"that these parameters are trained, or take init='paper'."
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
    """Whether the hidden layers are too wide or too narrow, all in all.

    A layer of one unit cannot be narrower, and lies in its one direction whatever it does. Gates that do little lie in
    as many directions as there is noise in them: neither says that a layer is too narrow.
    """
    wider = [one for one in blocks if (one[2]["hidden_channels"] or 0) > 1 and one[2]["rank"]]
    wider = [one for one in wider if len(one[0].sample_gates) >= thresholds.images]
    known = [(block, figures) for block, _, figures in wider]
    if len(known) < 2:
        return []
    units = sum(int(figures["hidden_channels"] or 0) for _, figures in known)
    wide = sum(float(figures["unused"] or 0) * int(figures["hidden_channels"] or 0) for _, figures in known)
    if wide >= thresholds.unused * units:
        left = round(units - wide)
        return [
            f"Raise r: {_share(wide / units)} of all {units} hidden units have no say in the gates; {left} would do."
        ]
    used = [(block, figures) for block, verdicts, figures in wider if not _IDLE & set(verdicts)]
    full = [b.label for b, figures in used if float(figures["rank_share"] or 0) >= _FULL and not figures["unused"]]
    if len(used) > 1 and 2 * len(full) > len(used):
        return [
            f"Try a lower r: in {len(full)} of {len(used)} blocks the gates lie in {_share(_FULL)} or more of the "
            f"directions that their hidden units allow, and no unit is unused ({_list(full)})."
        ]
    return []


# Verdicts on gates whose directions say nothing of how many they need.
_IDLE = {"dead", "saturated on", "saturated off", "constant"}
# Of the directions that hidden units allow, from where on they might be too few.
_FULL = 0.9


def _folds(figures: Figures, thresholds: Thresholds) -> bool:
    """Whether `plan_fold` would fold a block within the budget, by the bound that it goes by."""
    bound = figures.get("worth_mean_bound")
    return bound is not None and bound <= thresholds.drop


def _change(figures: Figures) -> str:
    """What folding a block changes, and what is the most that it may."""
    bound = figures.get("worth_mean_bound") or 0.0
    if not bound:
        return "its gates are the same for every image, so that no logit changes"
    value = figures.get("worth_mean_top1") or 0.0
    return f"with mean gates the top-1 error changes by {value:+.2f} points, at most {bound:+.2f} at {CONFIDENCE:.0%}"


def _fold_later(figures: Figures, thresholds: Thresholds) -> str:
    """That a block may fold, but not yet: by more images, or a larger budget."""
    images, value = int(figures["images"] or 1), figures.get("worth_mean_top1") or 0.0
    if value >= thresholds.drop:
        return f"Keep it: {_change(figures)}, which is not within {thresholds.drop:g}."
    return (
        f"Fold it only on more than {images:,} images, or within a larger budget: {_change(figures)} with so many "
        f"images, which is not within {thresholds.drop:g}."
    )


def _keep(blocks: Sequence[Judged], thresholds: Thresholds) -> str:
    """That nothing folds within the budget; and where the images are too few for any block to, how many it takes."""
    images = int(next(figures["images"] for _, _, figures in blocks if figures["images"]) or 1)
    least = least_bound(images, CONFIDENCE)
    open_ = any((figures.get("worth_mean_top1") or 0.0) < thresholds.drop for _, _, figures in blocks)
    if least > thresholds.drop and open_:
        text = f"No block can be folded within {thresholds.drop:g} points of top-1 error on {images:,} images"
        needed = images_needed(0, 0, images, thresholds.drop, CONFIDENCE)
        enough = "" if needed is None else f" It takes {needed:,} images or more, or a larger budget (--max-drop)."
        return f"{text}: even if no prediction changes, so few prove only that it is at most {least:.2f}.{enough}"
    return (
        f"Keep all {len(blocks)} blocks: with mean gates none is within {thresholds.drop:g} points of top-1 error at "
        f"{CONFIDENCE:.0%} confidence."
    )


def _budget(thresholds: Thresholds) -> str:
    """As an option of the command, where it is not the default."""
    return "" if thresholds.drop == MAX_DROP else f" --max-drop {thresholds.drop:g}"


def _does_little(verdicts: tuple[str, ...]) -> bool:
    return bool({"constant", "saturated on"} & set(verdicts))


def _at_start(figures: Figures, thresholds: Thresholds) -> bool:
    distance = figures["start_distance"]
    return distance is not None and distance <= thresholds.start


def _parameters(block: BlockGates) -> int:
    """Weights of both layers, or of the one there is; without biases."""
    return block.channels * (block.channels if block.hidden_channels is None else 2 * block.hidden_channels)


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.3g} %"


def _list(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
