"""Analysis of variance, ranks, patterns, levels and hidden units, against SciPy and numpy by hand."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from senet.gates.diagnosis.analysis import (
    adjusted_eta_squared,
    effective_rank,
    eta_squared,
    f_test,
    hidden_unit_shares,
    saturation,
    scale_share,
    shuffled_rank,
)
from tests.gates.statistics_of import block_of, hidden_of, statistics_of


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def _classes(draw: np.random.Generator, shift: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(200, 12) gates of 5 classes of unequal sizes; the first half of the channels differs by class."""
    labels = draw.choice(5, 200, p=[0.1, 0.15, 0.2, 0.25, 0.3])
    shifts = shift * draw.normal(size=(5, 12))
    shifts[:, 6:] = 0
    return 0.5 + 0.02 * (draw.normal(size=(200, 12)) + shifts[labels]), labels


def test_f_test(draw: np.random.Generator) -> None:
    """SciPy's analysis of variance channel by channel, corrected by hand as Benjamini and Hochberg write it."""
    values, labels = _classes(draw, 0.6)
    raw = np.array([stats.f_oneway(*(column[labels == k] for k in range(5))).pvalue for column in values.T])
    order = raw.argsort()
    expected = np.empty(12)
    smallest = 1.0
    for rank in range(12, 0, -1):
        smallest = min(smallest, raw[order[rank - 1]] * 12 / rank)
        expected[order[rank - 1]] = smallest
    found = f_test(statistics_of(values, labels, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert (found[:6] < 0.01).all()
    assert (found[6:] > 0.05).all()
    assert (found >= raw).all()


def test_eta_squared(draw: np.random.Generator) -> None:
    """The square of the correlation between gates and their class means; adjusted as R squared is."""
    values, labels = _classes(draw, 0.6)
    means = np.stack([values[labels == k].mean(0) for k in range(5)])[labels]
    expected = np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(values.T, means.T, strict=True)])
    statistics = statistics_of(values, labels, 7)  # two classes without images change nothing
    np.testing.assert_allclose(eta_squared(statistics), expected, rtol=1e-9)
    np.testing.assert_allclose(adjusted_eta_squared(statistics), 1 - (1 - expected) * 199 / 195, rtol=1e-9)


def test_adjusted_eta_squared_is_0_by_chance(draw: np.random.Generator) -> None:
    """With two images a class half of the variance is between classes, and it means nothing."""
    statistics = statistics_of(draw.random((100, 400)), np.repeat(np.arange(50), 2), 50)
    assert abs(eta_squared(statistics).mean() - 49 / 99) < 0.02
    assert abs(adjusted_eta_squared(statistics).mean()) < 0.02


def test_what_cannot_be_tested(draw: np.random.Generator) -> None:
    """A channel that does not vary, one class, one image a class: nan, and no warning."""
    values, labels = draw.random((20, 3)), np.arange(20) % 4
    values[:, 1] = np.float32(0.1)  # the mean of which is rounded
    values[:, 2] = labels / 7  # nothing within classes
    found = statistics_of(values, labels, 4)
    assert np.isnan(eta_squared(found)).tolist() == [False, True, False]
    assert np.isnan(f_test(found)).tolist() == [False, True, False]
    assert eta_squared(found)[2] == pytest.approx(1)
    assert f_test(found)[2] == 0
    one = statistics_of(values, np.zeros(20, np.int64), 1)
    assert np.isnan([eta_squared(one), adjusted_eta_squared(one), f_test(one)]).all()
    each = statistics_of(values, np.arange(20), 20)
    assert np.isnan([adjusted_eta_squared(each), f_test(each)]).all()
    still = statistics_of(np.full((20, 3), 0.3), labels, 4)
    assert np.isnan([eta_squared(still), f_test(still)]).all()
    assert np.isnan(scale_share(still))


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ValueError, match=r"pip install -e '.*\[report\]'"):
        f_test(statistics_of(np.random.rand(6, 2), np.arange(6) % 2, 2))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank(draw: np.random.Generator, rank: int) -> None:
    """Equal singular values count one each, the mean of the rows and the scale do not."""
    rows = np.linalg.qr(draw.normal(size=(40, rank + 1)) + 1)[0]
    rows = np.linalg.qr(rows - rows.mean(0))[0][:, :rank]
    columns = np.linalg.qr(draw.normal(size=(20, rank)))[0]
    matrix = 3 * rows @ columns.T + draw.normal(size=20)
    assert effective_rank(matrix) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_by_hand() -> None:
    """Singular values 3 and 1: the entropy of 3/4 and 1/4."""
    matrix = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(matrix) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_effective_rank_of_nothing() -> None:
    """No rows, one row, no variation but rounding."""
    for matrix in (np.zeros((0, 4)), np.ones((1, 4)), np.full((50, 4), np.float32(0.1)), np.zeros((5, 4))):
        assert effective_rank(matrix) == 0
        assert shuffled_rank(matrix) == 0


