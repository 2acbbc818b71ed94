"""Options for the inputs of an evaluation."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import senet
from senet.evaluation import InputOptions
from senet.evaluation.inputs import InputKeywords
from tests.images import picture, write_classes


def test_keywords_are_the_fields_of_the_options() -> None:
    assert list(InputKeywords.__annotations__) == [field.name for field in fields(InputOptions)]


def test_keywords_replace_those_of_given_options(tmp_path: Path) -> None:
    model, folder = senet.create_model("resnet20", num_classes=2), str(write_classes(tmp_path, {"a": 2, "b": 1}))
    options = InputOptions(crop=16, mean=[0.1, 0.2, 0.3])
    expected = senet.evaluate(model, folder, crop=24, mean=[0.1, 0.2, 0.3])
    assert senet.evaluate(model, folder, options, crop=24) == expected
    assert senet.evaluate(model, folder, options) != expected
    images = [picture(0)]
    found = senet.predict(model, images, options, crop=24)
    assert found == senet.predict(model, images, crop=24, mean=[0.1, 0.2, 0.3])


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        InputOptions(224)  # type: ignore[misc]


@pytest.mark.parametrize("function", [senet.evaluate, senet.predict])
def test_a_misspelt_keyword_names_the_function_and_the_closest_match(function: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{function.__name__}: unknown option 'cropp'; did you mean 'crop'\?"):
        function(senet.create_model("resnet20"), [picture(0)], cropp=3)
