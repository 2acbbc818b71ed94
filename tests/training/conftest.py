"""Short runs draw no curves: the picture takes half of their time."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _without_curves(quick_curves: None) -> None:
    """In every test of this folder; those that look at the picture ask for `real_curves`."""
