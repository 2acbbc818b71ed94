"""Assign verdicts to a block's gates: their meanings, the thresholds, and a sentence with the reason."""

from dataclasses import dataclass, fields
from math import isfinite

from senet.gates.diagnosis.tango import MAX_DROP
from senet.gates.recording.record import BlockGates

__all__ = ["VERDICTS", "Figures", "Thresholds", "assign_verdicts"]

Figures = dict[str, float | int | None]

# By priority: the first verdict of a block is its main one.
VERDICTS = {
    "stuck": "many hidden units are always off or always on: their ReLU is inactive, or active, for every image",
    "saturated on": "nearly all gates are open for every image: the block changes almost nothing",
    "saturated off": "nearly all gates are closed for every image: the block suppresses its input",
    "constant": "the gates hardly depend on the image: constants could replace them",
    "one pattern": "all classes share one pattern of gates at different scales",
    "class-specific": "the gates depend mostly on the class",
    "class-agnostic": "the gates hardly depend on the class",
    "varied": "the gates depend on the image, and partly on its class",
    "collapsed rank": "the channels vary together, in few directions",
    "unused units": "some hidden units have no effect on the gates",
}
# Only a ReLU can be stuck: other activations have an output and a gradient on both sides of 0.
_CAN_BE_STUCK = ("ReLU", "ReLU6")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdicts.

    Attributes:
        logits: constant if mean gates change the logits, of a detector the maps of its feature pyramid, by less than
            this, relative to their standard deviation over images (root mean squares). At 5 % the change has 1/400 of
            the variance.
        variation: constant, without an ablation, if the standard deviation of the gates over images is below this,
            relative to the gates (root mean squares). 2 % of a layer's input is about the error of 8-bit quantization.
        margin: a gate is open above 1 minus this and closed below this, as a share of its range. At 0.1 the slope of a
            sigmoid is 0.09, about a third of the largest slope, 0.25.
        saturated: saturated if at least this share of all gates is open, or closed. Three quarters is the paper's
            "most" (section 7.2, SE_5_2) and allows some channels at the other end.
        stuck: stuck if at least this share of the hidden units has a ReLU that is never or always active. Beyond one
            half, the rest is nearly a linear layer or a constant.
        agnostic: class-agnostic if the share of variance between classes is below this in the median channel, corrected
            for chance. Cohen (1988) calls 0.14 a large effect in the social sciences; the last stages of networks reach
            0.9.
        specific: class-specific if that share is above this: most of the variance is between classes.
        significance: significance level of the F test, corrected for the number of channels.
        pattern: one pattern if at least this share of the variation between class means is along their common pattern.
            Above one half, it exceeds the variation in all other directions together.
        rank: collapsed if the effective rank is below this share of the possible rank: the rank of the same gates with
            shuffled channels, or the number of hidden units if that is lower. At a quarter, a quarter of the hidden
            units could produce the same gates.
        unit: a hidden unit is unused if its contribution is below this share of the root mean square of all units.
        unused: unused units are reported from this share of the hidden units on; fewer do not justify another width.
        images: ranks are not evaluated with fewer sampled images, because they cannot exceed the number of images.
        start: untrained if all gates are within this of the gate's value for input 0, relative to that value.
        drop: the budget of `plan_fold`, in percentage points of top-1 error, label error or AP. Folding a block is
            recommended if `plan_fold` would fold it, by the same bound (`Ablation.bound`).

    Raises:
        ValueError: a threshold is not a finite number of 0 or more.

    Examples:
        >>> from senet.gates import Thresholds, diagnose
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> diagnosis = diagnose(gates, thresholds=Thresholds(variation=0.05))
        >>> diagnosis.thresholds.variation
        0.05
    """

    logits: float = 0.05
    variation: float = 0.02
    margin: float = 0.1
    saturated: float = 0.75
    stuck: float = 0.5
    agnostic: float = 0.1
    specific: float = 0.5
    significance: float = 0.05
    pattern: float = 0.5
    rank: float = 0.25
    unit: float = 0.01
    unused: float = 0.1
    images: int = 20
    start: float = 0.02
    drop: float = MAX_DROP

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, int | float) or not isfinite(value) or value < 0:
                raise ValueError(f"the threshold {one.name} must be a finite number of 0 or more, got {value!r}")


def assign_verdicts(
    block: BlockGates, figures: Figures, thresholds: Thresholds, outputs: str = "logits"
) -> list[tuple[str, str]]:
    """Return the verdicts on a block with their reasons, the main verdict first.

    Args:
        block: the block of a recording.
        figures: the figures of `block_figures`, and the results of the ablation if there was one.
        thresholds: the thresholds of the verdicts.
        outputs: what of the network's outputs the ablation compared.
    """
    candidates = {
        "stuck": _stuck(block, figures, thresholds),
        "saturated on": _saturated(figures, "on", thresholds),
        "saturated off": _saturated(figures, "off", thresholds),
        "constant": _constant(figures, thresholds, outputs),
        "one pattern": _pattern(figures, thresholds),
        **_by_class(figures, thresholds),
        "collapsed rank": _collapsed(block, figures, thresholds),
        "unused units": _unused(figures, thresholds),
    }
    if candidates["constant"]:
        candidates.pop("varied", None)  # a contradiction; the figures still show the differences between classes
    return [(name, candidates[name]) for name in VERDICTS if candidates.get(name)]


def _stuck(block: BlockGates, figures: Figures, thresholds: Thresholds) -> str:
    never, always = figures["never_on"], figures["always_on"]
    if block.activation not in _CAN_BE_STUCK or never is None or always is None or never + always < thresholds.stuck:
        return ""
    units = figures["hidden_channels"] or 0
    return (
        f"Of {units} hidden units, {_percent(never)} have a ReLU that is active for no image and {_percent(always)} "
        f"one that is active for every image (threshold: {_percent(thresholds.stuck)} in total)."
    )


def _saturated(figures: Figures, side: str, thresholds: Thresholds) -> str:
    share, channels = figures[side], figures[f"channels_{side}"]
    if share is None or channels is None or share < thresholds.saturated:
        return ""
    what = "open" if side == "on" else "closed"
    return (
        f"{_percent(share)} of all gates are {what}, within {_percent(thresholds.margin)} of the end of their range "
        f"(threshold: {_percent(thresholds.saturated)}). {_percent(channels)} of the channels are {what} for every "
        f"image."
    )


def _constant(figures: Figures, thresholds: Thresholds, outputs: str) -> str:
    change, variation = figures.get("ablation_mean_logits"), figures["variation"]
    if "ablation_mean_logits" in figures:
        if change is None or change >= thresholds.logits:
            return ""
        return (
            f"With mean gates the {outputs} change by {_percent(change)} of their standard deviation over images "
            f"(threshold: {_percent(thresholds.logits)})."
        )
    if variation is None or variation >= thresholds.variation:
        return ""
    return (
        f"The standard deviation of the gates over images is {_percent(variation)} of their size (threshold: "
        f"{_percent(thresholds.variation)}). The effect on the {outputs} was not measured."
    )


def _by_class(figures: Figures, thresholds: Thresholds) -> dict[str, str]:
    """Return one of class-specific, class-agnostic and varied."""
    share, channels = figures["eta_squared_adjusted"], figures["channels_by_class"]
    if share is None or channels is None:
        if not figures["variation"]:
            reason = "The gates do not vary over images"
        elif (figures["classes"] or 0) < 2:
            reason = "Only one class has images, so classes cannot be compared"
        else:
            reason = "There are too few images of each class to compare classes"
        return {
            "varied": f"{reason}. The standard deviation over images is {_percent(figures['variation'])} of the gates."
        }
    text = (
        f"The class explains {_percent(max(0.0, share))} of a gate's variance (median over channels, corrected for "
        f"chance), and the means of classes differ in {_percent(channels)} of the channels (F test)"
    )
    if share >= thresholds.specific:
        return {"class-specific": f"{text}. Threshold: {_percent(thresholds.specific)} or more."}
    if share < thresholds.agnostic:
        return {"class-agnostic": f"{text}. Threshold: below {_percent(thresholds.agnostic)}."}
    return {"varied": f"{text}: between {_percent(thresholds.agnostic)} and {_percent(thresholds.specific)}."}


def _pattern(figures: Figures, thresholds: Thresholds) -> str:
    share, channels, differ = figures["scale_share"], figures["channels"], figures["channels_by_class"]
    # With one channel every change is a change of scale; if classes do not differ, there is nothing to explain.
    if share is None or share < thresholds.pattern or not channels or channels < 2 or not differ:
        return ""
    return (
        f"Scaling of one common pattern explains {_percent(share)} of the differences between the mean gates of "
        f"classes ({_percent(1 / channels)} by chance; threshold: {_percent(thresholds.pattern)})."
    )


def _collapsed(block: BlockGates, figures: Figures, thresholds: Thresholds) -> str:
    share, rank, random = figures["rank_share"], figures["rank"], figures["rank_random"]
    if share is None or rank is None or random is None or len(block.sample_gates) < thresholds.images:
        return ""
    # Gates that do not vary have rank 0; their verdict is "constant".
    if share >= thresholds.rank or rank == 0:
        return ""
    units = figures["hidden_channels"]
    condition = f"with {units} hidden units" if units is not None and units < random else "with independent channels"
    possible = min(random, units or random)
    return (
        f"The effective rank of the gates of {len(block.sample_gates)} images is {rank:.1f}, of {possible:.1f} "
        f"possible {condition} (threshold: {_percent(thresholds.rank)} of that)."
    )


def _unused(figures: Figures, thresholds: Thresholds) -> str:
    share, units = figures["unused"], figures["hidden_channels"]
    if share is None or not units or share == 0 or share < thresholds.unused:
        return ""
    return (
        f"{round(share * units)} of {units} hidden units contribute less than {_percent(thresholds.unit)} of the root "
        f"mean square over units (reported from {_percent(thresholds.unused)} of the units)."
    )


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown share"
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.3g} %"
