"""Diagnose a recording: figures, verdicts and advice for each block."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np

from senet.gates.diagnosis.ablation import TOP1, Ablation
from senet.gates.diagnosis.advice import block_advice, network_advice
from senet.gates.diagnosis.analysis import (
    adjusted_eta_squared,
    effective_rank,
    eta_squared,
    f_test,
    hidden_unit_shares,
    saturation,
    scale_share,
    shuffled_rank,
)
from senet.gates.diagnosis.verdicts import VERDICTS, Figures, Thresholds, assign_verdicts
from senet.gates.recording.record import BlockGates, Gates

__all__ = ["VERDICTS", "BlockDiagnosis", "Diagnosis", "Thresholds", "block_figures", "diagnose"]


@dataclass(frozen=True)
class BlockDiagnosis:
    """Diagnosis of one block.

    Attributes:
        name: name of the SE module.
        label: the paper's name, such as "SE_4_6".
        stage: the paper's stage number; None if unknown.
        verdicts: one or more names of `VERDICTS`, the main one first.
        figures: the figures of `block_figures` and of the ablations; None if a figure is undefined.
        reasons: a sentence with figures for each verdict.
        advice: recommendations, each a sentence with the figures it follows from; may be empty.
        ablations: the measured ablations of the block.

    Examples:
        >>> from senet.gates import diagnose
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> block = diagnose(gates).blocks[0]
        >>> block.label, len(block.verdicts) == len(block.reasons)
        ('SE_2_1', True)
    """

    name: str
    label: str
    stage: int | None
    verdicts: tuple[str, ...]
    figures: Figures
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    ablations: tuple[Ablation, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a network's gates.

    Attributes:
        blocks: one diagnosis for each block, in the order of the recording.
        advice: recommendations for the whole network, each a sentence with the figures it follows from.
        thresholds: the thresholds of the verdicts.

    Examples:
        >>> from senet.gates import diagnose
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> diagnosis = diagnose(gates)
        >>> [block.label for block in diagnosis.blocks[:3]], diagnosis.thresholds.images
        (['SE_2_1', 'SE_2_2', 'SE_2_3'], 20)
    """

    blocks: tuple[BlockDiagnosis, ...]
    advice: tuple[str, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values. Numbers that are not finite become None."""
        found: dict[str, Any] = _json_value(asdict(self))
        return found


def diagnose(gates: Gates, ablations: Sequence[Ablation] = (), *, thresholds: Thresholds | None = None) -> Diagnosis:
    """Diagnose each block's gates: verdicts with figures, and advice.

    Args:
        gates: a recording of `senet.record_gates`.
        ablations: the result of `ablate_blocks` for the same network. Without it, the verdict "constant" depends on the
            variation of the gates alone.
        thresholds: the thresholds of the verdicts; by default `Thresholds()`.

    Raises:
        ValueError: SciPy is missing, or `ablations` has a block that the recording does not have.

    Examples:
        >>> from senet.gates import diagnose
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> diagnosis = diagnose(gates)
        >>> len(diagnosis.blocks)
        9
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    names = [block.name for block in gates.blocks]
    unknown = [one.name for one in ablations if one.name not in names]
    if unknown:
        raise ValueError(f"the recording does not have the ablated block {unknown[0]!r}; ablate the recorded network")
    judged = ablations[0].judged if ablations else TOP1
    blocks = []
    for block in gates.blocks:
        own = tuple(one for one in ablations if one.name == block.name)
        figures = block_figures(block, thresholds) | _ablation_figures(own)
        found = assign_verdicts(block, figures, thresholds, judged.outputs)
        verdicts, reasons = tuple(name for name, _ in found), tuple(reason for _, reason in found)
        advice = block_advice(block, verdicts, figures, thresholds, judged)
        blocks.append(
            BlockDiagnosis(
                name=block.name,
                label=block.label,
                stage=block.stage,
                verdicts=verdicts,
                figures=figures,
                reasons=reasons,
                advice=advice,
                ablations=own,
            )
        )
    pairs = [(block, one.verdicts, one.figures) for block, one in zip(gates.blocks, blocks, strict=True)]
    return Diagnosis(tuple(blocks), network_advice(pairs, thresholds, judged), thresholds)


def block_figures(block: BlockGates, thresholds: Thresholds | None = None) -> Figures:
    """Compute the figures of a block, without ablations.

    Returns:
        A dictionary with the keys:

        - channels, hidden_channels, images, classes (with images).
        - mean, minimum, maximum: of all gates.
        - variation: root mean square deviation of the gates over images (and positions), relative to the root mean
          square of the gates.
        - eta_squared_median, eta_squared_total: share of the variance between classes, in the median channel and of the
          summed variance of all channels. eta_squared_adjusted: in the median channel, corrected for chance.
        - channels_by_class: share of the channels in which the means of classes differ by the F test.
        - scale_share: see `scale_share`. cosine: smallest cosine similarity of a class's means with the overall mean.
        - rank: effective rank of the sampled gates. rank_random: the same with shuffled channels. rank_share: rank
          relative to the smaller of rank_random and the number of hidden units.
        - on, off, channels_on, channels_off: see `saturation`. never_on, always_on, unused: see `hidden_unit_shares`.
        - start_distance: largest distance of a gate from its value for input 0, relative to that value.
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
    figures |= asdict(saturation(block, thresholds.margin))
    hidden = None if block.hidden is None else hidden_unit_shares(block.hidden, thresholds.unit)
    figures |= asdict(hidden) if hidden else {"never_on": None, "always_on": None, "unused": None}
    figures["start_distance"] = _start_distance(block)
    return {name: None if value is None or not isfinite(value) else value for name, value in figures.items()}


def _cosine(means: Any, pattern: Any) -> float:
    norms = np.linalg.norm(means, axis=1) * np.linalg.norm(pattern)
    return float((means @ pattern / norms).min()) if len(means) and (norms > 0).all() else nan


# The value of a gate for input 0. Gates with the value 0 are excluded, since 0 could also be a dead gate.
_AT_ZERO = {"sigmoid": 0.5, "hardsigmoid": 0.5}


def _start_distance(block: BlockGates) -> float:
    """Return the largest relative distance of a gate from its value in a block whose last layer is zero."""
    start = _AT_ZERO.get(block.gate.lower(), nan) * block.gain
    return float(max(abs(block.gates.minimum - start).max(), abs(block.gates.maximum - start).max()) / abs(start))


def _ablation_figures(ablations: Sequence[Ablation]) -> Figures:
    """Return ablations as figures: ablation_mean_top1, ablation_mean_top1_low, ..., ablation_mean_bound."""
    figures: Figures = {}
    for one in ablations:
        for key, span in (("top1", one.top1), ("top5", one.top5), ("loss", one.loss)):
            if span is None:
                continue
            figures[f"ablation_{one.by}_{key}"] = span.value
            figures[f"ablation_{one.by}_{key}_low"] = span.low
            figures[f"ablation_{one.by}_{key}_high"] = span.high
        figures[f"ablation_{one.by}_logits"] = one.logits
        figures[f"ablation_{one.by}_bound"] = one.bound
    return {name: None if value is None or not isfinite(value) else value for name, value in figures.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
