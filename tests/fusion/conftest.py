from collections.abc import Iterator

import pytest

from senet.fusion import set_fused
from senet.fusion.passes import _state


@pytest.fixture(params=["inductor", "aten"])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to run the passes."""
    before = _state["choice"]
    set_fused(request.param)
    yield request.param
    set_fused(before or "auto")


@pytest.fixture
def restored() -> Iterator[None]:
    """The choice is as before when a test ends that makes its own."""
    before = _state["choice"]
    yield
    set_fused(before or "auto")
