"""What the gates of a block are worth: how much worse a network is when they are constant, image by image, measured."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from senet.data import ImageData
from senet.gates.diagnosis.predictions import Outcomes, outcomes
from senet.gates.diagnosis.tango import CONFIDENCE, Interval, change_interval
from senet.gates.recording.batches import Batches
from senet.gates.recording.record import Gates
from senet.gates.recording.statistics import Floats
from senet.utils.errors import unknown_name
from senet.utils.progress import Progress, no_progress

__all__ = [
    "REPLACEMENTS",
    "Difference",
    "Interval",
    "Outcomes",
    "Worth",
    "change_of",
    "changed",
    "measure_worth",
    "outcomes",
    "paired",
]

REPLACEMENTS = ("mean", "one")
# Images drawn at a time in a bootstrap: 16 MB of places and as much of losses.
_DRAWN = 2**21


@dataclass(frozen=True)
class Difference:
    """How another network compares with one on the same images: positive where it is worse.

    Attributes:
        top1, top5: change of the error in percentage points.
        loss: change of the mean cross entropy in nats.
        logits: root mean square of the change of the logits, relative to their own deviation over images. Logits are
            taken less their mean over classes, as a shift of all of them changes nothing.
    """

    top1: Interval
    top5: Interval
    loss: Interval
    logits: float


@dataclass(frozen=True)
class Worth:
    """What the gates of a block are worth: what changes when they are replaced, as in `Difference`.

    Attributes:
        name: of the SE module.
        by: "mean": each channel's gate is replaced by its mean over images; "one": by 1.
        top1, top5: change of the error in percentage points; positive where the network is worse without the gates.
        loss: change of the loss in nats.
        logits: change of the logits relative to their deviation over images.
        bound: upper bound of the change of top-1 error in percentage points, one-sided at 95 %, by which `plan_fold`
            decides as well; 0 where no logit of any image changes, so that there is nothing to bound.
    """

    name: str
    by: str
    top1: Interval
    top5: Interval
    loss: Interval
    logits: float
    bound: float


def measure_worth(
    model: nn.Module,
    loader: Batches | str | ImageData,
    values: Gates | Mapping[str, Tensor],
    *,
    by: str = "mean",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Worth]:
    """Replace the gates of one block at a time, and see what changes on data.

    Args:
        model: a network with SE; as before when this ends.
        loader: batches, as of `record_gates`.
        values: what was recorded of the network; or for each block, by the name of its SE module, its mean gates (C,).
        by: "mean" replaces gates by these means, "one" by 1, which is the block left out.
        resamples: of the bootstrap, see `paired`.
        confidence: of the intervals.
        seed: of the bootstrap.
        progress: shows progress over batches.

    Returns:
        One of each block in `values`, in its order.

    Raises:
        ValueError: an unknown `by`; gates that are not of this network; a number of resamples or a confidence that
            cannot be.
        DataError: no images, or labels that the network has no logit for.
        GatesError: logits are not finite.
    """
    if by not in REPLACEMENTS:
        raise ValueError(unknown_name("replacement of gates", by, REPLACEMENTS))
    check_interval(resamples, confidence)
    if isinstance(values, Gates):
        values = {block.name: torch.from_numpy(block.gates.mean) for block in values.blocks}
    if by == "one":
        values = {name: torch.ones_like(value) for name, value in values.items()}
    before, _, after = outcomes(model, loader, {}, values, progress=progress)
    found = []
    for name in values:
        difference = paired(before, after[name], resamples=resamples, confidence=confidence, seed=seed)
        bound = 0.0 if after[name].same_as(before) else change_of(before, after[name], CONFIDENCE).high
        found.append(Worth(name, by, difference.top1, difference.top5, difference.loss, difference.logits, bound))
    return found


def change_of(before: Outcomes, after: Outcomes, confidence: float) -> Interval:
    """Return the change of the top-1 error in percentage points, with Tango's bounds."""
    return change_interval(*changed(before, after), len(before), confidence)


def changed(before: Outcomes, after: Outcomes) -> tuple[int, int]:
    """How many images became wrong, and how many became right."""
    old, new = before.wrong1, after.wrong1
    return int((new & ~old).sum()), int((old & ~new).sum())


def paired(
    before: Outcomes,
    after: Outcomes,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    one_sided: bool = False,
) -> Difference:
    """Compare outcomes on the same images, by a paired bootstrap over images (Efron and Tibshirani 1993, chapter 13).

    Images are drawn with replacement, each with both of its outcomes, and the ends are percentiles of the mean
    difference. That of errors depends only on how many of the drawn images became wrong and how many right, which is
    multinomial and drawn as such. Where no image changes, the interval has no width, however few images there are.

    Args:
        before, after: of two networks on the same images in the same order.
        resamples: how often images are drawn.
        confidence: share of the resamples within the interval.
        seed: of what is drawn.
        one_sided: whether all of the rest is above `high`, which is then an upper bound, and `low` minus infinity.

    Raises:
        ValueError: other numbers of images, or none; resamples below 1; a confidence that is not between 0 and 1.
    """
    check_interval(resamples, confidence)
    if len(before) != len(after) or not len(before):
        raise ValueError(f"need outcomes on the same images, one or more; got {len(before)} and {len(after)}")
    draw = np.random.default_rng(seed)
    ends = (0.0, confidence) if one_sided else ((1 - confidence) / 2, (1 + confidence) / 2)

    def interval(value: float, drawn: Floats) -> Interval:
        low, high = np.quantile(drawn, ends)
        return Interval(value, -np.inf if one_sided else float(low), float(high))

    errors = []
    for old, new in ((before.wrong1, after.wrong1), (before.wrong5, after.wrong5)):
        worse, better = int((new & ~old).sum()), int((old & ~new).sum())
        shares = np.array([worse, better, len(old) - worse - better]) / len(old)
        counts = draw.multinomial(len(old), shares, resamples)
        errors.append(interval(100 * (worse - better) / len(old), 100 * (counts[:, 0] - counts[:, 1]) / len(old)))
    changes = after.losses - before.losses
    loss = interval(float(changes.mean()), _means(changes, resamples, draw))
    change = float(np.sqrt(after.changes.mean()))
    relative = 0.0 if change == 0 else change / before.spread if before.spread > 0 else np.inf
    return Difference(errors[0], errors[1], loss, relative)


def _means(values: Floats, resamples: int, draw: np.random.Generator) -> Floats:
    """Means of resamples with replacement, as many at a time as fit in little memory."""
    rows = max(1, _DRAWN // len(values))
    parts = []
    for start in range(0, resamples, rows):
        places = draw.integers(0, len(values), (min(rows, resamples - start), len(values)))
        parts.append(values[places].mean(1))
    return np.concatenate(parts)


def check_interval(resamples: int, confidence: float) -> None:
    """Whether there can be such an interval.

    Raises:
        ValueError: there cannot.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"need 1 resample or more and a confidence between 0 and 1, got {resamples} and {confidence}; "
            f"1000 and 0.95 are usual"
        )
