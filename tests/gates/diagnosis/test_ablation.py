"""Ablations, against runs and resamples by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import senet
from senet.gates.diagnosis.ablation import Ablation, ablate_blocks, compare_predictions
from senet.gates.diagnosis.gate_overrides import override_gates
from senet.gates.diagnosis.predictions import Predictions, predict_with_overrides
from senet.graph.se_modules import find_se
from senet.utils.errors import DataError, GatesError
from tests.helpers import randomise

pytestmark = pytest.mark.usefixtures("traced")


@pytest.fixture
def model() -> nn.Module:
    return randomise(senet.create_model("se_resnet20", num_classes=7)).double().train()


@pytest.fixture
def loader() -> list[tuple[Tensor, Tensor]]:
    """The last batch is smaller."""
    return [(torch.randn(n, 3, 16, 16, dtype=torch.float64), torch.randint(7, (n,))) for n in (5, 5, 3)]


def _values(model: nn.Module, places: tuple[int, ...]) -> dict[str, Tensor]:
    units = find_se(model)
    return {units[i].name: torch.rand(units[i].channels, dtype=torch.float64) for i in places}


@torch.no_grad()
def _by_hand(model: nn.Module, loader: list[tuple[Tensor, Tensor]], values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(M, K) logits of whole runs, and labels."""
    model.eval()
    with override_gates(model, values):
        logits = torch.cat([model(images) for images, _ in loader])
    model.train()
    return logits, torch.cat([labels for _, labels in loader])


def _expect(found: Predictions, logits: Tensor, labels: Tensor, reference: Tensor) -> None:
    order = logits.argsort(1, descending=True)
    np.testing.assert_array_equal(found.wrong1, (order[:, 0] != labels).numpy())
    np.testing.assert_array_equal(found.wrong5, (order[:, :5] != labels[:, None]).all(1).numpy())
    losses = -F.softmax(logits, 1)[torch.arange(len(labels)), labels].log()
    np.testing.assert_allclose(found.losses, losses.numpy(), rtol=1e-9)
    centred, other = (x - x.mean(1, keepdim=True) for x in (logits, reference))
    np.testing.assert_allclose(found.changes, (centred - other).square().mean(1).numpy(), rtol=1e-8, atol=1e-20)
    np.testing.assert_allclose(found.deviation, np.sqrt(centred.numpy().var(0).mean()), rtol=1e-9)


