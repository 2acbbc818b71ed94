"""Give advice on gates. Each piece of advice follows from figures and names them."""

from collections.abc import Sequence

from senet.gates.diagnosis.ablation import TOP1, Judged
from senet.gates.diagnosis.tango import CONFIDENCE, MAX_DROP, images_needed, smallest_bound
from senet.gates.diagnosis.verdicts import Figures, Thresholds
from senet.gates.recording.record import BlockGates
from senet.graph.se_kinds import OURS

__all__ = ["block_advice", "network_advice"]

# A block with its verdicts and figures.
Diagnosed = tuple[BlockGates, tuple[str, ...], Figures]
# With these verdicts, the rank of the gates does not show how many directions they need.
_LOW_EFFECT = {"stuck", "saturated on", "saturated off", "constant"}
# From this share of the rank that the hidden units allow, there may be too few units.
_FULL_RANK = 0.9


def block_advice(
    block: BlockGates,
    verdicts: tuple[str, ...],
    figures: Figures,
    thresholds: Thresholds,
    judged: Judged = TOP1,
) -> tuple[str, ...]:
    """Return the advice on one block.

    Args:
        block: the block of a recording.
        verdicts: its verdicts.
        figures: its figures, with the results of the ablation if there was one.
        thresholds: the thresholds of the verdicts.
        judged: what the ablation is judged by.
    """
    return (
        *_fold_advice(verdicts, figures, thresholds, judged),
        *_training_advice(verdicts, figures, thresholds),
        *_width_advice(block, verdicts, figures),
    )


def network_advice(blocks: Sequence[Diagnosed], thresholds: Thresholds, judged: Judged = TOP1) -> tuple[str, ...]:
    """Return the advice on the whole network.

    Args:
        blocks: all blocks in their order.
        thresholds: the thresholds of the verdicts.
        judged: what the ablation is judged by.
    """
    advice = [*_initial_gates(blocks, thresholds), *_stages(blocks, thresholds, judged)]
    foldable = [block.label for block, _, figures in blocks if _folds(figures, thresholds)]
    if foldable:
        advice.append(
            f"Fold blocks that cost little: {len(foldable)} of {len(blocks)} blocks stay within {thresholds.drop:g} "
            f"points of {judged.points} one at a time ({_list(foldable)}). senet fold measures them together."
        )
    elif any(_is_ablated(figures) for _, _, figures in blocks):
        advice.append(_keep(blocks, thresholds, judged))
    else:
        advice.append("Ablate each block before removing any: no ablation was measured.")
    images = next((int(figures["images"]) for _, _, figures in blocks if figures["images"]), 0)
    if caution := judged.caution(images):
        advice.insert(0, caution)
    return (*advice, *_network_width(blocks, thresholds))


def _fold_advice(verdicts: tuple[str, ...], figures: Figures, thresholds: Thresholds, judged: Judged) -> list[str]:
    if _folds(figures, thresholds):
        return [
            f"Fold it (senet fold{_budget_option(thresholds)}): {_change(figures, judged)}, within {thresholds.drop:g}."
        ]
    if not _has_low_effect(verdicts):
        return []
    if _is_ablated(figures):
        return [_fold_later(figures, thresholds, judged)]
    return [
        f"It may be foldable: the standard deviation of the gates over images is {_percent(figures['variation'])} of "
        f"their size. Ablate it first."
    ]


def _training_advice(verdicts: tuple[str, ...], figures: Figures, thresholds: Thresholds) -> list[str]:
    if "stuck" in verdicts and not figures["never_on"]:
        return [
            f"Another initialization is not needed: the ReLUs of {_percent(figures['always_on'])} of the hidden units "
            f"are active for every image, and learn as a linear layer does."
        ]
    if "stuck" in verdicts:
        return [
            f"Train with another initialization: another seed, a smaller learning rate, or an activation that cannot "
            f"die, such as leaky_relu. {_percent(figures['never_on'])} of the hidden units are never active, "
            f"{_percent(figures['always_on'])} always."
        ]
    if _is_initial(figures, thresholds):
        return [
            f"All gates are within {_percent(figures['start_distance'])} of their initial value: the block has not "
            f"learned. Train longer, check that its parameters are trained, or use init='paper'."
        ]
    return []


