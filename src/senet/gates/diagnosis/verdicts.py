"""The verdicts on a block's gates: what each means, by which thresholds, and the sentence that says why."""

from dataclasses import dataclass, fields
from math import isfinite

from senet.gates.diagnosis.tango import MAX_DROP
from senet.gates.recording.record import BlockGates

__all__ = ["VERDICTS", "Figures", "Thresholds", "judge"]

Figures = dict[str, float | int | None]

# In the order of which is the main one: what leaves nothing for the rest comes first.
VERDICTS = {
    "dead": "the hidden units are stuck: their ReLU is never on, or always",
    "saturated on": "nearly all gates are wide open for every image: the block does about nothing",
    "saturated off": "nearly all gates are closed for every image: the block shuts its map off",
    "constant": "the gates hardly depend on the image: constants would do",
    "one pattern": "classes have one pattern of gates, made larger and smaller",
    "class-specific": "what the gates do depends mostly on the class",
    "class-agnostic": "what the gates do hardly depends on the class",
    "varied": "the gates depend on the image, and in part on its class",
    "collapsed rank": "channels open and close together, in few directions",
    "unused units": "some hidden units have no say in the gates",
}
# A ReLU can be stuck; other activations have an output and a slope on both sides of 0.
_STUCK = ("ReLU", "ReLU6")


@dataclass(frozen=True)
class Thresholds:
    """By what a block is judged.

    Attributes:
        logits: a block is constant where its mean gates change the logits by less than this, relative to the deviation
            of the logits over images (root mean squares). At 5 % the change has 1/400 of the logits' variance.
        variation: where no worth was measured: constant where gates deviate over images by less than this, relative to
            the gates (root mean squares). 2 % of its input is about what a network's layers lose in 8 bits.
        margin: a gate is open above 1 less this and closed below this, as a share of its range. At 0.1 the slope of a
            sigmoid is 0.09, about a third of the largest, 0.25.
        saturated: a block is saturated where at least this share of all gates is open, or closed. Three quarters is
            the paper's "most" (section 7.2, SE_5_2) with room for channels that are at the other end.
        dead: where at least this share of the hidden units has a ReLU that is never on or always on. Beyond half of
            them, what is left is nearly a linear layer or a constant.
        agnostic: class-agnostic where the share of the variance between classes is below this in the middle channel,
            chance taken off. Cohen (1988) calls 0.14 large for one quantity in a study of people; networks' last
            stages reach 0.9.
        specific: class-specific where that share is above this: most of the variance is between classes.
        significance: of the F test, after correction for the number of channels.
        pattern: one pattern where at least this share of the variation between the means of classes is along their
            common pattern. More than half: along all other directions together there is less.
        rank: collapsed where the effective rank is below this share of what it could be: that of the same gates with
            channels shuffled, or the hidden units where these are fewer. At a quarter, four times fewer hidden units
            could make the same gates.
        unit: a hidden unit is unused where its contribution is below this share of the root mean square of all units'.
        unused: unused units are named where they are at least this share of the hidden units: fewer are not worth
            another width.
        images: with fewer recorded images than this, ranks are not judged: they cannot be above the number of images.
        start: the start has not moved where all gates are within this of what the gate gives for 0, relative to it.
        drop: the budget of `plan_fold`, in percentage points of top-1 error: folding a block is advised where it would
            be folded there, by the same bound (`Worth.bound`).

    Raises:
        ValueError: a threshold is no finite number of 0 or more.
    """

    logits: float = 0.05
    variation: float = 0.02
    margin: float = 0.1
    saturated: float = 0.75
    dead: float = 0.5
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


def judge(block: BlockGates, figures: Figures, thresholds: Thresholds) -> list[tuple[str, str]]:
    """The verdicts on a block, each with its reason; the main one first.

    Args:
        block: of the recording.
        figures: of `block_figures`, and what the block is worth, where that was measured.
        thresholds: by which to judge.
    """
    candidates = {
        "dead": _dead(block, figures, thresholds),
        "saturated on": _saturated(figures, "on", thresholds),
        "saturated off": _saturated(figures, "off", thresholds),
        "constant": _constant(figures, thresholds),
        "one pattern": _pattern(figures, thresholds),
        **_by_class(figures, thresholds),
        "collapsed rank": _collapsed(block, figures, thresholds),
        "unused units": _unused(figures, thresholds),
    }
    if candidates["constant"]:
        candidates.pop("varied", None)  # both would contradict each other; how classes differ stays among the figures
    return [(name, candidates[name]) for name in VERDICTS if candidates.get(name)]


