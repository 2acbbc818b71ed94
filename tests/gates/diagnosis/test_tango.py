from math import inf, log, sqrt
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from senet.gates.diagnosis.tango import change_interval, images_needed

Z = NormalDist().inv_cdf(0.95)


def score(worse: float, better: float, images: int, change: float) -> float:
    """The score statistic by its definition: the likelihood under a given change is maximised by search."""

    def likelihood(share: float) -> float:  # of images that become right
        shares = ((worse, share + change), (better, share), (images - worse - better, 1 - 2 * share - change))
        return sum(n * (log(p) if p > 0 else -inf) for n, p in shares if n)

    low, high = max(0.0, -change), (1 - change) / 2
    for _ in range(200):
        third = (high - low) / 3
        if likelihood(low + third) < likelihood(high - third):
            low += third
        else:
            high -= third
    variance = images * (2 * (low + high) / 2 + change * (1 - change))
    return (worse - better - images * change) / sqrt(variance)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(200, 5000))
def test_bounds_are_where_the_test_refuses(worse: int, better: int, images: int) -> None:
    found = change_interval(worse, better, images, 0.95)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(100 * (worse - better) / images)
    assert score(worse, better, images, found.high / 100) == pytest.approx(-Z, abs=1e-3)
    mirrored = change_interval(better, worse, images, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("images", [10, 1000, 100_000])
def test_no_image_changed_is_no_proof(images: int) -> None:
    found = change_interval(0, 0, images, 0.95)
    assert found.value == 0
    assert found.high == pytest.approx(100 * Z**2 / (images + Z**2))


def test_bound_holds_as_often_as_it_says() -> None:
    images, worse, better = 800, 0.02, 0.015
    draws = torch.distributions.Multinomial(images, torch.tensor([worse, better, 1 - worse - better])).sample((2000,))
    counted = [(float(counts[0]), float(counts[1])) for counts in draws]
    above = [change_interval(*counts, images, 0.95).high >= 100 * (worse - better) for counts in counted]
    assert sum(above) / len(above) == pytest.approx(0.95, abs=0.012)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(50, 3000), st.floats(0.05, 5))
def test_images_needed(worse: int, better: int, images: int, max_drop: float) -> None:
    needed = images_needed(worse, better, images, max_drop, 0.95)
    if 100 * (worse - better) / images >= max_drop:
        assert needed is None
        return
    assert needed is not None
    q, d, m = (worse + better) / images, (worse - better) / images, max_drop / 100
    times = needed / images
    assert change_interval(worse * times, better * times, images * times, 0.95).high <= max_drop * (1 + 1e-6)
    fewer = (needed - 1) / images
    if fewer > 0:
        assert change_interval(worse * fewer, better * fewer, images * fewer, 0.95).high > max_drop * (1 - 1e-6)
    if not worse + better:
        assert needed == pytest.approx(Z**2 * (1 - m) / m, abs=1)
    elif needed * q > 50:  # the formula is of large numbers
        assert needed == pytest.approx(Z**2 * (q - d * d) / (m - d) ** 2, rel=0.5)
