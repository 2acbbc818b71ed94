"""Recordings without a network, with figures as in the paper: early gates class-agnostic, the last ones saturated."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from senet.gates.diagnosis.ablation import Ablation, Interval
from senet.gates.diagnosis.diagnosis import BlockDiagnosis, Diagnosis, Thresholds
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Statistics

# Stage: channels, and the profile of each of its blocks.
_RESNET50 = (
    (2, 256, ("class-agnostic",) * 3),
    (3, 512, ("class-agnostic",) * 3 + ("varied",)),
    (4, 1024, ("varied",) * 2 + ("class-specific",) * 4),
    (5, 2048, ("class-specific", "saturated on", "one pattern")),
)
# How far classes are apart, and images within a class, in logits of the gate; where the middle lies.
_PROFILES = {
    "class-agnostic": (0.06, 0.15, 0.0),
    "varied": (0.3, 0.35, 0.0),
    "class-specific": (1.1, 0.45, -0.6),
    "saturated on": (0.25, 0.3, 5.0),
    "one pattern": (0.03, 0.2, 0.4),
    "constant": (0.0, 0.0, 0.0),
}


def se_resnet50(classes: int = 1000, *, seed: int = 0, sample: int = 256, thumbnail: int | None = 48) -> Gates:
    """Simulate a recording of the size of a se_resnet50."""
    plan = [
        (f"stages.{stage - 2}.{place}.se", stage, place + 1, channels, profile)
        for stage, channels, profiles in _RESNET50
        for place, profile in enumerate(profiles)
    ]
    return simulated(plan, names(classes), seed=seed, sample=sample, thumbnail=thumbnail, network="se_resnet50")


def names(classes: int) -> list[str]:
    """The paper's four among others."""
    known = {1: "goldfish", 254: "pug, pug-dog", 404: "plane", 972: "cliff"}
    return [known.get(place, f"class {place:03d}, with a longer second name") for place in range(classes)]


def simulated(
    plan: Sequence[tuple[str, int | None, int, int, str]],
    classes: Sequence[str],
    *,
    seed: int = 0,
    images: int = 50,
    sample: int = 64,
    thumbnail: int | None = 32,
    network: str = "simulated",
    squeeze: str = "avg",
    layers: int = 2,
    missing: Sequence[int] = (),
) -> Gates:
    """A recording.

    Args:
        plan: of each block name, stage, place in it, channels and profile.
        classes: names.
        seed: of all draws.
        images: of each class, but of those that are `missing`.
        sample, thumbnail: as for `record_gates`.
        network: name of it.
        squeeze: of all blocks.
        layers: of the excitation: 1 has no hidden units.
        missing: places of classes without an image.
    """
    draw = np.random.default_rng(seed)
    counts = np.full(len(classes), images, np.int64)
    counts[list(missing)] = 0
    total = int(counts.sum())
    indices = np.sort(draw.choice(total, min(sample, total), replace=False))
    labels = np.repeat(np.arange(len(classes)), counts)[indices]
    blocks = [
        _block(draw, entry, depth, counts, labels, squeeze, layers)
        for entry, depth in zip(plan, np.linspace(0, 1, len(plan)), strict=True)
    ]
    pictures = None if thumbnail is None else _thumbnails(draw, labels, thumbnail)
    return Gates(network, "simulated", list(classes), blocks, Sample(indices, labels, pictures), True, {})


