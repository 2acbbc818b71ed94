"""Which SE blocks can be folded within a budget of error, measured on data: greedy, and measured again after each.

fixed = {}                                                # blocks whose gates are constant
while blocks are left:
    measure the network with fixed, and with each other block's gates constant as well, one at a time
    # a block whose gates are the same for every image changes no logit: its bound is that of fixed
    best = the block with the lowest upper bound of the change of error against the original network
    if that bound is above the budget: stop
    fixed += best
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet.costs.cost import Cost, cost
from senet.data import ImageData
from senet.gates.diagnosis.ablation import count_changes, error_change
from senet.gates.diagnosis.predictions import Predictions, predict_with_overrides
from senet.gates.diagnosis.tango import CONFIDENCE, MAX_DROP, Interval, change_interval, images_needed, smallest_bound
from senet.gates.folding.fold import can_fold, check_gates, fixed_gates, take_out
from senet.gates.recording.batches import Batches, as_loader
from senet.gates.recording.record import Gates
from senet.graph.example_inputs import Example, example_image, split_example
from senet.graph.se_modules import find_se
from senet.utils.progress import Progress, no_progress

__all__ = ["FoldPlan", "FoldStep", "KeptBlock", "check_budget", "plan_fold"]


@dataclass(frozen=True)
class FoldStep:
    """A block that is folded.

    Attributes:
        name: of the SE module.
        label: the paper's way to call it, such as "SE_4_6"; its name where that is not known.
        error: change of the top-1 error against the original network with this block and all before it folded, in
            percentage points; see `plan_fold` for the interval.
        loss: change of the cross-entropy likewise, in nats.
        params: parameters saved by this step.
        macs: multiply-adds saved by it, for one image.
        certain: the block's gates cannot vary, by its weights, so that nothing had to be measured.
        unchanged: no logit of any image changes by this step, bit for bit: nothing that was measured can change.
    """

    name: str
    label: str
    error: Interval
    loss: float
    params: int
    macs: int
    certain: bool = False
    unchanged: bool = False


@dataclass(frozen=True)
class KeptBlock:
    """A block that stays.

    Attributes:
        name: of the SE module.
        label: as in `FoldStep`.
        reason: why: it cannot be folded exactly, or the budget.
        error: change of the top-1 error against the original network, in percentage points, if it were folded after
            all steps; None where it cannot be folded.
        images: with how many images the bound would be within the budget, if images went on to change as in those that
            were seen; None where no number would do.
    """

    name: str
    label: str
    reason: str
    error: Interval | None = None
    images: int | None = None


@dataclass(frozen=True)
class FoldPlan:
    """What can be folded within a budget.

    Attributes:
        steps: in the order in which they were chosen; empty where nothing can be folded.
        kept: the other blocks, in the network's order.
        images: that were measured.
        max_drop: the budget, in percentage points of top-1 error.
        confidence: of each bound.
        error: of the network as it is, top-1, in percent.
        params: of the network as it is.
        macs: of the network as it is, for one image.
    """

    steps: tuple[FoldStep, ...]
    kept: tuple[KeptBlock, ...]
    images: int
    max_drop: float
    confidence: float
    error: float
    params: int
    macs: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the SE modules to fold: `blocks` of `senet.fold_gates`."""
        return tuple(step.name for step in self.steps)

    @property
    def change(self) -> Interval:
        """Change of the top-1 error by all steps together, in percentage points."""
        return self.steps[-1].error if self.steps else Interval(0.0, 0.0, 0.0)

    @property
    def saved_params(self) -> int:
        """Parameters that all steps save."""
        return sum(step.params for step in self.steps)

    @property
    def saved_macs(self) -> int:
        """Multiply-adds that all steps save, for one image."""
        return sum(step.macs for step in self.steps)

    @property
    def summary(self) -> str:
        """What comes of it, in a line or two."""
        if self.steps:
            text = (
                f"{len(self.steps)} of {len(self.steps) + len(self.kept)} blocks fold: {self.change.value:+.2f} "
                f"points of top-1 error on {self.images:,} images, at most {self.change.high:+.2f} at "
                f"{self.confidence:.0%} confidence; {self.saved_params:,} parameters fewer"
            )
        else:
            text = f"no block can be folded within {self.max_drop:g} points of top-1 error: the network stays as it is"
        needed = [kept.images for kept in self.kept if kept.images is not None]
        if needed:
            text += (
                f". {self.images:,} images are too few to tell for {len(needed)} of the blocks that stay; "
                f"about {min(needed):,} would be needed for the next one"
            )
            least = smallest_bound(self.images, self.confidence)
            if least > self.max_drop:
                text += (
                    f". {self.images:,} images cannot prove less than {least:.2f} points: fold on more images, or give "
                    f"--max-drop {_rounded_up(least):g} or more, if you can afford as much"
                )
        return text

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it: objects, lists, numbers, text and None."""
        found = asdict(self) | {"blocks": list(self.blocks), "change": asdict(self.change), "summary": self.summary}
        found |= {"saved_params": self.saved_params, "saved_macs": self.saved_macs}
        return found | {key: list(found[key]) for key in ("steps", "kept")}


def check_budget(max_drop: float, confidence: float) -> None:
    """Refuse a budget or a confidence that is none, before anything is recorded.

    Args:
        max_drop: percentage points of top-1 error that may be lost.
        confidence: of the upper bound.

    Raises:
        ValueError: a budget below 0 or of 100 or more, or a confidence outside 0.5 to 1.
    """
    if not 0 <= max_drop < 100:
        raise ValueError(
            f"max_drop must be percentage points of top-1 error from 0 to 100, such as 0.2, got {max_drop}"
        )
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must lie between 0.5 and 1, such as 0.95, got {confidence}")


def plan_fold(
    model: nn.Module,
    loader: Batches | str | ImageData,
    gates: Gates | Mapping[str, Tensor],
    *,
    max_drop: float = MAX_DROP,
    confidence: float = CONFIDENCE,
    blocks: Collection[str] | None = None,
    example: Example | None = None,
    progress: Progress = no_progress,
) -> FoldPlan:
    """Choose blocks to fold, so that the top-1 error does not rise by more than a budget; nothing is folded yet.

    Greedy, see this module's first lines. What is compared with the budget is not the measured change, but its upper
    bound against the original network, over the same images: Tango's score bound for the difference of paired
    proportions (Statistics in Medicine 17, 1998), one-sided at `confidence`. It is z^2 / (n + z^2) and not 0 where no
    image of n changed, unlike a bootstrap's, so that few images do not pass for proof. An interval's lower end is the
    bound from the other side.

    Each bound holds for one set of blocks. That the lowest of several is taken is not corrected for: with b blocks up
    to b (b + 1) / 2 sets are looked at, and the chosen one looks better than it is by part of the noise. Where that
    matters, measure the folded network on images that were not used here.

    Two kinds of blocks need no bound. Gates that cannot vary, by the weights (see `fixed_gates`), are folded without
    measuring. And where gates are the same for every image, so that no logit changes by one bit, nothing that a bound
    is about changes; that further images are like these is assumed, as in all that is measured.

    Args:
        model: a network with SE; left as it is.
        loader: what is measured, as for `senet.record_gates`; gone through once for each block that is folded.
        gates: whose means are folded, as for `senet.fold_gates`.
        max_drop: the budget, in percentage points of top-1 error: 0.2 is 76.0 % to 75.8 % accuracy.
        confidence: of each bound, between 0.5 and 1.
        blocks: names of SE modules to choose from; all in `gates` unless given.
        example: an input of the network, as for `senet.fold_gates`.
        progress: shows progress.

    Returns:
        The plan; `senet.fold_gates(model, gates, blocks=plan.blocks)` carries it out. The same data give the same plan.

    Raises:
        GatesError: a network without SE; an unknown block; gates of another network, or not finite.
        ValueError: a budget below 0, or a confidence that is none.
        DataError: there are no images, or labels that the network has no logit for.
    """
    check_budget(max_drop, confidence)
    values = check_gates(model, gates, blocks)
    labels = _labels(model, gates)
    reasons = can_fold(model, values, example=example)
    kept = {name: KeptBlock(name, labels[name], reasons[name]) for name in values if reasons[name]}
    left = {name: value for name, value in values.items() if not reasons[name]}
    size = _input_size(model, example)
    costs = _Costs(model, size)
    fixed = {name: left.pop(name) for name in fixed_gates(model, left)}
    nothing = Interval(0.0, 0.0, 0.0)
    steps = [FoldStep(name, labels[name], nothing, 0.0, *costs.saved_by(name), certain=True) for name in fixed]
    batches = as_loader(model, loader, progress=progress)
    original: Predictions | None = None
    while left or original is None:
        original, base, candidates = predict_with_overrides(model, batches, fixed, left, progress=progress)
        if not left:
            break
        now = steps[-1].error if steps else nothing
        same = {name for name in left if candidates[name].is_identical(base)}
        found = {n: now if n in same else error_change(original, candidates[n], confidence) for n in left}
        losses = {name: float((candidates[name].losses - original.losses).mean()) for name in left}
        best = min(left, key=lambda name: (found[name].high, losses[name]))
        if found[best].high > max_drop:
            for name in left:
                block = KeptBlock(name, labels[name], "")
                kept[name] = _over_budget(block, original, candidates[name], max_drop, confidence)
            break
        saved = costs.saved_by(best)
        steps.append(FoldStep(best, labels[best], found[best], losses[best], *saved, unchanged=best in same))
        fixed[best] = left.pop(best)
    return FoldPlan(
        steps=tuple(steps),
        kept=tuple(kept[name] for name in values if name in kept),
        images=len(original),
        max_drop=max_drop,
        confidence=confidence,
        error=100 * float(original.wrong1.mean()),
        params=costs.original.params,
        macs=costs.original.macs,
    )


def _rounded_up(points: float) -> float:
    """To two digits behind the point."""
    return ceil(100 * points - 1e-9) / 100


def _over_budget(
    block: KeptBlock, original: Predictions, other: Predictions, max_drop: float, confidence: float
) -> KeptBlock:
    """A block that stays for its error, and how many images might have told otherwise."""
    worse, better = count_changes(original, other)
    images = len(original)
    error = change_interval(worse, better, images, confidence)
    needed = images_needed(worse, better, images, max_drop, confidence)
    reason = (
        f"the top-1 error changes by {error.value:+.2f} points on {images:,} images ({worse} become wrong, {better} "
        f"right), at most {error.high:+.2f} at {confidence:.0%} confidence: above {max_drop:g}"
    )
    if needed is not None:
        reason += f"; about {needed:,} images would be needed to tell that it is below"
    return replace(block, reason=reason, error=error, images=needed)


def _labels(model: nn.Module, gates: Gates | Mapping[str, Tensor]) -> dict[str, str]:
    """What to call each SE module of the network."""
    known = {block.name: block.label for block in gates.blocks} if isinstance(gates, Gates) else {}
    return {unit.name: known.get(unit.name, unit.name) for unit in find_se(model)}


class _Costs:
    """What folding saves, step by step."""

    def __init__(self, model: nn.Module, size: tuple[int, ...]) -> None:
        self._size, self._network = size, copy.deepcopy(model)
        self.original = self._now = self._cost()

    def saved_by(self, name: str) -> tuple[int, int]:
        """Parameters and multiply-adds saved by taking out one more SE module."""
        take_out(self._network, [name])
        before, self._now = self._now, self._cost()
        return before.params - self._now.params, before.macs - self._now.macs

    def _cost(self) -> Cost:
        # Of a copy: where a module has two names, PyTorch's functional_call does not put its tensors back.
        return cost(copy.deepcopy(self._network), self._size, activations=False)


def _input_size(model: nn.Module, example: Example | None) -> tuple[int, ...]:
    """(C, *spatial) of the image in an example."""
    args = split_example(example_image(model) if example is None else example)
    return next((tuple(leaf.shape[1:]) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), ())
