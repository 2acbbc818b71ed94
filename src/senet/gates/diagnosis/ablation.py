"""Ablate SE blocks: replace the gates of a block by constants and measure the change of the predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import ImageData
from senet.gates.diagnosis.predictions import AnyPredictions, Predictions, predict_with_overrides
from senet.gates.diagnosis.set_predictions import FEW_IMAGES, RESAMPLES, SetPredictions
from senet.gates.diagnosis.tango import CONFIDENCE, Interval, change_interval
from senet.gates.recording.batches import Batches
from senet.gates.recording.record import Gates
from senet.gates.recording.statistics import Floats
from senet.utils.arguments import argument_name
from senet.utils.bootstrap import percentile_interval, resampled_statistics
from senet.utils.choices import Replacement, check_choice
from senet.utils.progress import Progress, no_progress

__all__ = [
    "TOP1",
    "Ablation",
    "Interval",
    "Judged",
    "ablate_blocks",
    "check_interval",
    "compare_predictions",
    "count_changes",
    "error_change",
    "is_identical",
    "loss_change",
]


@dataclass(frozen=True)
class Ablation:
    """Change of a network's predictions when the gates of a block are replaced by constants. Positive is worse.

    The errors of a detector are AP and AP50; a fall of AP is positive.

    Attributes:
        name: name of the SE module.
        by: "mean" replaces each channel's gate by its mean over images, "one" by 1.
        top1, top5: change of the errors in percentage points.
        loss: change of the mean cross-entropy in nats; None of a detector.
        logits: root mean square change of the logits, relative to their standard deviation over images. The mean over
            classes is subtracted from logits first, since a common offset does not change the prediction. Of a
            detector these are the maps of its feature pyramid, over images and positions.
        bound: upper bound of the change of the first error in percentage points, one-sided at 95 %. `plan_fold` uses
            the same bound. It is 0 if no logit of any image changes, because then no bound is needed.
        errors: names of the two errors: top-1 and top-5 of a classifier; of a multi-label network label and image
            error, the shares of wrong labels and of images with a wrong label; of a detector AP and AP50.
        better: whether lower or higher values of them are better.
        method: how `bound` is computed: "tango", the score bound of paired proportions, or "bootstrap".

    Examples:
        >>> from senet.gates import ablate_blocks
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> first = ablate_blocks(model, "photos", gates)[0]
        >>> first.name, first.by, first.top1.low <= first.top1.high
        ('layer1.0.bn2.se', 'mean', True)
    """

    name: str
    by: Replacement
    top1: Interval
    top5: Interval
    loss: Interval | None
    logits: float
    bound: float
    errors: tuple[str, str] = ("top-1 error", "top-5 error")
    better: Literal["lower", "higher"] = "lower"
    method: Literal["tango", "bootstrap"] = "tango"

    @property
    def judged(self) -> "Judged":
        """What the ablation is judged by, for sentences."""
        return Judged.by(self.errors[0], self.better, self.method)


@dataclass(frozen=True)
class Judged:
    """What gates are judged by, for sentences.

    Attributes:
        name: of the metric, such as "top-1 error".
        points: what points of its change are of: "top-1 error", or "AP lost".
        verb: of its change for the worse: "changes", or "drops".
        outputs: what else of the network is compared: "logits", or "feature maps".
        counts: whether it is a mean over images, whose bound depends on their number even if no prediction changes.
    """

    name: str = "top-1 error"
    points: str = "top-1 error"
    verb: str = "changes"
    outputs: str = "logits"
    counts: bool = True

    @classmethod
    def by(cls, name: str, better: str, method: str) -> "Judged":
        """Return what is judged by a metric, from the fields of an `Ablation`."""
        higher, counts = better == "higher", method == "tango"
        return cls(
            name=name,
            points=f"{name} lost" if higher else name,
            verb="drops" if higher else "changes",
            outputs="logits" if counts else "feature maps",
            counts=counts,
        )

    def caution(self, images: int) -> str:
        """Return why the bounds are too narrow with so few images; "" if they are not."""
        if self.counts or images >= FEW_IMAGES:
            return ""
        return (
            f"Bounds of {self.name} are too narrow with {images:,} image{'s' * (images != 1)}: use {FEW_IMAGES} or "
            f"more before removing a block."
        )


# A classifier.
TOP1 = Judged()


def ablate_blocks(
    model: nn.Module,
    loader: Batches | str | ImageData,
    values: Gates | Mapping[str, Tensor],
    *,
    by: Replacement = "mean",
    resamples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[Ablation]:
    """Replace the gates of one block at a time by constants, and measure the change on data.

    Args:
        model: a network with SE. It is unchanged afterwards.
        loader: batches, as for `record_gates`.
        values: a recording of the network; or the mean gates (C,) of each block, by the name of its SE module.
        by: "mean" replaces gates by these means, "one" by 1, which disables the block.
        resamples: number of bootstrap resamples, see `compare_predictions`; 1000 by default, and 200 of a detector,
            whose AP is computed anew for each.
        confidence: confidence level of the intervals.
        seed: seed of the bootstrap.
        progress: progress display over batches.

    Returns:
        One ablation for each block in `values`, in the same order.

    Raises:
        ValueError: an unknown `by`; gates of another network; an invalid number of resamples or confidence.
        DataError: there are no images, or a label has no logit.
        GatesError: logits are not finite.

    Examples:
        >>> from senet.gates import ablate_blocks
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> ablations = ablate_blocks(model, "photos", gates, by="one")
        >>> len(ablations) == len(gates.blocks)
        True
    """
    check_choice("replacement of gates", by, Replacement)
    check_interval(1 if resamples is None else resamples, confidence)
    if isinstance(values, Gates):
        values = {block.name: torch.from_numpy(block.gates.mean) for block in values.blocks}
    if by == "one":
        values = {name: torch.ones_like(value) for name, value in values.items()}
    before, _, after = predict_with_overrides(model, loader, {}, values, progress=progress)
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    return [compare_predictions(name, by, before, after[name], **options) for name in values]  # type: ignore[arg-type]


def error_change(before: AnyPredictions, after: AnyPredictions, confidence: float) -> Interval:
    """Return the change of the first error in percentage points, with Tango's bounds; of a detector by the bootstrap.

    Changes of shares of an image's decisions are added up. The bounds are then conservative: of all changes from -1 to
    1 with the same sums of rises and falls, whole ones have the largest variance.
    """
    if isinstance(before, SetPredictions) and isinstance(after, SetPredictions):
        return before.changes_to(after, RESAMPLES, confidence, seed=0)[0]
    assert isinstance(before, Predictions)
    assert isinstance(after, Predictions)
    return change_interval(*count_changes(before, after), len(before), confidence)


def loss_change(before: AnyPredictions, after: AnyPredictions) -> float | None:
    """Return the change of the mean cross-entropy in nats; None of a detector."""
    if isinstance(before, Predictions) and isinstance(after, Predictions):
        return float((after.losses - before.losses).mean())
    return None


def is_identical(after: AnyPredictions, before: AnyPredictions) -> bool:
    """Return whether gates do not depend on the image, see `Predictions.is_identical`."""
    if isinstance(before, SetPredictions) and isinstance(after, SetPredictions):
        return after.is_identical()
    assert isinstance(before, Predictions)
    assert isinstance(after, Predictions)
    return after.is_identical(before)


def count_changes(before: Predictions, after: Predictions) -> tuple[float, float]:
    """Return how many images became wrong and how many became right, by the first error; sums of shares add up."""
    return _rises_and_falls(before.wrong1, after.wrong1)


def _rises_and_falls(old: NDArray[Any], new: NDArray[Any]) -> tuple[float, float]:
    change = new.astype(np.float64) - old
    return float(change.clip(min=0).sum()), float((-change).clip(min=0).sum())


def compare_predictions(
    name: str,
    by: Replacement,
    before: AnyPredictions,
    after: AnyPredictions,
    *,
    resamples: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    one_sided: bool = False,
) -> Ablation:
    """Compare predictions on the same images, with intervals from a paired bootstrap over images.

    The ends of an interval are percentiles of the mean difference over resamples. The difference of errors depends
    only on how many resampled images became wrong and how many became right. These counts are multinomial and drawn
    directly; shares of wrong labels are resampled. If no image changes, the interval has zero width, however few
    images there are.

    Args:
        name: name of the ablated SE module.
        by: what replaced its gates.
        before, after: predictions of two networks on the same images in the same order.
        resamples: number of resamples; by default 1000, and 200 of a detector, whose intervals are those of a normal
            distribution with the standard error of the resamples.
        confidence: confidence level of the intervals.
        seed: seed of the bootstrap.
        one_sided: whether `high` is an upper bound at this confidence, with `low` at minus infinity.

    Raises:
        ValueError: different numbers of images, or none; resamples below 1; a confidence not between 0 and 1.
    """
    check_interval(1 if resamples is None else resamples, confidence)
    if len(before) != len(after) or not len(before):
        raise ValueError(f"expected predictions on the same images, 1 or more; got {len(before)} and {len(after)}")
    if isinstance(before, SetPredictions) and isinstance(after, SetPredictions):
        return _compare_sets(name, by, before, after, resamples or RESAMPLES, confidence, seed, one_sided)
    assert isinstance(before, Predictions)
    assert isinstance(after, Predictions)
    resamples = 1000 if resamples is None else resamples
    generator = np.random.default_rng(seed)

    def interval(value: float, distribution: Floats) -> Interval:
        return Interval(value, *percentile_interval(distribution, confidence, one_sided=one_sided))

    errors = []
    for old, new in ((before.wrong1, after.wrong1), (before.wrong5, after.wrong5)):
        worse, better = _rises_and_falls(old, new)
        value = 100 * (worse - better) / len(old)
        if old.dtype == bool:
            shares = np.array([worse, better, len(old) - worse - better]) / len(old)
            counts = generator.multinomial(len(old), shares, resamples)
            errors.append(interval(value, 100 * (counts[:, 0] - counts[:, 1]) / len(old)))
        else:
            errors.append(interval(value, resampled_statistics(100 * (new - old), np.mean, resamples, generator)))
    changes = after.losses - before.losses
    loss = interval(float(changes.mean()), resampled_statistics(changes, np.mean, resamples, generator))
    relative = _relative_change(before, after)
    bound = 0.0 if after.is_identical(before) else error_change(before, after, CONFIDENCE).high
    return Ablation(
        name=name,
        by=by,
        top1=errors[0],
        top5=errors[1],
        loss=loss,
        logits=relative,
        bound=bound,
        errors=before.errors,
        better=before.better,
    )


def _compare_sets(
    name: str,
    by: Replacement,
    before: SetPredictions,
    after: SetPredictions,
    resamples: int,
    confidence: float,
    seed: int,
    one_sided: bool,
) -> Ablation:
    """Compare predictions that are judged together, see `compare_predictions`."""
    resamples = max(2, resamples)
    level = confidence if one_sided else (1 + confidence) / 2
    first, second = before.changes_to(after, resamples, level, seed)
    if one_sided:
        first, second = replace(first, low=-np.inf), replace(second, low=-np.inf)
    bound = 0.0 if after.is_identical() else error_change(before, after, CONFIDENCE).high
    return Ablation(
        name=name,
        by=by,
        top1=first,
        top5=second,
        loss=None,
        logits=_relative_change(before, after),
        bound=bound,
        errors=before.errors,
        better=before.better,
        method="bootstrap",
    )


def _relative_change(before: AnyPredictions, after: AnyPredictions) -> float:
    """Return the root mean square change of the outputs relative to their standard deviation."""
    change = float(np.sqrt(after.changes.mean()))
    return 0.0 if change == 0 else change / before.deviation if before.deviation > 0 else np.inf


def check_interval(resamples: int, confidence: float) -> None:
    """Check the options of a bootstrap interval.

    Raises:
        ValueError: fewer than 1 resample, or a confidence not between 0 and 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, such as 1000, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"{argument_name('confidence')} must be between 0 and 1, such as 0.95, got {confidence}")
