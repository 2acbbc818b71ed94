import copy
import inspect
import pickle
import pydoc
from dataclasses import replace
from typing import TypedDict, Unpack

import pytest

import senet
from senet.evaluation.inputs import InputKeywords
from senet.utils.keywords import check_keywords


def test_an_argument_under_its_old_name() -> None:
    @check_keywords(old="new")
    def function(value: int, *, new: int = 0) -> int:
        """Add."""
        return value + new

    assert function(1, new=2) == 3
    assert list(inspect.signature(function).parameters) == ["value", "new"]
    with pytest.raises(TypeError, match="function has no option 'old': it is new= now"):
        function(1, old=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["evaluate", "predict", "record_gates", "bench"])
def test_functions_that_show_progress_name_their_argument(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} has no option 'track': it is progress= now"):
        getattr(senet, name)(None, None, track=None)


def test_an_unknown_argument() -> None:
    @check_keywords()
    def function(value: int, *, factor: int = 1) -> int:
        return value * factor

    assert function(value=2, factor=3) == 6
    with pytest.raises(TypeError, match=r"^function: unknown option 'facter'; did you mean 'factor'\?"):
        function(1, facter=2)  # type: ignore[call-arg]


class Sides(TypedDict, total=False):
    height: int
    width: int


def test_the_keys_of_a_typed_dict_are_in_the_signature() -> None:
    @check_keywords()
    def area(scale: int = 1, **sides: Unpack[Sides]) -> int:
        return scale * sides.get("height", 1) * sides.get("width", 1)

    assert str(inspect.signature(area)) == "(scale: int = 1, *, height: int = ..., width: int = ...) -> int"
    assert area(2, height=3) == 6
    with pytest.raises(TypeError, match="area: unknown option 'hight'; did you mean 'height'"):
        area(hight=2)  # type: ignore[call-arg]


def test_other_keywords_are_left_to_the_function() -> None:
    @check_keywords(start="init")
    def function(**options: int) -> dict[str, int]:
        return options

    assert function(anything=1) == {"anything": 1}
    with pytest.raises(TypeError, match="it is init= now"):
        function(start=1)


def test_a_recipe_names_the_key_of_today_or_the_closest_one() -> None:
    values = {"epochs": 1, "batch": 2, "lr": 0.1}
    with pytest.raises(TypeError, match="^Recipe has no option 'optimiser': it is optimizer= now$"):
        senet.Recipe(**values, optimiser="sgd")  # type: ignore[arg-type, call-arg]
    with pytest.raises(TypeError, match="^Recipe: unknown option 'momentun'; did you mean 'momentum'"):
        senet.Recipe(**values, momentun=0.5)  # type: ignore[arg-type, call-arg]
    recipe = senet.Recipe(epochs=1, batch=2, lr=0.1)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        replace(recipe, epoch=3)  # type: ignore[call-arg]
    assert copy.deepcopy(recipe) == pickle.loads(pickle.dumps(recipe)) == recipe
    assert "epochs" in inspect.signature(senet.Recipe).parameters


PUBLIC = [name for name in senet.__all__ if inspect.isfunction(getattr(senet, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_signatures_list_every_keyword(name: str) -> None:
    """Those of create_model depend on the network; its docstring lists them."""
    kinds = {parameter.kind for parameter in inspect.signature(getattr(senet, name)).parameters.values()}
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert (inspect.Parameter.VAR_KEYWORD in kinds) == (name == "create_model")


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_help_shows_the_options_of_inputs(name: str) -> None:
    function = getattr(senet, name)
    assert set(InputKeywords.__annotations__) < set(inspect.signature(function).parameters)
    first_lines = pydoc.plain(pydoc.render_doc(function)).split("Args:")[0]
    assert "crop: " in first_lines
    assert "**" not in first_lines
