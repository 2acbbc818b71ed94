"""Predict image by image with the gates of some blocks overridden by constants."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import ImageData, Loader
from senet.evaluation.logits import first_non_finite
from senet.gates.diagnosis.gate_overrides import GateOverrides
from senet.gates.diagnosis.idle_units import MIN_IMAGES, IdleUnits
from senet.gates.diagnosis.partial_runs import PartialRuns
from senet.gates.diagnosis.set_predictions import SetPredictions
from senet.gates.recording.batches import Batch, Batches, as_loader, with_progress
from senet.gates.recording.statistics import Floats
from senet.tasks import Collector, Task, task_of
from senet.utils.errors import DataError, NonFiniteError, NonFiniteGatesError
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["AnyPredictions", "Predictions", "predict_with_overrides"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of a network for each of M images.

    Attributes:
        wrong1, wrong5: (M,), whether the label is not the first, or not among the first five classes by logit. Of a
            multi-label network the share of wrong labels, and whether there is one.
        losses: (M,), cross-entropy in nats.
        changes: (M,), mean square change of an image's logits over classes, against the reference network; 0 for the
            reference itself. The mean over classes is subtracted from logits first.
        deviation: root mean square over classes of the standard deviation of these logits over images.
        idle: for a network with one more block overridden, whether this block's hidden units are idle, see
            `senet.gates.diagnosis.idle_units`.
        errors: names of the two errors.
        better: whether lower or higher values of them are better.
    """

    wrong1: NDArray[np.bool_] | Floats
    wrong5: NDArray[np.bool_] | Floats
    losses: Floats
    changes: Floats
    deviation: float
    idle: bool = False
    errors: tuple[str, str] = ("top-1 error", "top-5 error")
    better: Literal["lower", "higher"] = "lower"

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def judged(self) -> tuple[float, float]:
        """The two errors of all images, in percent."""
        return 100 * float(self.wrong1.mean()), 100 * float(self.wrong5.mean())

    def is_identical(self, other: "Predictions") -> bool:
        """Return whether gates do not depend on the image: no logit differs by one bit from the reference network.

        In a small sample a unit may be inactive by chance. Hence this needs `MIN_IMAGES` images, or an `idle` block.
        """
        exact = not self.changes.any() and np.array_equal(self.losses, other.losses)
        return exact and (self.idle or len(self) >= MIN_IMAGES)


# Predictions that are judged one by one, or as a set.
AnyPredictions = Predictions | SetPredictions


def predict_with_overrides(
    model: nn.Module,
    loader: Batches | str | ImageData,
    fixed: Mapping[str, Tensor],
    candidates: Mapping[str, Tensor],
    *,
    progress: Progress = no_progress,
) -> tuple[AnyPredictions, AnyPredictions, dict[str, AnyPredictions]]:
    """Predict with the original gates, with some blocks overridden, and with one more block overridden at a time.

    This takes one pass over the data. Layers before a block run once, see `senet.gates.diagnosis.partial_runs`; a
    detector runs as a whole each time.

    Args:
        model: a network with SE. It is unchanged afterwards.
        loader: batches, as for `record_gates`.
        fixed: constant gates (C,) by the names of SE modules, overridden together.
        candidates: constant gates of other SE modules; one at a time is overridden in addition to `fixed`.
        progress: progress display over batches.

    Returns:
        Predictions of the original network; predictions with `fixed`, whose reference is the first; and by the names of
        `candidates` the predictions with one more, whose reference is the second.

    Raises:
        ValueError: constants of another network, or a block in both mappings.
        DataError: there are no images, or a label has no logit.
        NonFiniteGatesError: logits are not finite.
    """
    both = sorted(set(fixed) & set(candidates))
    if both:
        raise ValueError(f"{both[0]!r} is already fixed; remove it from the candidates")
    overrides, idle_units = GateOverrides(model, {**fixed, **candidates}), IdleUnits(model, candidates)
    variants: dict[str, list[str]] = {f"+{name}": [*fixed, name] for name in candidates}
    if fixed:
        variants["original"] = []
    task, batches = task_of(model), as_loader(model, loader, progress=progress)
    data = batches.data if isinstance(batches, Loader) else None
    original, base = _accumulator(task, data), _accumulator(task, data)
    others = {name: _accumulator(task, data) for name in candidates}
    empty = True
    with evaluating(model):
        runs = PartialRuns(model) if isinstance(original, _Accumulator) else _WholeRuns(model, task)
        with overrides.attached(), idle_units.attached():
            for batch in with_progress(batches, model, progress, "ablate blocks"):
                if isinstance(runs, PartialRuns):
                    outputs, found = runs.logits(batch.images, overrides, list(fixed), variants)
                else:
                    outputs, found = runs.outputs(batch, overrides, list(fixed), variants)
                first = found["original"] if fixed else outputs
                original.add(batch, first, first, "")
                base.add(batch, outputs, first, "with constant gates")
                for name, one in others.items():
                    one.add(batch, found[f"+{name}"], outputs, f"with constant gates of {name!r}")
                empty = False
    if empty:
        raise DataError("the data has no images; give data with images")
    idle = idle_units.idle()
    each = {name: replace(one.predictions(), idle=name in idle) for name, one in others.items()}
    return original.predictions(), base.predictions(), each


