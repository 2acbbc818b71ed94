import itertools
import math
import sys

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from senet.study.report.statistics import (
    LEAST_FOR_WILCOXON,
    MOST_SEEDS,
    Agreement,
    Paired,
    agreement,
    detectable,
    holm,
    paired,
    power,
    seeds_needed,
)


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_paired_difference_by_hand() -> None:
    """Differences -1, -2, -3: mean -2, deviation 1, t = -2 sqrt(3) with 2 degrees of freedom."""
    found = paired(by_seed([9.0, 10.0, 8.0]), by_seed([10.0, 12.0, 11.0]))
    assert found is not None
    assert (found.seeds, found.values) == ((0, 1, 2), (-1.0, -2.0, -3.0))
    assert (found.mean, found.deviation) == (-2.0, 1.0)
    # With 2 degrees of freedom the distribution function of t is 1/2 + t / (2 sqrt(2 + t^2)); here t^2 = 12.
    t = 2 * math.sqrt(3)
    assert found.t_p == pytest.approx(1 - t / math.sqrt(2 + t**2), rel=1e-12)
    # Student's table: 4.303 with 2 degrees of freedom.
    assert float(found.estimate.half) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)


def test_the_paired_test_is_scipys_of_both_arms() -> None:
    generator = np.random.default_rng(1)
    for seeds in (2, 3, 8):
        one, two = generator.normal(20, 1, (2, seeds))
        found = paired(by_seed(list(one)), by_seed(list(two)))
        assert found is not None
        assert found.t_p == pytest.approx(scipy.stats.ttest_rel(one, two).pvalue, rel=1e-6)
        interval = scipy.stats.ttest_rel(one, two).confidence_interval()
        half = float(found.estimate.half)
        np.testing.assert_allclose([found.mean - half, found.mean + half], interval, rtol=1e-6, atol=1e-8)


def test_only_seeds_that_both_have() -> None:
    found = paired({0: 10.0, 2: 11.0, 5: 12.0}, {5: 11.5, 1: 3.0, 2: 11.25})
    assert found == Paired((2, 5), (-0.25, 0.5))
    assert paired({0: 10.0}, {1: 10.0}) is None
    assert paired({}, {1: 10.0}) is None


def test_one_seed_has_a_difference_and_nothing_more() -> None:
    found = paired({3: 10.0}, {3: 10.5})
    assert found is not None
    assert (found.mean, found.t_p, found.wilcoxon_p) == (-0.5, None, None)
    assert math.isnan(found.estimate.half)
    assert math.isnan(found.deviation)


@pytest.mark.parametrize("difference", [0.0, 0.02])
def test_equal_differences_are_no_proof(difference: float) -> None:
    """A deviation of zero would make p zero; and 45.3 - 45.28 and 46.1 - 46.08 are equal only when rounded."""
    errors = [45.28, 46.08, 47.12]
    found = paired(by_seed([round(error + difference, 2) for error in errors]), by_seed(errors))
    assert found is not None
    assert found.constant
    assert found.mean == pytest.approx(difference)
    assert found.t_p is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_error_that_is_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=r"the error of seed 1 is (nan|inf); leave out runs"):
        paired(by_seed([1.0, 2.0]), by_seed([1.0, bad]))


def wilcoxon_by_hand(values: list[float]) -> float:
    """Every choice of signs is as likely: how many have a rank sum at least as far from its middle."""
    ranks = scipy.stats.rankdata(np.abs(values))
    middle = ranks.sum() / 2
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(values))]
    here = abs(ranks[np.array(values) > 0].sum() - middle)
    return float(np.mean([abs(one - middle) >= here - 1e-9 for one in sums]))


@pytest.mark.parametrize(
    "values",
    [
        [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0],
        [-1.0, -2.0, 3.0, -4.0, -5.0, -6.0, 7.0],
        [-0.5, -0.5, 0.5, -1.0, -1.0, -1.5, -2.0],  # ties
    ],
)
def test_wilcoxon_is_exact(values: list[float]) -> None:
    assert paired(by_seed(values), by_seed([0.0] * len(values))) is not None
    assert Paired(tuple(range(len(values))), tuple(values)).wilcoxon_p == pytest.approx(wilcoxon_by_hand(values))


