"""What is the matter with each block's gates, with the figures that say so, and what to do about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np

from senet.gates.diagnosis.ablation import Worth
from senet.gates.diagnosis.advice import advise_block, advise_network
from senet.gates.diagnosis.analysis import (
    adjusted_eta_squared,
    effective_rank,
    eta_squared,
    f_test,
    gate_levels,
    hidden_shares,
    scale_share,
    shuffled_rank,
)
from senet.gates.diagnosis.verdicts import VERDICTS, Figures, Thresholds, judge
from senet.gates.recording.record import BlockGates, Gates

__all__ = ["VERDICTS", "BlockDiagnosis", "Diagnosis", "Thresholds", "block_figures", "diagnose"]


@dataclass(frozen=True)
class BlockDiagnosis:
    """What is the matter with one block.

    Attributes:
        name: of the SE module.
        label: the paper's way to call it, such as "SE_4_6".
        stage: the paper's number; None where it is not known.
        verdicts: names of `VERDICTS`, the main one first; never none.
        figures: all that is behind the verdicts, see `block_figures`; None where a figure cannot be had.
        reasons: a sentence for each verdict, in their order, with its figures.
        advice: what to do, each a sentence with the figure from which it follows; may be none.
        worth: what was measured of it.
    """

    name: str
    label: str
    stage: int | None
    verdicts: tuple[str, ...]
    figures: Figures
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    worth: tuple[Worth, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter with the gates of a network.

    Attributes:
        blocks: in the order of the recording.
        advice: for the network as a whole, each a sentence with the figures from which it follows.
        thresholds: by which it was judged.
    """

    blocks: tuple[BlockDiagnosis, ...]
    advice: tuple[str, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)

    def to_json(self) -> dict[str, Any]:
        """Dictionaries, lists, text and numbers, as JSON has them: what is not finite is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def diagnose(gates: Gates, worth: Sequence[Worth] = (), *, thresholds: Thresholds | None = None) -> Diagnosis:
    """Say of each block what its gates do, with the figures behind it, and what to do.

    Args:
        gates: of `senet.record_gates`.
        worth: of `senet.measure_worth` on the same network; without it a block is judged constant by the variation of
            its own gates.
        thresholds: by which to judge; the defaults of `Thresholds` unless given.

    Raises:
        ValueError: SciPy is missing; `worth` is of a block that the recording does not have.
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    names = [block.name for block in gates.blocks]
    strange = [one.name for one in worth if one.name not in names]
    if strange:
        raise ValueError(f"worth is of {strange[0]!r}, which the recording does not have; measure it on this network")
    blocks = []
    for block in gates.blocks:
        own = tuple(one for one in worth if one.name == block.name)
        figures = block_figures(block, thresholds) | _worth_figures(own)
        found = judge(block, figures, thresholds)
        verdicts, reasons = tuple(name for name, _ in found), tuple(reason for _, reason in found)
        advice = advise_block(block, verdicts, figures, thresholds)
        blocks.append(BlockDiagnosis(block.name, block.label, block.stage, verdicts, figures, reasons, advice, own))
    pairs = [(block, one.verdicts, one.figures) for block, one in zip(gates.blocks, blocks, strict=True)]
    return Diagnosis(tuple(blocks), advise_network(pairs, thresholds), thresholds)


