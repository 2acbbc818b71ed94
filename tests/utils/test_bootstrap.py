from typing import Any

import numpy as np
import pytest
from scipy import stats

from senet.utils import bootstrap
from senet.utils.bootstrap import percentile_interval, resampled_statistics


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_intervals_are_scipys_percentile_bootstrap(statistic: Any) -> None:
    values = np.random.default_rng(0).exponential(size=60)
    drawn = resampled_statistics(values, statistic, 20_000, np.random.default_rng(1))
    assert drawn.shape == (20_000,)
    expected = stats.bootstrap(
        (values,), statistic, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert percentile_interval(drawn) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_size_of_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(7.0)
    whole = resampled_statistics(values, np.mean, 50, np.random.default_rng(0))
    monkeypatch.setattr(bootstrap, "CHUNK", 20)
    assert np.array_equal(whole, resampled_statistics(values, np.mean, 50, np.random.default_rng(0)))


def test_an_upper_bound_has_no_lower_end() -> None:
    drawn = np.arange(101.0)
    assert percentile_interval(drawn, 0.9) == pytest.approx((5, 95))
    low, high = percentile_interval(drawn, 0.95, one_sided=True)
    assert low == -np.inf
    assert high == pytest.approx(95)


def test_every_value_is_drawn_equally_often() -> None:
    means = resampled_statistics(10.0 ** np.arange(5), np.sum, 4000, np.random.default_rng(0))
    counts = np.array([[int(total) // 10**place % 10 for place in range(5)] for total in means])
    assert counts.sum() == 5 * 4000
    # 4,000 of each are expected, with a deviation of 57.
    assert np.all(abs(counts.sum(0) - 4000) < 250)