@pytest.mark.parametrize("zeros", [0, 2])
def test_wilcoxon_is_exact_with_ties_and_many_seeds(zeros: int) -> None:
    """As of errors that are counts over 5,000 images; scipy's own choice is then an approximation."""
    steps = np.random.default_rng(3).integers(1, 5, 15) * np.resize([1, -1, -1, -1], 15)
    values = [*(0.02 * steps), *([0.0] * zeros)]
    found = Paired(tuple(range(len(values))), tuple(values)).wilcoxon_p
    assert found == pytest.approx(wilcoxon_by_hand(list(steps)), rel=1e-12)
    assert found != pytest.approx(scipy.stats.wilcoxon(steps).pvalue, rel=1e-3)


def test_wilcoxon_of_many_seeds_is_scipys_where_there_are_no_ties() -> None:
    values = np.random.default_rng(4).normal(0.2, 1, 40)
    found = Paired(tuple(range(40)), tuple(values)).wilcoxon_p
    assert found == pytest.approx(scipy.stats.wilcoxon(values, method="exact").pvalue, rel=1e-9)


def test_wilcoxon_is_left_out_where_it_cannot_find_anything() -> None:
    """Five signs have p values of 2 / 2**5 = 0.0625 and more, six of 0.03125; zeros do not count."""
    assert LEAST_FOR_WILCOXON == 6
    five = Paired((0, 1, 2, 3, 4), (1.0, 2.0, 3.0, 4.0, 5.0))
    assert five.wilcoxon_p is None
    assert Paired((*five.seeds, 5), (*five.values, 0.0)).wilcoxon_p is None
    assert Paired((*five.seeds, 5), (*five.values, 6.0)).wilcoxon_p == 0.03125


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.013 * 3 = 0.039 which may not be below 0.04, 0.03 * 2, 0.2 * 1.
    assert holm([0.03, 0.01, 0.2, 0.013]) == pytest.approx([0.06, 0.04, 0.2, 0.04])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_step_by_step(p_values: list[float]) -> None:
    """By its definition: from the smallest, as long as p is at most alpha over those that are left."""
    alpha, rejected = 0.05, set()
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        if p_values[index] * (len(p_values) - rank) > alpha:
            break
        rejected.add(index)
    corrected = holm(p_values)
    assert {index for index, p in enumerate(corrected) if p <= alpha} == rejected
    assert all(one >= p for one, p in zip(corrected, p_values, strict=True))


def test_holm_refuses_what_is_no_p_value() -> None:
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1, got"):
            holm([0.5, bad])


def tau_by_hand(one: list[float], two: list[float]) -> float:
    pairs = list(itertools.combinations(range(len(one)), 2))
    signs = [np.sign(one[i] - one[j]) * np.sign(two[i] - two[j]) for i, j in pairs]
    return float(np.sum(signs)) / len(pairs)


def test_agreement_of_orders() -> None:
    paper = [22.29, 22.25, 22.26, 22.28, 22.72, 23.30]
    assert agreement(paper, paper).tau == pytest.approx(1)
    assert agreement([-error for error in paper], paper).tau == pytest.approx(-1)
    measured = [9.1, 9.3, 9.2, 9.0, 9.6, 9.5]
    found = agreement(measured, paper)
    assert found.arms == 6
    assert found.tau == pytest.approx(tau_by_hand(measured, paper))
    # Of all orders, those with a tau at least as far from 0.
    taus = [abs(tau_by_hand(list(order), paper)) for order in itertools.permutations(measured)]
    assert found.p == pytest.approx(np.mean([tau >= abs(found.tau or 0) - 1e-9 for tau in taus]))


