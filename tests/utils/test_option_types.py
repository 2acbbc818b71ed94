from collections.abc import Callable
from typing import Any

import pytest

from senet.utils.option_types import check_integer, check_number, check_switch


@pytest.mark.parametrize(
    ("check", "valid", "invalid", "message"),
    [
        (check_integer, [0, 3], [True, 3.0, "3", None], "x must be an integer, got"),
        (check_number, [0, 3.5, float("nan")], [False, "3", None, [3]], "x must be a number, got"),
        (check_switch, [True, False], [0, 1, "no", None], "x must be True or False, got"),
    ],
)
def test_types_of_options(check: Callable[..., None], valid: list[Any], invalid: list[Any], message: str) -> None:
    for value in valid:
        check("x", value)
    for value in invalid:
        with pytest.raises(TypeError, match=message):
            check("x", value)