def test_outcomes(model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> None:
    """The original, with fixed blocks, and with each candidate in addition."""
    fixed, candidates = _values(model, (2, 6)), _values(model, (0, 4, 8))
    whole, base, others = predict_with_overrides(model, loader, fixed, candidates)
    plain, labels = _by_hand(model, loader, {})
    with_fixed, _ = _by_hand(model, loader, fixed)
    _expect(whole, plain, labels, plain)
    _expect(base, with_fixed, labels, plain)
    assert list(others) == list(candidates)
    for name, value in candidates.items():
        _expect(others[name], _by_hand(model, loader, {**fixed, name: value})[0], labels, with_fixed)
        assert others[name].changes.min() > 0
    assert len(whole) == 13
    assert all(module.training for module in model.modules())


def test_without_fixed_or_candidates(model: nn.Module, loader: list[tuple[Tensor, Tensor]]) -> None:
    """Without overrides both are the original network; a generator of batches is accepted."""
    whole, base, others = predict_with_overrides(model, iter(loader), {}, {})
    logits, labels = _by_hand(model, loader, {})
    for found in (whole, base):
        _expect(found, logits, labels, logits)
    assert others == {}


@pytest.mark.parametrize("by", ["mean", "one"])
def test_ablations(model: nn.Module, loader: list[tuple[Tensor, Tensor]], by: str) -> None:
    """Point values by hand, with intervals around them; the same each time."""
    values = _values(model, (1, 7))
    found = ablate_blocks(model, loader, values, by=by, resamples=200, seed=3)
    assert [one.name for one in found] == list(values)
    plain, labels = _by_hand(model, loader, {})
    for one in found:
        constant = values[one.name] if by == "mean" else torch.ones_like(values[one.name])
        other, _ = _by_hand(model, loader, {one.name: constant})
        change = 100 * float((other.argmax(1) != labels).double().mean() - (plain.argmax(1) != labels).double().mean())
        assert one.by == by
        assert one.top1.value == pytest.approx(change, abs=1e-9)
        assert one.loss.value == pytest.approx(float(F.cross_entropy(other, labels) - F.cross_entropy(plain, labels)))
        assert one.loss.low < one.loss.value < one.loss.high
        centred, reference = (x - x.mean(1, keepdim=True) for x in (other, plain))
        relative = (centred - reference).square().mean().sqrt() / reference.var(0, correction=0).mean().sqrt()
        assert one.logits == pytest.approx(float(relative), rel=1e-9)
    assert found == ablate_blocks(model, loader, values, by=by, resamples=200, seed=3)


def _compared(before: Predictions, after: Predictions, **options: Any) -> Ablation:
    return compare_predictions("se", "mean", before, after, **options)


def _drawn(images: int = 400) -> tuple[Predictions, Predictions]:
    draw = np.random.default_rng(0)
    first = Predictions(
        draw.random(images) < 0.3, draw.random(images) < 0.1, draw.random(images), np.zeros(images), 2.0
    )
    worse = first.wrong1 | (draw.random(images) < 0.1)
    losses = first.losses + draw.normal(0.1, 0.5, images)
    return first, Predictions(worse, first.wrong5.copy(), losses, np.full(images, 0.25), 1.0)


def test_intervals_are_of_resamples() -> None:
    """Percentiles of a plain bootstrap, images drawn one by one, within what two draws differ by."""
    before, after = _drawn()
    found = _compared(before, after, resamples=4000, confidence=0.9, seed=1)
    draw = np.random.default_rng(7)
    errors, losses = [], []
    for _ in range(4000):
        places = draw.integers(0, len(before), len(before))
        errors.append(100 * (after.wrong1[places].mean() - before.wrong1[places].mean()))
        losses.append((after.losses[places] - before.losses[places]).mean())
    for span, drawn in ((found.top1, errors), (found.loss, losses)):
        width = np.std(drawn)
        assert abs(span.low - np.quantile(drawn, 0.05)) < 0.25 * width
        assert abs(span.high - np.quantile(drawn, 0.95)) < 0.25 * width
        assert span.low < span.value < span.high
    assert (found.top5.low, found.top5.value, found.top5.high) == (0, 0, 0)
    assert found.logits == pytest.approx(0.5 / 2)


@pytest.mark.parametrize(("confidence", "low", "high"), [(0.6, 0.0, 1.0), (0.4, 0.5, 0.5)])
def test_resamples_of_two_images(confidence: float, low: float, high: float) -> None:
    """A quarter of them is one image twice, a quarter the other one twice, and half is both."""
    first, second = np.array([True, False]), np.array([False, True])
    before = Predictions(np.zeros(2, bool), first, np.zeros(2), np.zeros(2), 1.0)
    after = Predictions(second, second, np.array([0.0, 1.0]), np.zeros(2), 1.0)
    found = _compared(before, after, resamples=4000, confidence=confidence, seed=1)
    assert (found.loss.low, found.loss.value, found.loss.high) == (low, 0.5, high)
    assert (found.top1.low, found.top1.value, found.top1.high) == (100 * low, 50, 100 * high)
    # One became right, the other one wrong.
    assert (found.top5.low, found.top5.value, found.top5.high) == (100 * (2 * low - 1), 0, 100 * (2 * high - 1))


def test_one_sided() -> None:
    """An upper bound at 95 % is the upper end of the interval at 90 %."""
    before, after = _drawn()
    bound, both = (_compared(before, after, confidence=c, one_sided=s) for c, s in ((0.95, True), (0.9, False)))
    assert bound.top1.low == -np.inf
    assert bound.loss.high == pytest.approx(both.loss.high)
    assert bound.top1.high == pytest.approx(both.top1.high)


def test_covers_the_truth() -> None:
    """A 90 % interval holds the true difference about nine times of ten."""
    draw, hits = np.random.default_rng(0), 0
    for seed in range(200):
        zero = np.zeros(300, bool)
        losses = draw.normal(0.5, 1.0, 300)
        before = Predictions(zero, zero, np.zeros(300), np.zeros(300), 1.0)
        after = Predictions(zero, zero, losses, np.zeros(300), 1.0)
        span = _compared(before, after, resamples=200, confidence=0.9, seed=seed).loss
        hits += span.low <= 0.5 <= span.high
    assert 165 <= hits <= 195


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples in parts of any size are the same ones."""
    before, after = _drawn()
    whole = _compared(before, after, resamples=50)
    monkeypatch.setattr("senet.utils.bootstrap.CHUNK", 1000)
    assert _compared(before, after, resamples=50) == whole


def _nan(model: nn.Module) -> nn.Module:
    find_se(model)[3].expand.bias.data.fill_(torch.nan)
    return model


_BAD: dict[str, tuple[Callable[[nn.Module, list[tuple[Tensor, Tensor]]], object], type[Exception], str]] = {
    "empty": (lambda m, _: ablate_blocks(m, [], {}), DataError, "no images"),
    "by": (lambda m, x: ablate_blocks(m, x, {}, by="means"), ValueError, "'means'; did you mean 'mean'"),
    "name": (lambda m, x: ablate_blocks(m, x, {"se": torch.ones(3)}), ValueError, "unknown SE module 'se'"),
    "twice": (
        lambda m, x: predict_with_overrides(m, x, _values(m, (1,)), _values(m, (1,))),
        ValueError,
        "already fixed",
    ),
    "resamples": (
        lambda m, x: ablate_blocks(m, x, {}, resamples=0),
        ValueError,
        "resamples must be 1 or more, .*got 0",
    ),
    "confidence": (lambda m, x: ablate_blocks(m, x, {}, confidence=95), ValueError, "between 0 and 1, .*got 95"),
    "labels": (lambda m, x: ablate_blocks(m, [(x[0][0], x[0][1] + 9)], {}), DataError, "but the network has 7 classes"),
    "negative": (lambda m, x: ablate_blocks(m, [(x[0][0], x[0][1] - 9)], {}), DataError, "a label is -"),
    "nan": (lambda m, x: ablate_blocks(_nan(m), x, {}), GatesError, "logits are not finite"),
    "pairs": (lambda m, x: _compared(_drawn(4)[0], _drawn(5)[0]), ValueError, "got 4 and 5"),
}


@pytest.mark.parametrize("what", _BAD)
def test_bad_input(model: nn.Module, loader: list[tuple[Tensor, Tensor]], what: str) -> None:
    """Each error names the problem."""
    act, kind, message = _BAD[what]
    with pytest.raises(kind, match=message):
        act(model, loader)
    assert model.training
    assert not any(unit.gate._forward_hooks for unit in find_se(model))
