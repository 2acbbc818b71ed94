"""Counts of single operations; `tests/costs/test_cost.py` compares those of whole networks with PyTorch's counter."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.graph.counts import Counts, count
from senet.graph.recorder import trace


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.relu, Counts(0, 24)),
        (lambda x: x.relu_(), Counts(0, 24)),
        (lambda x: x.view(6, 4), Counts(0, 0)),
        (torch.empty_like, Counts(0, 0)),
        (lambda x: x @ x.new_empty(4, 5), Counts(0, 0)),  # the product is counted before; this is its reshaping
        (lambda x: x > 0, Counts(0, 0)),  # no floating-point number is written
        (lambda x: x[0] @ x[0].T, Counts(3 * 4 * 3, 0)),
        (lambda x: x[0] @ x[1, 0], Counts(3 * 4, 0)),
        (lambda x: x[0, 0] @ x[0, 1], Counts(4, 0)),
        (lambda x: torch.addmv(x[0, :, 0], x[0], x[1, 0]), Counts(3 * 4, 0)),
        (lambda x: F.conv1d(x, x.new_empty(5, 3, 2)), Counts(2 * 5 * 3 * 3 * 2, 0)),
    ],
)
def test_counts_of_an_operation(function: Callable[[Tensor], Tensor], expected: Counts) -> None:
    run = trace(Function(function), torch.empty(2, 3, 4))
    assert count(run.operations[-1]) == expected
