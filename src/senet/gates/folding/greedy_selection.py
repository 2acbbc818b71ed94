"""Plan which SE blocks to fold within a budget of error, greedily, with a new measurement after each block.

fixed = {}                                                # blocks with constant gates
while there are other blocks:
    measure the network with fixed, and with fixed and each other block, one at a time
    # a block whose gates do not depend on the image changes no logit; its bound is the bound of fixed
    best = the block with the lowest upper bound of the change of error against the original network
    if this bound exceeds the budget: stop
    fixed += best
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet.costs.cost import Cost, cost
from senet.data import ImageData
from senet.gates.diagnosis.ablation import count_changes, error_change, is_identical, loss_change
from senet.gates.diagnosis.predictions import AnyPredictions, Predictions, predict_with_overrides
from senet.gates.diagnosis.set_predictions import SetPredictions
from senet.gates.diagnosis.tango import CONFIDENCE, MAX_DROP, Interval, images_needed
from senet.gates.folding.constant_gates import constant_gates
from senet.gates.folding.fold import can_fold, check_gates, take_out
from senet.gates.folding.fold_plan import FoldPlan, FoldStep, KeptBlock
from senet.gates.recording.batches import Batches, as_loader
from senet.gates.recording.record import Gates
from senet.graph.example_inputs import Example, example_image, split_example
from senet.graph.se_modules import find_se
from senet.tasks import trunk_of
from senet.utils.arguments import argument_name
from senet.utils.progress import Progress, no_progress

__all__ = ["check_budget", "plan_fold"]


def check_budget(max_drop: float, confidence: float) -> None:
    """Check a budget and a confidence.

    Args:
        max_drop: the budget in percentage points.
        confidence: confidence of the upper bound.

    Raises:
        ValueError: a budget below 0 or of 100 or more, or a confidence outside 0.5 to 1.
    """
    if not 0 <= max_drop < 100:
        raise ValueError(f"{argument_name('max_drop')} must be 0 to 100 percentage points, such as 0.2, got {max_drop}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"{argument_name('confidence')} must be between 0.5 and 1, such as 0.95, got {confidence}")


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
    """Choose blocks to fold such that the error rises, or AP falls, by at most a budget. The network is not modified.

    The selection is greedy, see the first lines of this module. The budget applies to the upper bound of the change
    against the original network on the same images, not to the measured change: Tango's score bound for the difference
    of paired proportions (Statistics in Medicine 17, 1998), one-sided at `confidence`. If none of n images changes,
    this bound is z^2 / (n + z^2), where a bootstrap would give 0: few images are no evidence. The lower end of an
    interval is the bound of the other side.

    Each bound holds for one set of blocks. Taking the lowest of several bounds is not corrected for: with b blocks, up
    to b (b + 1) / 2 sets are compared, and the selected set looks better than it is by part of the noise. If that
    matters, evaluate the folded network on other images.

    The error of a multi-label network is the percentage of wrong labels. Detectors are judged by AP, of which a fall is
    positive here; the bound is that of a normal distribution with the standard error of 200 bootstrap resamples of the
    images.

    Two kinds of blocks need no bound. Gates that are constant by the weights (see `constant_gates`) are folded without
    a measurement. If gates are the same for every image, so that no logit changes by one bit, no prediction changes
    either; this assumes, as all measurements do, that other images are similar.

    Args:
        model: a network with SE. It is not modified.
        loader: data to measure on, as for `senet.record_gates`; read once for each folded block.
        gates: the gates whose means are folded, as for `senet.fold_gates`.
        max_drop: the budget in percentage points: 0.2 allows a drop from 76.0 % to 75.8 % accuracy, or AP.
        confidence: confidence of each bound, between 0.5 and 1.
        blocks: names of the SE modules to choose from; by default all in `gates`.
        example: an input of the network, as for `senet.fold_gates`.
        progress: progress display.

    Returns:
        The plan; `senet.fold_gates(model, gates, blocks=plan.blocks)` executes it. It is deterministic.

    Raises:
        GatesError: a network without SE; an unknown block; gates of another network, or not finite.
        ValueError: an invalid budget or confidence.
        DataError: there are no images, or a label has no logit.

    Examples:
        >>> from senet.gates import plan_fold
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> plan = plan_fold(model, "photos", gates, max_drop=1, blocks=["layer1.0.bn2.se"])
        >>> folded = senet.fold_gates(model, gates, blocks=plan.blocks)
    """
    check_budget(max_drop, confidence)
    values = check_gates(model, gates, blocks)
    labels = _labels(model, gates)
    prefix, part = trunk_of(model)
    example = example_image(model, 2) if example is None else example  # of the size that the whole network declares
    own = {name.removeprefix(prefix): value for name, value in values.items()}
    reasons = {f"{prefix}{name}": why for name, why in can_fold(part, own, example=example).items()}
    kept = {name: KeptBlock(name, labels[name], reasons[name]) for name in values if reasons[name]}
    left = {name: value for name, value in values.items() if not reasons[name]}
    costs = _Costs(part, prefix, _input_size(example))
    fixed = {name: left.pop(name) for name in constant_gates(model, left)}
    nothing = Interval(0.0, 0.0, 0.0)
    steps = [FoldStep(name, labels[name], nothing, 0.0, *costs.saved_by(name), certain=True) for name in fixed]
    batches = as_loader(model, loader, progress=progress)
    original: AnyPredictions | None = None
    while left or original is None:
        original, base, candidates = predict_with_overrides(model, batches, fixed, left, progress=progress)
        if not left:
            break
        now = steps[-1].error if steps else nothing
        same = {name for name in left if is_identical(candidates[name], base)}
        found = {n: now if n in same else error_change(original, candidates[n], confidence) for n in left}
        losses = {name: loss_change(original, candidates[name]) for name in left}
        best = min(left, key=lambda name: (found[name].high, losses[name] or 0.0))
        if found[best].high > max_drop:
            for name in left:
                block = KeptBlock(name, labels[name], "")
                kept[name] = _over_budget(block, original, candidates[name], found[name], max_drop, confidence)
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
        error=original.judged[0],
        params=costs.original.params,
        macs=costs.original.macs,
        metric=original.errors[0],
        better=original.better,
        method="tango" if isinstance(original, Predictions) else "bootstrap",
    )


def _over_budget(
    block: KeptBlock,
    original: AnyPredictions,
    other: AnyPredictions,
    error: Interval,
    max_drop: float,
    confidence: float,
) -> KeptBlock:
    """Return a block with the error that exceeds the budget, and the number of images that could change this."""
    images, counts = len(original), ""
    if isinstance(original, Predictions) and isinstance(other, Predictions):
        worse, better = count_changes(original, other)
        needed = images_needed(worse, better, images, max_drop, confidence)
        counts = f" ({worse:g} become wrong, {better:g} right)" if original.wrong1.dtype == bool else ""
    else:
        assert isinstance(original, SetPredictions)
        needed = original.images_needed(error, max_drop)
    verb = "drops" if original.better == "higher" else "changes"
    reason = (
        f"the {original.errors[0]} {verb} by {error.value:+.2f} points on {images:,} images{counts}, at most "
        f"{error.high:+.2f} at {confidence:.0%} confidence: above {max_drop:g}"
    )
    if needed is not None:
        reason += f"; about {needed:,} images are needed to show that it is below"
    return replace(block, reason=reason, error=error, images=needed)


def _labels(model: nn.Module, gates: Gates | Mapping[str, Tensor]) -> dict[str, str]:
    """Return the label of each SE module of the network."""
    known = {block.name: block.label for block in gates.blocks} if isinstance(gates, Gates) else {}
    return {unit.name: known.get(unit.name, unit.name) for unit in find_se(model)}


class _Costs:
    """Computes the savings of each step.

    Args:
        part: what runs on images: the network, or the part of it with SE.
        prefix: of the names in it.
        size: (C, *spatial) of an image.
    """

    def __init__(self, part: nn.Module, prefix: str, size: tuple[int, ...]) -> None:
        self._size, self._prefix, self._network = size, prefix, copy.deepcopy(part)
        self.original = self._now = self._cost()

    def saved_by(self, name: str) -> tuple[int, int]:
        """Return the parameters and multiply-adds saved by removing one more SE module."""
        take_out(self._network, [name.removeprefix(self._prefix)])
        before, self._now = self._now, self._cost()
        return before.params - self._now.params, before.macs - self._now.macs

    def _cost(self) -> Cost:
        # A copy, since functional_call does not restore the tensors of a module with two names.
        return cost(copy.deepcopy(self._network), self._size, activations=False)


def _input_size(example: Example) -> tuple[int, ...]:
    """Return (C, *spatial) of the image in an example."""
    args = split_example(example)
    return next((tuple(leaf.shape[1:]) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), ())
