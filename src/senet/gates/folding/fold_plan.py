"""Define a plan of blocks to fold: its steps, the blocks that are kept, and a summary."""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

from senet.gates.diagnosis.ablation import Judged
from senet.gates.diagnosis.tango import Interval, smallest_bound

__all__ = ["FoldPlan", "FoldStep", "KeptBlock"]


@dataclass(frozen=True)
class FoldStep:
    """A block to fold.

    Attributes:
        name: name of the SE module.
        label: the paper's name, such as "SE_4_6"; `name` if unknown.
        error: change of the error in percentage points, positive where it becomes worse, with this block and those of
            earlier steps folded, against the original network; see `plan_fold` for the interval.
        loss: change of the cross-entropy in nats, likewise; None of a detector.
        params: number of parameters saved by this step.
        macs: number of multiply-adds saved by this step, for one image.
        certain: whether the gates are constant by the weights, so that no measurement was needed.
        unchanged: whether this step changes no logit of any image by one bit.
    """

    name: str
    label: str
    error: Interval
    loss: float | None
    params: int
    macs: int
    certain: bool = False
    unchanged: bool = False


@dataclass(frozen=True)
class KeptBlock:
    """A block to keep.

    Attributes:
        name: name of the SE module.
        label: as in `FoldStep`.
        reason: why it is kept: it cannot be folded exactly, or the budget.
        error: change of the error against the original network, in percentage points, if it were folded after all
            steps; None if it cannot be folded.
        images: number of images that would bring the bound within the budget, if images keep changing at the same rate;
            None if no number would.
    """

    name: str
    label: str
    reason: str
    error: Interval | None = None
    images: int | None = None


@dataclass(frozen=True)
class FoldPlan:
    """A plan of blocks to fold within a budget.

    Attributes:
        steps: the blocks to fold, in the order of selection; empty if no block can be folded.
        kept: the other blocks in the network's order.
        images: number of measured images.
        max_drop: the budget in percentage points.
        confidence: confidence of each bound.
        error: error, or AP, of the original network in percent.
        params: number of parameters of the original network.
        macs: number of multiply-adds of the original network, for one image.
        metric: what decides: "top-1 error", "label error" of a multi-label network, or "AP" of a detector.
        better: whether lower or higher values of it are better.
        method: how the bounds are computed: "tango", the score bound of paired proportions, or "bootstrap".

    Examples:
        >>> from senet.gates import plan_fold
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> plan = plan_fold(model, "photos", gates, max_drop=1, blocks=["layer1.0.bn2.se"])
        >>> plan.images, len(plan.steps) + len(plan.kept)
        (8, 1)
    """

    steps: tuple[FoldStep, ...]
    kept: tuple[KeptBlock, ...]
    images: int
    max_drop: float
    confidence: float
    error: float
    params: int
    macs: int
    metric: str = "top-1 error"
    better: Literal["lower", "higher"] = "lower"
    method: Literal["tango", "bootstrap"] = "tango"

    @property
    def judged(self) -> Judged:
        """What the plan is judged by, for sentences."""
        return Judged.by(self.metric, self.better, self.method)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the names of the SE modules to fold, for the argument `blocks` of `senet.fold_gates`."""
        return tuple(step.name for step in self.steps)

    @property
    def change(self) -> Interval:
        """Return the change of the error by all steps, in percentage points; a fall of AP is positive."""
        return self.steps[-1].error if self.steps else Interval(0.0, 0.0, 0.0)

    @property
    def saved_params(self) -> int:
        """Return the number of parameters that all steps save."""
        return sum(step.params for step in self.steps)

    @property
    def saved_macs(self) -> int:
        """Return the number of multiply-adds that all steps save, for one image."""
        return sum(step.macs for step in self.steps)

    @property
    def summary(self) -> str:
        """Return a summary in one or two lines."""
        if self.steps:
            text = (
                f"{len(self.steps)} of {len(self.steps) + len(self.kept)} blocks fold: {self.change.value:+.2f} "
                f"points of {self.judged.points} on {self.images:,} images, at most {self.change.high:+.2f} at "
                f"{self.confidence:.0%} confidence; {self.saved_params:,} fewer parameters"
            )
        else:
            text = (
                f"no block can be folded within {self.max_drop:g} points of {self.judged.points}; the network is "
                f"unchanged"
            )
        needed = [kept.images for kept in self.kept if kept.images is not None]
        if needed:
            text += (
                f". {self.images:,} images are too few to decide for {len(needed)} of the kept blocks; about "
                f"{min(needed):,} are needed for the next one"
            )
            smallest = smallest_bound(self.images, self.confidence)
            if self.judged.counts and smallest > self.max_drop:
                text += (
                    f". With {self.images:,} images the bound is at least {smallest:.2f} points: use more images, or "
                    f"--max-drop {_rounded_up(smallest):g} or more if that is acceptable"
                )
        caution = self.judged.caution(self.images)
        return f"{text.rstrip('.')}. {caution}" if caution else text

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        found = asdict(self) | {"blocks": list(self.blocks), "change": asdict(self.change), "summary": self.summary}
        found |= {"saved_params": self.saved_params, "saved_macs": self.saved_macs}
        return found | {key: list(found[key]) for key in ("steps", "kept")}


def _rounded_up(points: float) -> float:
    """Round up to two decimals."""
    return ceil(100 * points - 1e-9) / 100