def _block(
    draw: np.random.Generator,
    entry: tuple[str, int | None, int, int, str],
    depth: float,
    counts: NDArray[np.int64],
    labels: NDArray[np.int64],
    squeeze: str,
    layers: int,
) -> BlockGates:
    name, stage, place, channels, profile = entry
    between, within, middle = _PROFILES[profile]
    level = draw.normal(middle, 0.9, channels)
    # Classes differ in a few directions, as they do in a network.
    directions = draw.normal(size=(min(8, channels), channels)) / 3
    shifts = between * draw.normal(size=(len(counts), len(directions))) @ directions
    spread = within * draw.uniform(0.5, 1.5, (len(counts), channels))
    squeezes = draw.uniform(0.1, 1.2, channels)
    noise = draw.normal(size=(len(labels), channels))
    return BlockGates(
        name=name,
        label=name if stage is None else f"SE_{stage}_{place}",
        stage=stage,
        depth=float(depth),
        kind="senet.SEBlock",
        gate="Sigmoid",
        gain=1.0,
        squeeze=squeeze,
        activation="ReLU" if layers == 2 else None,
        gates=_statistics(draw, _sigmoid(level + shifts), spread, counts, (0.0, 1.0), squeeze == "none"),
        squeezes=_statistics(draw, squeezes + 0.1 * shifts, 0.3 * spread, counts, (0.0, 2.0), False),
        hidden=_hidden(draw, max(1, channels // 16), counts) if layers == 2 else None,
        sample_gates=_sigmoid(level + shifts[labels] + noise * spread[labels]).astype(np.float32),
        sample_squeezes=(squeezes + 0.1 * shifts[labels] + 0.3 * noise * spread[labels]).astype(np.float32),
    )


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def _statistics(
    draw: np.random.Generator,
    means: NDArray[np.float64],
    spread: NDArray[np.float64],
    counts: NDArray[np.int64],
    ends: tuple[float, float],
    space: bool,
) -> Statistics:
    low, high = ends
    classes, channels = means.shape
    empty = Statistics.empty(classes, channels, np.linspace(low, high, 65), space=space)
    if not counts.sum():
        return empty
    # Less room near the ends of what a gate can be.
    deviations = spread * np.clip(means - low, 0, None) * np.clip(high - means, 0, None) / (high - low)
    seen = counts > 0
    # A few images of each class stand for all of them.
    times = max(1, 200 // int(seen.sum()))
    centres, deviation = (np.repeat(values[seen], times, axis=0) for values in (means, deviations))
    values = (centres + deviation * draw.normal(size=centres.shape)).clip(low, high)
    histogram = np.stack([np.histogram(column, empty.edges)[0] for column in values.T])
    return Statistics(
        images=counts,
        means=means * seen[:, None],
        squares=counts[:, None] * deviations**2,
        minimum=values.min(0),
        maximum=values.max(0),
        histogram=histogram.astype(np.int64),
        edges=empty.edges,
        space=0.01 * counts.sum() * np.ones(means.shape[1]) if space else None,
    )


def _hidden(draw: np.random.Generator, units: int, counts: NDArray[np.int64]) -> HiddenUnits:
    total = int(counts.sum())
    on = draw.beta(1, 1, units)
    on[: units // 10] = 0
    on[units // 10 : units // 8] = 1
    outputs = _statistics(draw, 0.1 + on[None], 0.3 * np.ones((1, units)), np.array([total]), (0.0, 4.0), False)
    return HiddenUnits(np.rint(on * total).astype(np.int64), total, outputs, draw.uniform(0.2, 2, units))


def _thumbnails(draw: np.random.Generator, labels: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """A coloured blob on a ground, as noisy as a photograph's thumbnail."""
    rows, columns = np.mgrid[:size, :size] / size
    pictures = np.empty((len(labels), size, size, 3))
    for place, label in enumerate(labels):
        hue = np.random.default_rng(int(label)).uniform(0, 255, (2, 3))
        across, down, radius = draw.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.4))
        blob = ((rows - down) ** 2 + (columns - across) ** 2 < radius**2)[..., None]
        pictures[place] = np.where(blob, hue[0], hue[1] * (0.5 + rows[..., None] / 2))
    return (pictures + draw.normal(0, 12, pictures.shape)).clip(0, 255).astype(np.uint8)


def diagnosed(gates: Gates, verdicts: Sequence[str] | None = None, *, measured: bool = True) -> Diagnosis:
    """A diagnosis with simple verdicts."""
    blocks = []
    for place, block in enumerate(gates.blocks):
        variance = block.gates.variance
        eta = np.divide(
            block.gates.between / max(1, gates.images), variance, out=np.zeros_like(variance), where=variance > 0
        )
        share, mean = float(np.median(eta)), float(block.gates.mean.mean())
        name = "saturated on" if mean > 0.9 else "class-specific" if share > 0.5 else "class-agnostic"
        if verdicts is not None:
            name = verdicts[place]
        ablations = (
            Ablation(block.name, "mean", *_spans(share, 0.1), logits=0.2 * share, bound=share),
            Ablation(block.name, "one", *_spans(2 * share, 0.12), logits=0.4 * share, bound=2 * share),
        )
        blocks.append(
            BlockDiagnosis(
                name=block.name,
                label=block.label,
                stage=block.stage,
                verdicts=(name, "unused units") if block.hidden and place % 3 == 0 else (name,),
                figures={"eta_squared_median": share, "mean": mean, "channels": block.channels, "rank": None},
                reasons=(f"Classes make up {100 * share:.0f} % of the variance of a gate (median over channels).",),
                advice=() if share > 0.5 else (f"Fold {block.label}: replacing its gates by their mean costs little.",),
                ablations=ablations if measured else (),
            )
        )
    advice = ("The last stage's gates do little: leave SE out of it, and save 10 % of the parameters.",)
    return Diagnosis(blocks=tuple(blocks), advice=advice, thresholds=Thresholds())


def _spans(value: float, width: float) -> tuple[Interval, Interval, Interval]:
    return tuple(Interval(value * scale, value * scale - width, value * scale + width) for scale in (1, 0.5, 0.02))  # type: ignore[return-value]
