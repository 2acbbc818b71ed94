"""Choose the cases of a parametrized test that `make test` runs; `make test-slow` runs the others."""

import inspect
from collections.abc import Callable, Iterable

import pytest


def fast_if(condition: Callable[..., bool]) -> pytest.MarkDecorator:
    """Mark the cases of a test as slow, except those where a condition holds.

    Args:
        condition: takes parameters of the test by their names.
    """
    return pytest.mark.fast_if.with_args(condition)


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark the cases as slow whose conditions do not hold."""
    for item in items:
        for mark in item.iter_markers("fast_if"):
            assert isinstance(item, pytest.Function)
            (condition,) = mark.args
            values = {name: item.callspec.params[name] for name in inspect.signature(condition).parameters}
            if not condition(**values):
                item.add_marker(pytest.mark.slow)