def _width_advice(block: BlockGates, verdicts: tuple[str, ...], figures: Figures) -> list[str]:
    units, unused = figures["hidden_channels"], figures["unused"]
    used = 0 if unused is None or not units else round(units * (1 - unused))
    if units and unused and "unused units" in verdicts and used:
        raise_ = "Or raise" if "stuck" in verdicts else "Raise"
        return [
            f"{raise_} r to {block.channels / used:.3g}: only {used} of {units} hidden units contribute "
            f"(r is {block.channels / units:.3g} now)."
        ]
    if units and "collapsed rank" in verdicts and figures["rank"]:
        enough = max(1, min(int(units) - 1, round(2 * figures["rank"])))
        if enough < units:
            return [
                f"Raise r to {block.channels / enough:.3g}: the effective rank of the gates is {figures['rank']:.1f}; "
                f"{enough} of {units} hidden units are twice as many."
            ]
    return []


def _initial_gates(blocks: Sequence[Diagnosed], thresholds: Thresholds) -> list[str]:
    initial = [
        b.label for b, verdicts, figures in blocks if _is_initial(figures, thresholds) and "stuck" not in verdicts
    ]
    if not initial:
        return []
    what = "All gates are" if len(initial) == len(blocks) else f"The gates of {_list(initial)} are"
    return [
        f"{what} within {_percent(thresholds.start)} of their initial values: SE has not learned. Train longer, check "
        f"that these parameters are trained, or use init='paper'."
    ]


def _stages(blocks: Sequence[Diagnosed], thresholds: Thresholds, judged: Judged) -> list[str]:
    """Return advice on stages in which every block has little effect."""
    stages = sorted({block.stage for block, _, _ in blocks if block.stage is not None})
    measured = any(_is_ablated(figures) for _, _, figures in blocks)
    weights = {id(block): _parameters(block) for block, _, _ in blocks}
    total = max(1, sum(weights.values()))
    # A recording does not say whether the single layer of a block of senet is a matrix or a filter over channels.
    known = not any(block.kind == OURS and block.hidden_channels is None for block, _, _ in blocks)
    advice = []
    if all(_folds(f, thresholds) if measured else _has_low_effect(verdicts) for _, verdicts, f in blocks):
        return ["Train without SE, or find out why it does not learn: no block's gates have a relevant effect."]
    for stage in stages:
        inside = [one for one in blocks if one[0].stage == stage]
        if len(stages) < 2 or not all(
            _folds(f, thresholds) if measured else _has_low_effect(verdicts) for _, verdicts, f in inside
        ):
            continue
        saved = sum(weights[id(block)] for block, _, _ in inside) / total
        rest = ", ".join(str(other) for other in stages if other != stage)
        why = (
            f"each of its {len(inside)} blocks stays within {thresholds.drop:g} points of {judged.points} with mean "
            f"gates"
            if measured
            else f"the gates of all its {len(inside)} blocks are nearly constant or saturated (not measured on "
            f"{judged.outputs})"
        )
        advice.append(
            f"Leave SE out of stage {stage} in the next training (stages={{{rest}}}): {why}"
            + (f", and they hold {_percent(saved)} of SE's parameters." if known else ".")
        )
    return advice


