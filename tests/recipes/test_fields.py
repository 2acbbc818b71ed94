from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from senet.recipes.fields import check_limits, check_type, document_fields, key


@document_fields
@dataclass
class Settings:
    """Some settings.

    Raises:
        ValueError: never.
    """

    count: int = field(default=1, metadata=key("a count.", least=1, most=2000))
    share: float = field(default=0.5, metadata=key("a share.", least=0, below=1))
    factor: float = field(default=0.5, metadata=key("a factor.", between=(0, 1)))
    seed: int = field(default=0, metadata=key("a seed.", below=2**63))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, "count must be 1 or more, got 0"),
        ("count", 2001, "count must be at most 2,000, got 2001"),
        ("share", -0.5, "share must be 0 or more, and finite, got -0.5"),
        ("share", float("nan"), "share must be 0 or more, and finite, got nan"),
        ("share", 1.0, "share must be below 1, got 1.0"),
        ("factor", 0.0, "factor must be between 0 and 1, got 0.0"),
        ("factor", 1.0, "factor must be between 0 and 1, got 1.0"),
        ("seed", 2**63, r"seed must be below 2\*\*63, got 9223372036854775808"),
    ],
)
def test_limits(name: str, value: Any, message: str) -> None:
    check_limits(Settings())
    with pytest.raises(ValueError, match=message):
        check_limits(Settings(**{name: value}))


@pytest.mark.parametrize("values", [{"count": 2000}, {"share": 0.0}, {"seed": 2**63 - 1}], ids=str)
def test_values_at_their_limits(values: dict[str, Any]) -> None:
    check_limits(Settings(**values))


def test_the_docstring_lists_the_fields() -> None:
    text = Settings.__doc__ or ""
    assert text.startswith("Some settings.\n\nAttributes:\n    count: a count.\n    share: a share.\n")
    assert text.endswith("\n\nRaises:\n    ValueError: never.")


def test_a_choice_is_text() -> None:
    check_type("mode", "no such mode", Literal["a", "b"])
    with pytest.raises(ValueError, match="mode must be text, got 3"):
        check_type("mode", 3, Literal["a", "b"])
