from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from senet.nn.fused import fused_choice, set_fused

# Both layouts, and both precisions that networks train in.
_KINDS = ((torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last))
# Each case compiles kernels, about two seconds: these run with the other tests, the rest is slow.
_FAST: dict[str, Callable[[dict[str, Any]], bool]] = {
    "test_by_either_way": lambda case: case["shape"] == (3, 6, 4, 5),
    "test_low_precision": lambda case: case["dtype"] == torch.bfloat16 and not case["whole"],
    "test_ways_agree": lambda case: (case["dtype"], case["layout"]) in _KINDS,
}


def _is_shared(case: dict[str, Any]) -> bool:
    """Whether a case of `test_activated` is of the two kinds that are compiled for the fast tests."""
    return (
        case.get("activation", "silu") == "silu"
        and case.get("layout", "contiguous") == "contiguous"
        and case.get("dtype", torch.bfloat16) == torch.bfloat16
        and not case.get("whole")
    )


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