def _dead(block: BlockGates, figures: Figures, thresholds: Thresholds) -> str:
    never, always = figures["never_on"], figures["always_on"]
    if block.activation not in _STUCK or never is None or always is None or never + always < thresholds.dead:
        return ""
    units = figures["hidden_channels"] or 0
    return (
        f"Hidden units whose ReLU is on for no image: {_percent(never)} of {units}, "
        f"for every image: {_percent(always)} (dead from {_percent(thresholds.dead)} together)."
    )


def _saturated(figures: Figures, side: str, thresholds: Thresholds) -> str:
    share, channels = figures[side], figures[f"channels_{side}"]
    if share is None or channels is None or share < thresholds.saturated:
        return ""
    what = "open, within" if side == "on" else "closed, within"
    return (
        f"{_percent(share)} of all gates are {what} {_percent(thresholds.margin)} of the end, and {_percent(channels)} "
        f"of the channels are for every image (saturated from {_percent(thresholds.saturated)} of the gates)."
    )


def _constant(figures: Figures, thresholds: Thresholds) -> str:
    change, variation = figures.get("worth_mean_logits"), figures["variation"]
    if "worth_mean_logits" in figures:
        if change is None or change >= thresholds.logits:
            return ""
        return (
            f"With mean gates the logits change by {_percent(change)} of their deviation over images (constant below "
            f"{_percent(thresholds.logits)})."
        )
    if variation is None or variation >= thresholds.variation:
        return ""
    return (
        f"Gates deviate over images by {_percent(variation)} of their size (constant below "
        f"{_percent(thresholds.variation)}; what that does to the logits was not measured)."
    )


def _by_class(figures: Figures, thresholds: Thresholds) -> dict[str, str]:
    """One of class-specific, class-agnostic and varied."""
    share, channels = figures["eta_squared_adjusted"], figures["channels_by_class"]
    if share is None or channels is None:
        few = (figures["classes"] or 0) < 2
        if not figures["variation"]:
            reason = "The gates do not vary over images"
        else:
            reason = (
                "Only one class has images" if few else "There are too few images of each class"
            ) + ", so that nothing can be said of classes"
        return {"varied": f"{reason}; they deviate over images by {_percent(figures['variation'])} of their size."}
    text = (
        f"Classes make up {_percent(max(0.0, share))} of the variance of a gate (the middle one of all channels, "
        f"chance taken off), and differ in {_percent(channels)} of the channels by the F test"
    )
    if share >= thresholds.specific:
        return {"class-specific": f"{text} (class-specific from {_percent(thresholds.specific)})."}
    if share < thresholds.agnostic:
        return {"class-agnostic": f"{text} (class-agnostic below {_percent(thresholds.agnostic)})."}
    return {"varied": f"{text} (between {_percent(thresholds.agnostic)} and {_percent(thresholds.specific)})."}


def _pattern(figures: Figures, thresholds: Thresholds) -> str:
    share, channels, differ = figures["scale_share"], figures["channels"], figures["channels_by_class"]
    # Of one channel, any change is one of scale; where classes do not differ, there is nothing to explain.
    if share is None or share < thresholds.pattern or not channels or channels < 2 or not differ:
        return ""
    return (
        f"{_percent(share)} of what classes' mean gates differ by is their common pattern made larger or smaller "
        f"({_percent(1 / channels)} by chance; one pattern from {_percent(thresholds.pattern)})."
    )


def _collapsed(block: BlockGates, figures: Figures, thresholds: Thresholds) -> str:
    share, rank, random = figures["rank_share"], figures["rank"], figures["rank_random"]
    if share is None or rank is None or random is None or len(block.sample_gates) < thresholds.images:
        return ""
    # Where nothing varies there is no rank, and that has its own name.
    if share >= thresholds.rank or rank == 0:
        return ""
    units = figures["hidden_channels"]
    most = f"with {units} hidden units" if units is not None and units < random else "with independent channels"
    could = min(random, units or random)
    return (
        f"The gates of {len(block.sample_gates)} images lie in {rank:.1f} directions (effective rank), where "
        f"{could:.1f} could be {most} (collapsed below {_percent(thresholds.rank)} of that)."
    )


def _unused(figures: Figures, thresholds: Thresholds) -> str:
    share, units = figures["unused"], figures["hidden_channels"]
    if share is None or not units or share == 0 or share < thresholds.unused:
        return ""
    return (
        f"Hidden units that contribute less than {_percent(thresholds.unit)} of what units do: {round(share * units)} "
        f"of {units} (named from {_percent(thresholds.unused)} of them)."
    )


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown share"
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.3g} %"
