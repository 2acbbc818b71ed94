from types import SimpleNamespace
from typing import Any

import pytest

from senet.graph.channel_ops import passes

CHANNELS = 1


def operation(name: str, *options: Any, output: tuple[int, ...], given: tuple[int, ...] = (2, 4, 6, 6)) -> Any:
    """An operation of a trace, as far as `passes` reads it."""
    x = SimpleNamespace(shape=given)
    return SimpleNamespace(name=name, args=(x, *options), inputs=[x], outputs=[SimpleNamespace(shape=output)])


@pytest.mark.parametrize(
    ("axes", "output", "expected"),
    [
        ([2, 3], (2, 4), True),
        ([-1, -2], (2, 4, 1, 1), True),
        ([0], (1, 4, 6, 6), True),  # the axis is kept, so channels stay on theirs
        ([0, 2], (4, 6), False),  # the samples' axis goes, so channels are on another
        ([1], (2, 6, 6), False),
        (None, (), False),
    ],
)
def test_a_mean_keeps_a_factor_whose_axis_stays(
    axes: list[int] | None, output: tuple[int, ...], expected: bool
) -> None:
    assert passes(operation("mean", axes, output=output), CHANNELS, True) is expected


@pytest.mark.parametrize(
    ("padding", "value", "expected"),
    [([1, 1], 0.0, True), ([1, 1, 2, 2], 0.0, True), ([0, 0, 0, 0, 1, 1], 0.0, False), ([1, 1], 0.5, False)],
)
def test_padding_keeps_a_factor_unless_it_pads_channels(padding: list[int], value: float, expected: bool) -> None:
    assert passes(operation("constant_pad_nd", padding, value, output=(2, 4, 8, 8)), CHANNELS, True) is expected