def _network_width(blocks: Sequence[Diagnosed], thresholds: Thresholds) -> list[str]:
    """Return advice on the width of the hidden layers of the whole network.

    Excluded are layers of one unit, which cannot be narrower and always have rank 1, and gates with little effect,
    whose rank is the rank of noise.
    """
    wider = [one for one in blocks if (one[2]["hidden_channels"] or 0) > 1 and one[2]["rank"]]
    wider = [one for one in wider if len(one[0].sample_gates) >= thresholds.images]
    known = [(block, figures) for block, _, figures in wider]
    if len(known) < 2:
        return []
    units = sum(int(figures["hidden_channels"] or 0) for _, figures in known)
    unused = sum(float(figures["unused"] or 0) * int(figures["hidden_channels"] or 0) for _, figures in known)
    if unused >= thresholds.unused * units:
        left = round(units - unused)
        return [
            f"Raise r: {_percent(unused / units)} of all {units} hidden units have no effect on the gates; "
            f"{left} would be enough."
        ]
    used = [(block, figures) for block, verdicts, figures in wider if not _LOW_EFFECT & set(verdicts)]
    full = [b.label for b, figures in used if float(figures["rank_share"] or 0) >= _FULL_RANK and not figures["unused"]]
    if len(used) > 1 and 2 * len(full) > len(used):
        return [
            f"Try a lower r: in {len(full)} of {len(used)} blocks the effective rank of the gates is "
            f"{_percent(_FULL_RANK)} or more of what the hidden units allow, and no unit is unused ({_list(full)})."
        ]
    return []


def _folds(figures: Figures, thresholds: Thresholds) -> bool:
    """Return whether `plan_fold` would fold a block within the budget, by its bound."""
    bound = figures.get("ablation_mean_bound")
    return bound is not None and bound <= thresholds.drop


def _change(figures: Figures, judged: Judged) -> str:
    """Describe the change of error when a block is folded, with its bound."""
    bound = figures.get("ablation_mean_bound") or 0.0
    if not bound:
        return f"its gates are the same for every image, so no {judged.outputs[:-1]} changes"
    value = figures.get("ablation_mean_top1") or 0.0
    return (
        f"with mean gates the {judged.name} {judged.verb} by {value:+.2f} points, at most {bound:+.2f} at "
        f"{CONFIDENCE:.0%} confidence"
    )


def _fold_later(figures: Figures, thresholds: Thresholds, judged: Judged) -> str:
    """Advise to fold a block with more images or a larger budget, or to keep it."""
    images, value = int(figures["images"] or 1), figures.get("ablation_mean_top1") or 0.0
    if value >= thresholds.drop:
        return f"Keep it: {_change(figures, judged)}, not within {thresholds.drop:g}."
    return (
        f"To fold it, use more than {images:,} images or a larger budget: {_change(figures, judged)} on these images, "
        f"not within {thresholds.drop:g}."
    )


def _keep(blocks: Sequence[Diagnosed], thresholds: Thresholds, judged: Judged) -> str:
    """Explain that no block folds within the budget, and how many images are needed if there are too few."""
    images = int(next(figures["images"] for _, _, figures in blocks if figures["images"]) or 1)
    smallest = smallest_bound(images, CONFIDENCE)
    undecided = any((figures.get("ablation_mean_top1") or 0.0) < thresholds.drop for _, _, figures in blocks)
    if judged.counts and smallest > thresholds.drop and undecided:
        needed = images_needed(0, 0, images, thresholds.drop, CONFIDENCE)
        remedy = "" if needed is None else f" Use {needed:,} images or more, or a larger budget (--max-drop)."
        return (
            f"No block can be folded within {thresholds.drop:g} points of {judged.points} on {images:,} images: even "
            f"if no prediction changes, the bound is {smallest:.2f} with so few images.{remedy}"
        )
    return (
        f"Keep all {len(blocks)} blocks: none stays within {thresholds.drop:g} points of {judged.points} with mean "
        f"gates at {CONFIDENCE:.0%} confidence."
    )


def _budget_option(thresholds: Thresholds) -> str:
    """Return the budget as an option of the command; "" for the default."""
    return "" if thresholds.drop == MAX_DROP else f" --max-drop {thresholds.drop:g}"


def _is_ablated(figures: Figures) -> bool:
    return "ablation_mean_top1" in figures


def _has_low_effect(verdicts: tuple[str, ...]) -> bool:
    return bool({"constant", "saturated on"} & set(verdicts))


def _is_initial(figures: Figures, thresholds: Thresholds) -> bool:
    distance = figures["start_distance"]
    return distance is not None and distance <= thresholds.start


def _parameters(block: BlockGates) -> int:
    """Return the number of weights of both layers, or of the single layer, without biases."""
    return block.channels * (block.channels if block.hidden_channels is None else 2 * block.hidden_channels)


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.3g} %"


def _list(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
