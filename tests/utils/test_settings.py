from typing import Any

import pytest

from senet.utils.settings import parse_setting


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs=30", ("epochs", 30)),
        (" lr = 1e-3", ("lr", 1e-3)),
        ("flip=true", ("flip", True)),
        ("mean=[0.5, 0.25]", ("mean", [0.5, 0.25])),
        ("network.gate=tanh", ("network.gate", "tanh")),
        ('device="cpu"', ("device", "cpu")),
        ("randaugment=", ("randaugment", "")),
        ("network.weights=a=b.pth", ("network.weights", "a=b.pth")),
    ],
)
def test_values_are_toml_or_text(setting: str, expected: tuple[str, Any]) -> None:
    assert parse_setting(setting) == expected


@pytest.mark.parametrize("setting", ["epochs", "=3", " = 3", ""])
def test_a_setting_has_a_key_and_a_value(setting: str) -> None:
    with pytest.raises(ValueError, match=f"invalid --set '{setting}': expected KEY=VALUE, such as epochs=30"):
        parse_setting(setting)


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="invalid --set seed=...: "):
        parse_setting(f"seed={10**400}")
