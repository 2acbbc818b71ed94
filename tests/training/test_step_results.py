import math

import pytest
import torch

from senet.training.step_results import StepResult, judge

NUMBERS = (0.7, 0.0, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("loss", NUMBERS)
@pytest.mark.parametrize("norm", [0.7, 0.0, math.inf, math.nan])
@pytest.mark.parametrize("scale", [None, 0.5, 1.0, 2.0, 65536.0])
def test_the_device_finds_what_the_host_reads(loss: float, norm: float, scale: float | None) -> None:
    result = StepResult.of(
        torch.tensor([loss, 3], dtype=torch.float64),
        torch.tensor(norm),
        None if scale is None else torch.tensor(scale),
    )
    verdict = judge(result.values.tolist())
    assert (bool(result.dropped), bool(result.failed)) == (verdict.dropped, bool(verdict.problem))
    assert (bool(result.lost), bool(result.overflow)) == (not math.isfinite(loss), not math.isfinite(norm))
    assert verdict.dropped == (not math.isfinite(loss) or not math.isfinite(norm))
    # Half precision looks for its scale, down to 1: of a gradient that is not finite above that, no fault is made.
    looks = scale is not None and scale > 1 and math.isfinite(loss)
    assert bool(verdict.problem) == (verdict.dropped and not looks)


def test_a_verdict_says_what_is_not_finite() -> None:
    assert judge([0.5, 3.0, 1.0, 0.0]).problem == ""
    assert (judge([0.5, 3.0, 1.0, 0.0]).loss, judge([0.5, 3.0, 1.0, 0.0]).counts) == (0.5, (3.0,))
    assert judge([math.nan, 3.0, math.inf, 0.0]).problem == "the loss is nan"
    assert judge([0.5, 3.0, math.inf, 0.0]).problem == "the norm of the gradient is inf"
    assert judge([0.5, 3.0, math.inf, 1.0]).problem == "the norm of the gradient is inf, at the scale 1.0"
