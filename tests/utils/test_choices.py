from dataclasses import dataclass
from typing import Literal, get_args

import pytest

from senet.nn.block import ACTIVATIONS, GATES, Activation
from senet.utils.choices import Gate, check_choice, check_choices
from tests.cli.helpers import invoke, refuses

Colour = Literal["red", "green"]


@dataclass
class Options:
    colour: Colour = "red"
    other: str = "anything"


def test_choices_of_a_literal() -> None:
    check_choice("colour", "red", Colour)
    with pytest.raises(ValueError, match=r"unknown colour 'grene'; did you mean 'green'\? Choose from: red, green\."):
        check_choice("colour", "grene", Colour)
    with pytest.raises(ValueError, match="unknown colour None"):
        check_choice("colour", None, Colour)


def test_choices_of_the_fields_of_a_dataclass() -> None:
    check_choices(Options())
    with pytest.raises(ValueError, match="unknown colour 'anything'"):
        check_choices(Options("anything"))  # type: ignore[arg-type]


def test_tables_have_a_row_for_each_choice() -> None:
    assert tuple(GATES) == get_args(Gate)
    assert tuple(ACTIVATIONS) == get_args(Activation)


def test_the_command_line_shows_choices_and_names_the_closest() -> None:
    assert "identity|paper" in invoke("insert", "--help").stdout
    refuses("unknown --gate 'sigmod'; did you mean 'sigmoid'", "insert", "resnet20", "--dry-run", "--gate", "sigmod")
