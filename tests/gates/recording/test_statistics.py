import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from senet.gates.recording.statistics import Statistics, bounded_edges, unbounded_edges
from tests.gates.recorded import check, close


def _of(values, labels, classes=3, edges=None, comoments=True):
    statistics = Statistics.empty(
        classes, values.shape[-1], bounded_edges(0, 1) if edges is None else edges, comoments=comoments
    )
    statistics.add(torch.from_numpy(values), torch.from_numpy(labels))
    return statistics


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    seed=st.integers(0, 1000),
    offset=st.sampled_from([0.0, 1e6]),
    positions=st.sampled_from([1, 4]),
)
def test_any_partition_merges_to_the_whole(cuts, seed, offset, positions):
    draw = np.random.default_rng(seed)
    values = draw.normal(offset, 1, (40, positions, 5))
    labels = draw.integers(0, 4, 40)
    whole = Statistics.empty(4, 5, unbounded_edges(negative=True), comoments=True)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        part = values[start:stop] if positions > 1 else values[start:stop, 0]
        whole.merge(_of(part, labels[start:stop], 4, whole.edges))
    # At an offset the values themselves have lost as many digits of their deviations.
    check(whole, values, labels, 1e-12 if offset == 0 else 1e-9)


def test_adding_in_pieces_is_as_adding_at_once():
    draw = np.random.default_rng(0)
    values, labels = draw.uniform(size=(30, 4)), draw.integers(0, 3, 30)
    pieces = Statistics.empty(3, 4, bounded_edges(0, 1), comoments=True)
    for place in range(30):
        pieces.add(torch.from_numpy(values[place : place + 1]), torch.from_numpy(labels[place : place + 1]))
    check(pieces, values[:, None], labels)
    check(_of(values, labels), values[:, None], labels)
    close(pieces.correlation, np.corrcoef(values.T), 1e-12)


def test_small_variation_on_a_large_mean_is_kept():
    values = 1e8 + np.array([[0.0], [1.0], [2.0], [3.0]])
    statistics = _of(values[:2], np.array([0, 1]))
    statistics.merge(_of(values[2:], np.array([0, 1])))
    assert statistics.variance[0] == 1.25


def test_a_channel_that_does_not_vary_has_no_correlation():
    values = np.random.default_rng(0).uniform(size=(9, 3))
    values[:, 1] = 0.5
    found = _of(values, np.zeros(9, np.int64)).correlation
    assert found[1].tolist() == [0, 0, 0]
    assert found[0, 0] == pytest.approx(1)


def test_edges():
    assert bounded_edges(0.0, -2.0)[[0, -1]].tolist() == [-2, 0]
    for negative, count in ((False, 65), (True, 129)):
        edges = unbounded_edges(negative=negative)
        assert len(edges) == count
        assert edges[-1] == pytest.approx(1000)
        widths = np.diff(np.arcsinh(edges / 0.1))
        assert widths.max() - widths.min() < 1e-12
        assert 0 in edges
    assert np.array_equal(edges, -edges[::-1])


def test_values_on_edges_and_outside_are_counted_as_numpy_does():
    edges = bounded_edges(0, 1)
    values = np.array([[0.0], [1 / 64], [1.0], [-3.0], [7.0], [0.5]])
    counts = _of(values, np.zeros(6, np.int64)).histogram[0]
    assert counts.tolist() == np.histogram(values.clip(0, 1), edges)[0].tolist()
    assert counts.sum() == 6


def test_what_does_not_fit_is_not_merged():
    one = _of(np.ones((2, 3)), np.array([0, 1]))
    for other in (
        _of(np.ones((2, 4)), np.array([0, 1])),
        _of(np.ones((2, 3)), np.array([0, 1]), classes=5),
        _of(np.ones((2, 3)), np.array([0, 1]), edges=bounded_edges(0, 2)),
        _of(np.ones((2, 3)), np.array([0, 1]), comoments=False),
    ):
        with pytest.raises(ValueError, match="classes and channels|bins"):
            one.merge(other)


def test_no_images_change_nothing():
    one = _of(np.random.default_rng(0).uniform(size=(4, 2)), np.array([0, 0, 1, 2]))
    before = one.copy()
    one.add(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    one.merge(Statistics.empty(3, 2, one.edges, comoments=True))
    for name in ("means", "squares", "images", "histogram", "minimum", "maximum", "comoments"):
        assert np.array_equal(getattr(one, name), getattr(before, name))
    assert Statistics.empty(3, 2, one.edges).mean.tolist() == [0, 0]
