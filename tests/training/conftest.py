"""Short runs draw no curves, which takes half of their time, and train a network of few units."""

from collections.abc import Iterator

import pytest

from tests.helpers import shallow_resnet20


@pytest.fixture(autouse=True, scope="module")
def _without_curves(quick_curves: None) -> None:
    """In every test of this folder; those that look at the picture ask for `real_curves`."""


@pytest.fixture(autouse=True, scope="module")
def _shallow() -> Iterator[None]:
    """In every test of this folder; processes that a test starts train the whole network."""
    with shallow_resnet20():
        yield