class _WholeRuns:
    """Runs of a network of a task, each as a whole.

    Args:
        model: in evaluation mode.
        task: its task.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        self._model, self._task = model, task

    @torch.no_grad()
    def outputs(
        self,
        batch: Batch,
        overrides: GateOverrides,
        active: Collection[str],
        variants: Mapping[str, Collection[str]],
    ) -> tuple[Any, dict[str, Any]]:
        """Return the outputs of the network and of its variants, see `PartialRuns.logits`."""

        def run(names: Collection[str], how: str) -> Any:
            overrides.active = names
            try:
                return self._task.run(self._model, batch.images, batch.pixels, batch.targets)
            except NonFiniteError as error:
                raise NonFiniteGatesError(
                    f"{error}{how}, in the batch from image {int(batch.indices[0])} of the data on"
                ) from error

        found = {name: run(names, f" with constant gates ({name})") for name, names in variants.items()}
        return run(active, " with constant gates" if active else ""), found


def _accumulator(task: Task, data: ImageData | None) -> "_Accumulator | _SetAccumulator":
    collector = task.collector(data)
    return _Accumulator(task) if collector is None else _SetAccumulator(task, collector)


class _SetAccumulator:
    """Collects what a network returns where metrics are not means over images."""

    def __init__(self, task: Task, collector: Collector) -> None:
        self._task, self._collector = task, collector

    def add(self, batch: Batch, outputs: Any, reference: Any, how: str) -> None:
        """Add a batch; `how` as for `_Accumulator.add`."""
        self._collector.add(outputs, reference, batch.indices)

    def predictions(self) -> SetPredictions:
        """Return the predictions of all batches."""
        return SetPredictions(self._collector, self._task.judged)


class _Accumulator:
    """Collects predictions batch by batch."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.wrong1: list[Tensor] = []
        self.wrong5: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.changes: list[Tensor] = []
        # Of the logits: images, mean (K,) and sum of squared deviations, merged batch by batch (Chan et al.).
        self.images, self.squares = 0, 0.0
        self.mean = torch.zeros(())

    def add(self, batch: Batch, logits: Tensor, reference: Tensor, how: str) -> None:
        """Add a batch.

        Args:
            batch: the images.
            logits: (N, K).
            reference: (N, K), logits of the reference network.
            how: how the network was modified, for messages; "" if it was not.
        """
        if logits.ndim != 2:
            raise DataError(f"expected logits (N, K) from the network, got {tuple(logits.shape)}; give a classifier")
        bad = first_non_finite(logits)
        if bad is not None:
            raise NonFiniteGatesError(
                f"logits {f'{how} ' if how else ''}are not finite, first for image {int(batch.indices[bad])} of the "
                f"data; check the weights and this image for NaN"
            )
        values, others = logits.double().cpu(), reference.double().cpu()
        outcomes = self._task.outcomes(values, batch.targets)
        self.wrong1.append(outcomes.errors[0])
        self.wrong5.append(outcomes.errors[1])
        self.losses.append(outcomes.losses)
        values, others = values - values.mean(1, keepdim=True), others - others.mean(1, keepdim=True)
        self.changes.append((values - others).square().mean(1))
        count, mean = len(values), values.mean(0)
        total = self.images + count
        step = mean - self.mean
        self.squares += float((values - mean).square().sum() + step.square().sum() * self.images * count / total)
        self.mean = self.mean + step * count / total
        self.images = total

    def predictions(self) -> Predictions:
        """Return the predictions of all batches."""
        wrong1, wrong5, losses, changes = (
            torch.cat(parts).numpy() for parts in (self.wrong1, self.wrong5, self.losses, self.changes)
        )
        deviation = float(np.sqrt(self.squares / (self.images * self.mean.numel())))
        first, second = (metric.name for metric in self._task.judged)
        return Predictions(wrong1, wrong5, losses, changes, deviation, errors=(first, second))