def test_shuffled_rank(draw: np.random.Generator) -> None:
    """That of independent channels with the same values, whatever their sizes; the same for the same seed."""
    matrix = draw.normal(size=(100, 1)) * np.linspace(0.1, 2, 30)
    independent = draw.normal(size=(100, 30)) * np.linspace(0.1, 2, 30)
    assert effective_rank(matrix) == pytest.approx(1)
    assert shuffled_rank(matrix) == pytest.approx(effective_rank(independent), rel=0.05)
    assert shuffled_rank(matrix) == shuffled_rank(matrix) != shuffled_rank(matrix, seed=1)


def test_scale_share(draw: np.random.Generator) -> None:
    """1 where classes scale a pattern, 1 / C where they differ anyhow, and what least squares find between."""
    labels, pattern = np.repeat(np.arange(40), 5), draw.uniform(0.2, 0.8, 50)
    scales = draw.normal(1, 0.05, 40)
    assert scale_share(statistics_of(scales[labels][:, None] * pattern, labels, 40)) == pytest.approx(1)
    free = 0.5 + 0.02 * draw.normal(size=(40, 50))
    assert scale_share(statistics_of(free[labels], labels, 40)) == pytest.approx(1 / 50, abs=0.02)
    mixed = (scales[:, None] * pattern + 0.02 * draw.normal(size=(40, 50)))[labels]
    centred = mixed - mixed.mean(0)
    fitted = np.linalg.lstsq(mixed.mean(0)[:, None], centred.T)[0].T * mixed.mean(0)
    expected = np.square(fitted).sum() / np.square(centred).sum()
    assert scale_share(statistics_of(mixed, labels, 40)) == pytest.approx(expected)
    assert 0.3 < expected < 0.9


@pytest.mark.parametrize("gain", [1.0, 2.0, -1.5])
def test_levels(draw: np.random.Generator, gain: float) -> None:
    """Counted one by one, bins being finer than the margin."""
    values = draw.beta(0.3, 0.3, (500, 20))
    values[:, 0], values[:, 1] = draw.uniform(0.92, 1, 500), draw.uniform(0, 0.05, 500)
    found = saturation(block_of(gain * values, np.zeros(500, np.int64), gain=gain))
    assert found.on == pytest.approx((values > 0.9).mean(), abs=0.005)
    assert found.off == pytest.approx((values < 0.1).mean(), abs=0.005)
    assert (found.channels_on, found.channels_off) == (1 / 20, 1 / 20)


def test_levels_of_other_gates(draw: np.random.Generator) -> None:
    """ReLU has no upper end; tanh is open at both."""
    labels = np.zeros(300, np.int64)
    relu = saturation(block_of(draw.normal(-3, 1, (300, 8)).clip(0), labels, gate="ReLU"))
    assert relu.on == 0
    assert relu.off > 0.98
    values = np.tanh(draw.normal(0, 3, (300, 8)))
    tanh = saturation(block_of(values, labels, gate="Tanh"))
    assert tanh.on == pytest.approx((abs(values) > 0.9).mean(), abs=0.02)
    assert tanh.off == pytest.approx((abs(values) < 0.1).mean(), abs=0.02)


def test_hidden_shares(draw: np.random.Generator) -> None:
    """Units that are never on, always on, or that nothing reads."""
    inputs, weights = draw.normal(size=(200, 8)), np.ones(8)
    inputs[:, 0] = -1  # never on, and so unused
    inputs[:, 1] = abs(inputs[:, 1]) + 0.1
    inputs[:, 2] = 0.7  # always on, and does not vary
    weights[3], weights[4] = 0, 0.5
    found = hidden_unit_shares(hidden_of(inputs, weights))
    assert (found.never_on, found.always_on, found.unused) == (1 / 8, 2 / 8, 3 / 8)
    assert hidden_unit_shares(hidden_of(inputs, np.zeros(8))).unused == 1
