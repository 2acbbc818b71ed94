import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from senet.evaluation.logits import first_non_finite
from senet.evaluation.metrics import label_ranks


@settings(deadline=None)
@given(st.integers(1, 6).flatmap(lambda k: st.lists(st.lists(st.integers(-2, 2), min_size=k, max_size=k), min_size=1)))
def test_ranks_of_labels(rows: list[list[int]]) -> None:
    logits = torch.tensor(rows, dtype=torch.float32)
    for label in range(logits.shape[1]):
        ranks = label_ranks(logits, torch.full((len(rows),), label))
        expected = [sorted(range(len(row)), key=lambda i: (-row[i], i)).index(label) for row in rows]
        assert ranks.tolist() == expected


def test_first_row_that_is_not_finite() -> None:
    values = torch.zeros(4, 3, 2)
    assert first_non_finite(values) is None
    values[2, 1, 1], values[3, 0, 0] = float("inf"), float("nan")
    assert first_non_finite(values) == 2
    assert first_non_finite(values[:0]) is None
