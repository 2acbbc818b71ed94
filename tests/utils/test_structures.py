"""What structures hold is found through containers, closures and, where wanted, attributes."""

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from senet.utils.structures import found_in, held_attributes

ONE = nn.ReLU()


def use(*values: Any, **named: Any) -> None:
    """A function that a `partial` or a closure calls."""


def closure(value: object) -> Callable[[], None]:
    return lambda: use(value)


@pytest.mark.parametrize(
    "value",
    [
        *([ONE], (0, [[ONE]]), {"a": ONE}, OrderedDict(a={ONE}), deque([ONE])),
        *(partial(use, ONE), partial(use, a=[ONE]), closure(ONE), partial(closure([ONE]))),
    ],
)
def test_containers_and_closures_are_searched(value: object) -> None:
    assert list(found_in(value, nn.Module)) == [ONE]
    assert not list(found_in(SimpleNamespace(held=value), nn.Module))
    assert list(found_in(SimpleNamespace(held=value), nn.Module, attributes=True)) == [ONE]


def test_cycles_slots_and_other_attributes() -> None:
    class Slots:
        __slots__ = ("held", "unset")

    one, cycle = Slots(), SimpleNamespace(ones=[ONE, ONE])
    one.held, cycle.self = cycle, cycle
    assert list(found_in(one, nn.Module, attributes=True)) == [ONE]
    module = nn.Sequential(ONE)
    module.held = [ONE]  # type: ignore[assignment]
    assert held_attributes(module) == {"held": [ONE]}
    assert not list(found_in([module], nn.ReLU, attributes=True))
