"""How a network does image by image, with the gates of some blocks replaced by constants."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import ImageData
from senet.evaluation.logits import first_non_finite, label_ranks
from senet.gates.diagnosis.gate_overrides import Replacements
from senet.gates.diagnosis.idle_units import IdleUnits
from senet.gates.diagnosis.partial_runs import Suffixes
from senet.gates.recording.batches import Batches, as_loader, with_progress
from senet.gates.recording.statistics import Counts, Floats
from senet.utils.errors import DataError, NonFiniteGatesError
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["ENOUGH", "Outcomes", "outcomes"]

# Images from which on it is no chance that none of them opens a unit: one that 3 % of images open is seen by 95 %.
ENOUGH = 100


@dataclass(frozen=True)
class Outcomes:
    """How a network did on each of M images.

    Attributes:
        wrong1, wrong5: (M,), whether the class is not the first, or not among the first five, by logit.
        losses: (M,), cross entropy in nats.
        changes: (M,), mean square over classes of the change of an image's logits against the network that this one is
            compared with; 0 of that network itself. Logits are less their mean over classes.
        spread: root mean square of the deviation over images of these logits.
        idle: of a network with one block more replaced, whether that block's hidden units are off and stay so, see
            `senet.gates.diagnosis.idle_units`.
    """

    wrong1: NDArray[np.bool_]
    wrong5: NDArray[np.bool_]
    losses: Floats
    changes: Floats
    spread: float
    idle: bool = False

    def __len__(self) -> int:
        return len(self.losses)

    def same_as(self, other: "Outcomes") -> bool:
        """Whether gates are the same for every image: no logit changes by one bit against the network compared with.

        Of a few images a unit may be off by chance: that counts from `ENOUGH` images on, or if it is `idle`.
        """
        exact = not self.changes.any() and np.array_equal(self.losses, other.losses)
        return exact and (self.idle or len(self) >= ENOUGH)


def outcomes(
    model: nn.Module,
    loader: Batches | str | ImageData,
    fixed: Mapping[str, Tensor],
    candidates: Mapping[str, Tensor],
    *,
    progress: Progress = no_progress,
) -> tuple[Outcomes, Outcomes, dict[str, Outcomes]]:
    """How a network does image by image: as it is, with the gates of some blocks replaced, and with one block more.

    One pass over the data; what is before a block is computed once, see `senet.gates.diagnosis.partial_runs`.

    Args:
        model: a network with SE; as before when this ends.
        loader: batches, as of `record_gates`.
        fixed: by the names of SE modules, constants (C,) for their gates.
        candidates: the same of other SE modules, of which one at a time is replaced beside those of `fixed`.
        progress: shows progress over batches.

    Returns:
        Those of the network as it is; those with `fixed`, whose logits are compared with those of the first; and by
        the names of `candidates` those with one more, whose logits are compared with those of the second.

    Raises:
        ValueError: constants that are not of this network, or a block that is in both.
        DataError: no images, or labels that the network has no logit for.
        NonFiniteGatesError: logits are not finite.
    """
    both = sorted(set(fixed) & set(candidates))
    if both:
        raise ValueError(f"{both[0]!r} is fixed already: take it out of the candidates")
    replacements, watched = Replacements(model, {**fixed, **candidates}), IdleUnits(model, candidates)
    variants: dict[str, list[str]] = {f"+{name}": [*fixed, name] for name in candidates}
    if fixed:
        variants["as it is"] = []
    whole, base = _Collected(), _Collected()
    others = {name: _Collected() for name in candidates}
    with evaluating(model):
        runs = Suffixes(model)
        with replacements.attached(), watched.attached():
            for batch in with_progress(as_loader(model, loader, progress=progress), model, progress, "replace gates"):
                labels, places = batch.labels, batch.indices
                logits, found = runs.logits(batch.images, replacements, list(fixed), variants)
                first = found["as it is"] if fixed else logits
                whole.add(first, labels, first, places, "")
                base.add(logits, labels, first, places, "with the gates replaced")
                for name, collected in others.items():
                    collected.add(found[f"+{name}"], labels, logits, places, f"with the gates of {name!r} replaced")
    if not whole.losses:
        raise DataError("there are no images: give data that has some")
    idle = watched.idle()
    each = {name: replace(one.outcomes(), idle=name in idle) for name, one in others.items()}
    return whole.outcomes(), base.outcomes(), each


class _Collected:
    """Outcomes of batches, as they come."""

    def __init__(self) -> None:
        self.wrong1: list[Tensor] = []
        self.wrong5: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.changes: list[Tensor] = []
        # Of the logits: images, mean (K,) and sum of squared deviations from it, merged batch by batch (Chan et al.).
        self.images, self.squares = 0, 0.0
        self.mean = torch.zeros(())

    def add(self, logits: Tensor, labels: Tensor, reference: Tensor, places: Counts, how: str) -> None:
        """Add a batch.

        Args:
            logits: (N, K).
            labels: (N,).
            reference: (N, K), logits to compare with.
            places: (N,), of the images in the data.
            how: what was done to the network, for messages; "" if nothing.
        """
        if logits.ndim != 2:
            raise DataError(f"the network gives {tuple(logits.shape)}, and no logits (N, K); give a classifier")
        classes = logits.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            wrong = int(labels.max()) if int(labels.max()) >= classes else int(labels.min())
            raise DataError(f"a label is {wrong}, and the network has {classes} classes: labels must be below that")
        bad = first_non_finite(logits)
        if bad is not None:
            raise NonFiniteGatesError(
                f"logits {f'{how} ' if how else ''}are not finite, first for image {int(places[bad])} of the data: "
                "look for NaN in the weights and in that image"
            )
        values, others = logits.double().cpu(), reference.double().cpu()
        ranks = label_ranks(values, labels)
        self.wrong1.append(ranks >= 1)
        self.wrong5.append(ranks >= 5)
        self.losses.append(F.cross_entropy(values, labels, reduction="none"))
        values, others = values - values.mean(1, keepdim=True), others - others.mean(1, keepdim=True)
        self.changes.append((values - others).square().mean(1))
        count, mean = len(values), values.mean(0)
        total = self.images + count
        step = mean - self.mean
        self.squares += float((values - mean).square().sum() + step.square().sum() * self.images * count / total)
        self.mean = self.mean + step * count / total
        self.images = total

    def outcomes(self) -> Outcomes:
        """Of all batches."""
        wrong1, wrong5, losses, changes = (
            torch.cat(parts).numpy() for parts in (self.wrong1, self.wrong5, self.losses, self.changes)
        )
        spread = float(np.sqrt(self.squares / (self.images * self.mean.numel())))
        return Outcomes(wrong1, wrong5, losses, changes, spread)
