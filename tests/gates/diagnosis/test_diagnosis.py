"""Each verdict applies to a block made for it, and not to a similar block."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from math import nan
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from senet.gates.diagnosis.ablation import Ablation, Interval
from senet.gates.diagnosis.diagnosis import VERDICTS, BlockDiagnosis, Thresholds, diagnose
from senet.gates.diagnosis.tango import change_interval
from senet.gates.recording.record import BlockGates
from tests.gates.statistics_of import block_of, gates_of, hidden_of

_IMAGES, _CHANNELS, _CLASSES = 600, 32, 6
_LABELS = np.arange(_IMAGES) % _CLASSES

Values = NDArray[np.float64]


def _gates(between: float, within: float, middle: float = 0.5, *, rank: int = _CHANNELS, seed: int = 0) -> Values:
    """(M, C) gates around a pattern, with classes and images as far apart as that, in so many directions."""
    draw = np.random.default_rng(seed)
    pattern = middle + 0.1 * min(middle, 1 - middle) * draw.normal(size=_CHANNELS)
    axes = draw.normal(size=(rank, _CHANNELS)) / np.sqrt(rank)
    classes, images = draw.normal(size=(_CLASSES, rank)), draw.normal(size=(_IMAGES, rank))
    return (pattern + (between * classes[_LABELS] + within * images) @ axes).clip(0, 1)


def _scaled(share: float) -> Values:
    """Classes that scale a pattern, with some other differences."""
    draw = np.random.default_rng(1)
    pattern, scales = draw.uniform(0.2, 0.7, _CHANNELS), draw.normal(0, 0.05, _CLASSES)
    other = draw.normal(0, 0.03, (_CLASSES, _CHANNELS))
    values = pattern * (1 + share * scales[_LABELS, None]) + (1 - share) * other[_LABELS]
    return values + draw.normal(0, 0.005, values.shape)


def _inputs(never: int = 0, always: int = 0, still: int = 0, units: int = 8) -> Values:
    """(M, H) of a ReLU; `still` have a contribution of 0 though they are on at times."""
    inputs = np.random.default_rng(2).normal(size=(_IMAGES, units))
    inputs[:, :never] = -1
    inputs[:, never : never + always] = abs(inputs[:, never : never + always]) + 0.01
    return inputs


def _block(values: Values, inputs: Values | None = None, **options: Any) -> BlockGates:
    hidden = None if inputs is None else hidden_of(inputs, np.ones(inputs.shape[1]))
    return block_of(values, _LABELS, hidden=hidden, **options)


def _diagnosed(
    *blocks: BlockGates, ablations: tuple[Ablation, ...] = (), **thresholds: Any
) -> tuple[BlockDiagnosis, ...]:
    return diagnose(gates_of(*blocks), ablations, thresholds=Thresholds(**thresholds)).blocks


_SPECIFIC = _gates(0.1, 0.03)
# A block with the verdict, and one next to it without.
_PAIRS: dict[str, tuple[Callable[[], BlockGates], Callable[[], BlockGates]]] = {
    "constant": (lambda: _block(_gates(0.003, 0.004)), lambda: _block(_gates(0.01, 0.02))),
    "saturated on": (lambda: _block(_gates(0.02, 0.02, 0.96)), lambda: _block(_gates(0.02, 0.02, 0.85))),
    "saturated off": (lambda: _block(_gates(0.01, 0.01, 0.04)), lambda: _block(_gates(0.01, 0.01, 0.2))),
    "stuck": (lambda: _block(_SPECIFIC, _inputs(never=3, always=2)), lambda: _block(_SPECIFIC, _inputs(never=1))),
    "class-specific": (lambda: _block(_SPECIFIC), lambda: _block(_gates(0.05, 0.1))),
    "class-agnostic": (lambda: _block(_gates(0.0, 0.1)), lambda: _block(_gates(0.1, 0.1))),
    "varied": (lambda: _block(_gates(0.06, 0.1)), lambda: _block(_SPECIFIC)),
    "one pattern": (lambda: _block(_scaled(0.9)), lambda: _block(_scaled(0.1))),
    "collapsed rank": (lambda: _block(_gates(0.1, 0.1, rank=2)), lambda: _block(_gates(0.1, 0.1, rank=16))),
    "unused units": (lambda: _block(_SPECIFIC, _inputs(never=1)), lambda: _block(_SPECIFIC, _inputs(always=1))),
}


def test_every_verdict_is_tested() -> None:
    """Every verdict can occur."""
    assert _PAIRS.keys() == VERDICTS.keys()


@pytest.mark.parametrize("verdict", _PAIRS)
def test_verdict(verdict: str) -> None:
    """The verdict has a reason with a figure; the similar block has another verdict."""
    has, has_not = _diagnosed(*(make() for make in _PAIRS[verdict]))
    assert verdict in has.verdicts
    assert verdict not in has_not.verdicts
    for block in (has, has_not):
        assert len(block.reasons) == len(block.verdicts) >= 1
        assert set(block.verdicts) <= VERDICTS.keys()
        assert list(block.verdicts) == sorted(block.verdicts, key=list(VERDICTS).index)
        # Exactly one verdict is about classes, except that a constant block is not called varied.
        said = {"class-specific", "class-agnostic", "varied"} & set(block.verdicts)
        assert len(said) == 1 or (not said and "constant" in block.verdicts)
        assert not {"constant", "varied"} <= set(block.verdicts)
    reason = has.reasons[has.verdicts.index(verdict)]
    assert any(letter.isdigit() for letter in reason)
    assert reason.endswith(".")


def _ablation(
    logits: float,
    top1: tuple[float, float, float] = (0.0, 0.0, 0.0),
    name: str = "layer1.0.se",
    bound: float | None = None,
) -> Ablation:
    """With a bound that is the upper end, unless one is given."""
    bound = top1[2] if bound is None else bound
    return Ablation(name, "mean", Interval(*top1), Interval(0, 0, 0), Interval(0, 0, 0), logits, bound)


def test_constant_by_what_was_measured() -> None:
    """With an ablation the change of the logits decides, otherwise the variation of the gates."""
    moving, still = _block(_SPECIFIC), _block(_gates(0.003, 0.004))
    assert "constant" in _diagnosed(moving, ablations=(_ablation(0.04),))[0].verdicts
    assert "constant" not in _diagnosed(moving, ablations=(_ablation(0.06),))[0].verdicts
    assert "constant" not in _diagnosed(still, ablations=(_ablation(0.06),))[0].verdicts
    assert "constant" in _diagnosed(still, ablations=(_ablation(0.06),), logits=0.07)[0].verdicts
    reasons = (_diagnosed(still)[0].reasons[0], _diagnosed(still, ablations=(_ablation(0.01),))[0].reasons[0])
    assert "not measured" in reasons[0]
    assert "logits change by 1 %" in reasons[1]


def test_fold_follows_the_upper_end() -> None:
    """The bound decides, not the measured change."""
    block = _block(_SPECIFIC)
    inside, outside = (_diagnosed(block, ablations=(_ablation(0.3, (0.05, -0.1, high)),))[0] for high in (0.2, 0.21))
    assert any(
        "Fold it (senet fold)" in text and "by +0.05 points, at most +0.20 at 95% confidence" in text
        for text in inside.advice
    )
    assert not any("Fold it" in text for text in outside.advice)
    assert "Keep all 1 blocks" in diagnose(gates_of(block), [_ablation(0.3, (1, 0.5, 2))]).advice[-1]
    assert "Ablate each block" in diagnose(gates_of(block)).advice[-1]


def test_a_stage_that_does_nothing() -> None:
    """A stage is dropped if all of its blocks have little effect, and kept otherwise."""
    still, moving = _gates(0.003, 0.004), _SPECIFIC
    blocks = [
        replace(_block(values, _inputs()), name=f"b{i}", label=f"SE_{stage}_{i}", stage=stage)
        for i, (stage, values) in enumerate([(2, moving), (2, still), (3, still), (3, still)])
    ]
    advice = diagnose(gates_of(*blocks)).advice
    assert [text for text in advice if "Leave SE out" in text] == [
        "Leave SE out of stage 3 in the next training (stages={2}): the gates of all its 2 blocks are nearly constant "
        "or saturated (not measured on logits), and they hold 50 % of SE's parameters."
    ]
    # The single layer of a block of senet may be a filter over channels: its weights are unknown.
    single = [replace(block, hidden=None, kind="senet.nn.block.SqueezeExcitation") for block in blocks]
    assert any(text.endswith("(not measured on logits).") for text in diagnose(gates_of(*single)).advice)
    ablations = [_ablation(0.01, (0.0, -0.1, high), f"b{i}") for i, high in enumerate((0.1, 0.1, 0.1, 0.9))]
    assert [text[:30] for text in diagnose(gates_of(*blocks), ablations).advice if "Leave SE" in text] == [
        "Leave SE out of stage 2 in the"
    ]


def test_no_image_changed() -> None:
    """With 600 images the bound is about half a point, unless no logit changes."""
    block = _block(_SPECIFIC)
    bound = change_interval(0, 0, _IMAGES, 0.95).high
    assert bound == pytest.approx(0.449, abs=1e-3)
    for logits, most, found in ((0.01, bound, False), (0.0, 0.0, True)):
        advice = _diagnosed(block, ablations=(_ablation(logits, bound=most),))[0].advice
        assert any("Fold it (senet fold)" in text for text in advice) == found
    larger = _diagnosed(block, ablations=(_ablation(0.01, bound=bound),), drop=0.5)[0].advice
    assert "Fold it (senet fold --max-drop 0.5)" in larger[0]


def test_images_that_are_too_few_for_any_block() -> None:
    """The advice says so, and how many images are needed."""
    bound = change_interval(0, 0, _IMAGES, 0.95).high
    diagnosis = diagnose(gates_of(_block(_gates(0.003, 0.004))), [_ablation(0.01, bound=bound)])
    assert diagnosis.advice[-1].startswith("No block can be folded within 0.2 points of top-1 error on 600 images: ")
    assert "the bound is 0.45 with so few images. Use 1,351 images or more" in diagnosis.advice[-1]
    assert (
        diagnosis.blocks[0]
        .advice[0]
        .startswith(
            "To fold it, use more than 600 images or a larger budget: with mean gates the top-1 error changes by "
            "+0.00 points, at most +0.45 at 95% confidence on these images"
        )
    )


def test_no_block_has_an_effect() -> None:
    """Without any effect there is one advice, not one per stage."""
    blocks = [replace(_block(_gates(0.003, 0.004)), name=f"b{i}", stage=i) for i in (2, 3)]
    advice = diagnose(gates_of(*blocks)).advice
    assert any(text.startswith("Train without SE") for text in advice)
    assert not any("Leave SE out" in text for text in advice)


def test_no_unit_does_anything() -> None:
    """Dead ReLUs need another initialization, not a larger r or longer training."""
    still = _block(np.full((_IMAGES, _CHANNELS), 0.5), _inputs(never=8))
    diagnosis = diagnose(gates_of(still))
    assert diagnosis.blocks[0].verdicts[:2] == ("stuck", "constant")
    texts = [*diagnosis.blocks[0].advice, *diagnosis.advice]
    assert any("another initialization" in text for text in texts)
    assert not any("aise r" in text or "not learned" in text for text in diagnosis.blocks[0].advice)


def test_a_start_that_has_not_moved() -> None:
    """Gates of 2 sigmoid(0) for every image, and gates slightly further away."""
    still = np.ones((_IMAGES, _CHANNELS))
    moved = still + 0.05 * np.eye(_CHANNELS)[0]
    for values, found in ((still, True), (moved, False)):
        diagnosis = diagnose(gates_of(_block(values, _inputs(), gain=2.0)))
        texts = [*diagnosis.blocks[0].advice, *diagnosis.advice]
        assert any("the block has not learned" in text for text in texts) == found
        assert any("SE has not learned" in text for text in texts) == found
        assert "constant" in diagnosis.blocks[0].verdicts


def test_r_follows_units() -> None:
    """6 of 8 units used: r from 4 to 5.33. Rank 1: 2 units. Full rank in most blocks: a lower r."""
    unused = _diagnosed(_block(_gates(0.1, 0.1), _inputs(never=2)))[0]
    assert any("Raise r to 5.33: only 6 of 8 hidden units" in text and "4 now" in text for text in unused.advice)
    collapsed = _diagnosed(_block(_gates(0.02, 0.03, rank=1), _inputs()))[0]
    assert any("Raise r to 16" in text and "effective rank of the gates is 1.0" in text for text in collapsed.advice)
    full = diagnose(gates_of(*[_block(_gates(0.1, 0.1), _inputs())] * 2))
    assert any("Try a lower r: in 2 of 2 blocks" in text for text in full.advice)
    # One unit always has rank 1, and nearly constant gates have the rank of noise.
    one = [_block(_gates(0.1, 0.1, rank=1), _inputs(units=1))] * 3
    still = [_block(_gates(0.003, 0.004), _inputs())] * 3
    for idle in (one, still, [*one, *still]):
        assert not any("lower r" in text for text in diagnose(gates_of(*idle)).advice)
    full = diagnose(gates_of(*[_block(_gates(0.1, 0.1), _inputs())] * 2, *one, *still))
    assert any("Try a lower r: in 2 of 2 blocks" in text for text in full.advice)
    wide = diagnose(gates_of(*[_block(_gates(0.1, 0.1), _inputs(never=2))] * 2))
    assert any("Raise r: 25 % of all 16 hidden units" in text for text in wide.advice)


def test_stuck_needs_a_relu() -> None:
    """Other activations are not stuck if their input is never above 0."""
    block = _block(_SPECIFIC, _inputs(never=5))
    stuck, other = _diagnosed(block, replace(block, activation="SiLU"))
    assert stuck.verdicts[0] == "stuck"
    assert "stuck" not in other.verdicts
    assert any("another initialization" in text for text in stuck.advice)
    (on,) = _diagnosed(_block(_SPECIFIC, _inputs(always=5)))
    assert on.verdicts[0] == "stuck"
    assert any("Another initialization is not needed" in text for text in on.advice)


def _with_space() -> BlockGates:
    block = _block(_gates(0.001, 0.001), squeeze="none")
    return replace(block, gates=replace(block.gates, space=0.01 * _IMAGES * np.ones(_CHANNELS)))


_ODD: dict[str, Callable[[], BlockGates]] = {
    "one class": lambda: block_of(_SPECIFIC, np.zeros(_IMAGES, np.int64)),
    "classes without images": lambda: block_of(_SPECIFIC, _LABELS, classes=20),
    "one image a class": lambda: block_of(_SPECIFIC[:6], _LABELS[:6]),
    "one image": lambda: block_of(_SPECIFIC[:1], _LABELS[:1]),
    "nothing varies": lambda: _block(np.full((_IMAGES, 4), np.float64(np.float32(0.1)))),
    "some channels do not vary": lambda: _block(np.where(np.arange(_CHANNELS) < 20, 0.5, _SPECIFIC)),
    "all zero": lambda: _block(np.zeros((_IMAGES, 4)), gate="ReLU"),
    "one channel": lambda: _block(_SPECIFIC[:, :1]),
    "relu gates": lambda: _block(4 * _SPECIFIC, gate="ReLU"),
    "tanh gates": lambda: _block(2 * _SPECIFIC - 1, gate="Tanh"),
    "no sample": lambda: replace(_block(_SPECIFIC), sample_gates=np.zeros((0, _CHANNELS), np.float32)),
    "no stage": lambda: _block(_SPECIFIC, stage=None),
    "maps of gates": _with_space,
}


@pytest.mark.parametrize("what", _ODD)
def test_odd_recordings(what: str) -> None:
    """A verdict, a reason and JSON exist even if figures are undefined."""
    diagnosis = diagnose(gates_of(_ODD[what]()))
    found = diagnosis.blocks[0]
    assert found.verdicts
    assert all(found.reasons)
    assert not any("nan" in text.split() for text in (*found.reasons, *found.advice, *diagnosis.advice))
    text = json.dumps(diagnosis.to_json(), allow_nan=False)
    assert json.loads(text)["blocks"][0]["verdicts"] == list(found.verdicts)
    if what in ("one class", "one image a class", "one image"):
        assert found.figures["eta_squared_adjusted"] is None
        assert found.verdicts[0] in ("varied", "constant")
    if what in ("nothing varies", "all zero"):
        assert "constant" in found.verdicts
        assert "collapsed rank" not in found.verdicts
    if what == "maps of gates":
        assert "constant" not in found.verdicts  # over positions they vary
    if what == "no sample":
        assert found.figures["rank"] is None


def test_the_same_each_time() -> None:
    """A diagnosis is deterministic."""
    gates = gates_of(_block(_SPECIFIC, _inputs()))
    assert diagnose(gates).to_json() == diagnose(gates).to_json()


def test_thresholds() -> None:
    """Each threshold is documented and validated."""
    assert all(f"        {name}: " in (Thresholds.__doc__ or "") for name in asdict(Thresholds()))
    assert diagnose(gates_of(_block(_SPECIFIC))).thresholds == Thresholds()
    for value in (-0.1, nan, "much"):
        with pytest.raises(ValueError, match="the threshold rank must be a finite number"):
            Thresholds(rank=value)  # type: ignore[arg-type]
    strict = _diagnosed(_block(_SPECIFIC), specific=0.99)[0]
    assert "varied" in strict.verdicts
    assert "50 %" not in strict.reasons[0]
    assert "99 %" in strict.reasons[0]


def test_ablation_of_another_network() -> None:
    """The error names the block."""
    with pytest.raises(ValueError, match="does not have the ablated block 'other'"):
        diagnose(gates_of(_block(_SPECIFIC)), [_ablation(0.1, name="other")])