def block_figures(block: BlockGates, thresholds: Thresholds | None = None) -> Figures:
    """The figures of a block, without what it is worth.

    Returns:
        channels, hidden_channels, images, classes (with images); mean, minimum and maximum of all gates;
        variation: root mean square of the gates' deviation over images (and positions), over that of the gates;
        eta_squared_median and eta_squared_total: share of the variance between classes, of the middle channel and of
        all channels' variance together; eta_squared_adjusted: of the middle channel, less what is there by chance;
        channels_by_class: share of the channels whose classes differ by the F test; scale_share; cosine: of the means
        of classes with the mean over all images, the smallest; rank: the effective rank of the sample's gates,
        rank_random: of the same with its channels shuffled, rank_share: rank over the smaller of that and the hidden
        units; on, off, channels_on, channels_off, as of `gate_levels`; never_on, always_on, unused, as of
        `hidden_shares`; start_distance: of all gates to what the gate gives for 0, the largest, over the latter.
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    gates = block.gates
    seen = gates.images > 0
    figures: Figures = {
        "channels": block.channels,
        "hidden_channels": block.hidden_channels,
        "images": gates.total,
        "classes": int(seen.sum()),
        "mean": float(gates.mean.mean()),
        "minimum": float(gates.minimum.min()),
        "maximum": float(gates.maximum.max()),
    }
    space = 0.0 if gates.space_variance is None else gates.space_variance
    square = float((np.square(gates.mean) + gates.variance + space).mean())
    figures["variation"] = float(np.sqrt((gates.variance + space).mean() / square)) if square > 0 else 0.0
    eta, total = eta_squared(gates), float((gates.between + gates.within).sum())
    varies = np.isfinite(eta)
    weights = (gates.between + gates.within)[varies]
    figures["eta_squared_median"] = float(np.median(eta[varies])) if varies.any() else nan
    figures["eta_squared_total"] = float(eta[varies] @ weights / weights.sum()) if varies.any() and total else nan
    adjusted = adjusted_eta_squared(gates)
    known = np.isfinite(adjusted)
    figures["eta_squared_adjusted"] = float(np.median(adjusted[known])) if known.any() else nan
    tested = f_test(gates)
    tested = tested[np.isfinite(tested)]
    figures["channels_by_class"] = float((tested < thresholds.significance).mean()) if len(tested) else nan
    figures["scale_share"] = scale_share(gates)
    figures["cosine"] = _cosine(gates.means[seen], gates.mean)
    sample = block.sample_gates
    figures["rank"] = effective_rank(sample) if len(sample) > 1 else nan
    figures["rank_random"] = random = shuffled_rank(sample) if len(sample) > 1 else nan
    most = min(random, block.hidden_channels or random)
    figures["rank_share"] = float(figures["rank"] or 0) / most if most > 0 else nan
    figures |= asdict(gate_levels(block, thresholds.margin))
    hidden = None if block.hidden is None else hidden_shares(block.hidden, thresholds.unit)
    figures |= asdict(hidden) if hidden else {"never_on": None, "always_on": None, "unused": None}
    figures["start_distance"] = _start_distance(block)
    return {name: None if value is None or not isfinite(value) else value for name, value in figures.items()}


def _cosine(means: Any, pattern: Any) -> float:
    norms = np.linalg.norm(means, axis=1) * np.linalg.norm(pattern)
    return float((means @ pattern / norms).min()) if len(means) and (norms > 0).all() else nan


# What a gate gives for 0, where that is not 0 itself: a start at 0 is no start that one could tell from a dead gate.
_AT_ZERO = {"sigmoid": 0.5, "hardsigmoid": 0.5}


def _start_distance(block: BlockGates) -> float:
    """How far the furthest gate is from where blocks with a last layer of zeros have it, relative to that."""
    start = _AT_ZERO.get(block.gate.lower(), nan) * block.gain
    return float(max(abs(block.gates.minimum - start).max(), abs(block.gates.maximum - start).max()) / abs(start))


def _worth_figures(worth: Sequence[Worth]) -> Figures:
    """What was measured, as figures: worth_mean_top1, worth_mean_top1_low, ..., worth_mean_logits, worth_mean_bound."""
    figures: Figures = {}
    for one in worth:
        for key, span in (("top1", one.top1), ("top5", one.top5), ("loss", one.loss)):
            figures[f"worth_{one.by}_{key}"] = span.value
            figures[f"worth_{one.by}_{key}_low"] = span.low
            figures[f"worth_{one.by}_{key}_high"] = span.high
        figures[f"worth_{one.by}_logits"] = one.logits
        figures[f"worth_{one.by}_bound"] = one.bound
    return {name: None if value is None or not isfinite(value) else value for name, value in figures.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
