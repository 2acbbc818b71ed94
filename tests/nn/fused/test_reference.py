"""Single formulas of `reference`, with numbers that whole passes rarely meet."""

import pytest
import torch

from senet.nn.fused import reference
from tests.helpers import assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_variance_rounded_below_zero_is_zero(dtype: torch.dtype) -> None:
    """The mean square of a constant channel may round below its squared mean: with a small eps the root was NaN."""
    mean = torch.tensor([0.5, -3.0, 0.0], dtype=dtype)
    square = mean * mean * (1 - 2 * torch.finfo(dtype).eps)
    weight, bias = torch.tensor([2.0, 1.0, -1.0], dtype=dtype), torch.tensor([0.0, 1.0, 2.0], dtype=dtype)
    assert bool((square - mean * mean)[:2].lt(0).all())
    z, a, r, var = reference.gather_stats(mean.expand(4, 3), mean, square, 20, weight, bias, 1e-20)
    assert torch.equal(var, torch.zeros(3, dtype=dtype))
    assert_close(r, torch.full((3,), 1e10, dtype=dtype), 1e-6)
    assert_close(a, 1e10 * weight, 1e-6)
    assert torch.equal(z, bias.expand(4, 3))


def test_the_running_variance_is_unbiased() -> None:
    y = torch.randn(3, 4, 5, dtype=torch.float64)
    mean, square = y.mean((0, 2)), y.square().mean((0, 2))
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    *_, var = reference.gather_stats(y.mean(2), mean, square, 15, one, zero, 1e-5)
    assert_close(var, y.transpose(0, 1).flatten(1).var(1, correction=1), 1e-12)
