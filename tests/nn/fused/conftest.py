from collections.abc import Iterator

import pytest
import torch

from senet.nn.fused import fused_choice, set_fused

# What is compiled anew for each of its cases takes its time: one case of each runs with the others.
_FAST = {
    "test_by_either_way": {"shape": (3, 6, 4, 5)},
    "test_low_precision": {"dtype": torch.bfloat16, "whole": False},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The other cases are slow."""
    for item in items:
        case = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        fast = _FAST.get(getattr(item, "originalname", ""), {}) if case.get("by") == "inductor" else {}
        if any(case[name] != value for name, value in fast.items()):
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