def test_agreement_with_ties() -> None:
    """Tau-b: of six pairs five have the same order, and one is tied on one side (Kendall 1945)."""
    found = agreement([9.0, 9.0, 9.5, 9.8], [1.0, 2.0, 3.0, 4.0])
    assert found.tau == pytest.approx(5 / math.sqrt(5 * 6))


def test_agreement_of_nothing() -> None:
    assert agreement([], []).tau is None
    assert agreement([1.0], [2.0]).tau is None
    assert agreement([1.0, 1.0 + 1e-12], [2.0, 3.0]).tau is None
    assert agreement([9.1, 9.3], [5.0, 5.0]) == Agreement(2, None, None)  # the paper has no order
    with pytest.raises(ValueError, match="expected as many errors of the paper as measured ones, got 1 and 2"):
        agreement([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="got 2 and 1"):
        agreement([1.0, 2.0], [1.0])


def power_by_hand(effect: float, seeds: int, alpha: float) -> float:
    """The chance of |t| above its threshold, over the distribution of the deviation that is estimated."""
    freedom, shift = seeds - 1, effect * math.sqrt(seeds)
    threshold = scipy.stats.t.isf(alpha / 2, freedom)

    def density(deviation: float) -> float:
        limit = threshold * deviation / math.sqrt(freedom)
        beyond = scipy.stats.norm.sf(limit - shift) + scipy.stats.norm.cdf(-limit - shift)
        return float(scipy.stats.chi.pdf(deviation, freedom) * beyond)

    return float(scipy.integrate.quad(density, 0, math.sqrt(freedom) + 12, limit=400)[0])


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize(("effect", "seeds"), [(0.3, 2), (1.0, 3), (5.0, 3), (-2.0, 4), (0.5, 34), (0.1, 500)])
def test_power(effect: float, seeds: int, alpha: float) -> None:
    assert power(effect, seeds, alpha) == pytest.approx(power_by_hand(abs(effect), seeds, alpha), rel=1e-6)


def test_power_of_no_effect_is_alpha() -> None:
    assert power(0.0, 5, 0.03) == 0.03
    assert power(1e-6, 5, 0.03) == pytest.approx(0.03, rel=1e-6)
    with pytest.raises(ValueError, match="2 seeds or more, got 1"):
        power(1.0, 1, 0.05)


def test_power_is_what_a_simulation_finds() -> None:
    """20,000 studies of five seeds with a true difference of one deviation."""
    differences = np.random.default_rng(0).normal(1, 1, (20_000, 5))
    found = np.mean(scipy.stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert power(1.0, 5, 0.05) == pytest.approx(found, abs=0.01)


def test_seeds_needed() -> None:
    # Tables of power: 34 pairs for an effect of 0.5, 15 for 0.8 and 199 for 0.2, at 0.05 with 80 %.
    assert [seeds_needed(effect, 0.05) for effect in (0.5, 0.8, 0.2)] == [34, 15, 199]
    assert seeds_needed(-0.5, 0.05) == 34
    assert seeds_needed(0.5, 0.01) == next(n for n in range(34, 100) if power_by_hand(0.5, n, 0.01) >= 0.8)
    assert seeds_needed(1e6, 0.05) == 2
    assert seeds_needed(0.0, 0.05) is None
    assert seeds_needed(0.001, 0.05) is None
    edge = next(effect for effect in (0.029, 0.0285, 0.0281, 0.028) if seeds_needed(effect, 0.05) is None)
    assert power(edge, MOST_SEEDS, 0.05) < 0.8


@pytest.mark.parametrize(("seeds", "alpha"), [(2, 0.05), (3, 0.0125), (10, 0.05)])
def test_what_is_detectable(seeds: int, alpha: float) -> None:
    assert power(detectable(2.0, seeds, alpha) / 2.0, seeds, alpha) == pytest.approx(0.8, abs=1e-4)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = paired(by_seed([1.0, 2.0]), by_seed([1.5, 3.0]))
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    assert found is not None
    with pytest.raises(ValueError, match=r"need SciPy \(.+\): pip install -e '.*\[study\]'"):
        found.t_p  # noqa: B018
