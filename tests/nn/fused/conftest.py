from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from senet.nn.fused import fused_choice, set_fused

# Each kind of arguments of a pass is compiled anew, two seconds or more: these cases run with the other tests, which
# have each pass compiled for contiguous maps of float64, or for channels last in bfloat16; the rest is slow.
_FAST: dict[str, Callable[[dict[str, Any]], bool]] = {
    "test_by_either_way": lambda case: case["shape"] == (3, 6, 4, 5) and case["layout"] == "contiguous",
    "test_sum_and_relu": lambda case: case["layout"] == "contiguous",
    "test_ways_agree": lambda case: (case["dtype"], case["layout"]) == (torch.bfloat16, torch.channels_last),
}
_FAST |= dict.fromkeys(
    (
        "test_low_precision",
        "test_half_precision",
        "test_a_large_mean_costs_no_digits",
        "test_a_large_mean_before_an_activation",
        "test_a_pixel_costs_no_digits",
        "test_gradients_without_gaps_and_with",
        "test_eps_of_numpy_and_some_channels_of_a_map",
        "test_not_a_number_at_the_relu",
    ),
    lambda case: False,
)


def _is_shared(case: dict[str, Any]) -> bool:
    """Whether a case of `test_activated` is of the kind that is compiled for the fast tests."""
    return case.get("activation", "silu") == "silu" and case.get("layout", "contiguous") == "contiguous"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the other cases as slow."""
    for item in items:
        case = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        is_fast = _FAST.get(getattr(item, "originalname", "")) if case.get("by") == "inductor" else None
        if is_fast is None and case.get("by") == "inductor" and item.path.name == "test_activated.py":
            is_fast = _is_shared
        if is_fast is not None and not is_fast(case):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["inductor", "aten"])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to run the passes."""
    before = fused_choice()
    set_fused(request.param)
    yield request.param
    set_fused(before)


@pytest.fixture
def restored() -> Iterator[None]:
    """The choice is as before when a test ends that makes its own."""
    before = fused_choice()
    yield
    set_fused(before)
