import pytest

from senet.utils.renamed import current_key, current_recipe, current_settings, rename


def test_values_get_the_current_names() -> None:
    assert rename({"old": 1, "other": 2}, {"old": "new"}) == {"new": 1, "other": 2}
    recipe = {"optimiser": "sgd", "drops": [1], "lr_batch": 4, "lr": 0.1, "network": {"start": "paper", "reduction": 4}}
    assert current_recipe(recipe) == {
        "optimizer": "sgd",
        "milestones": [1],
        "base_batch_size": 4,
        "lr": 0.1,
        "network": {"init": "paper", "reduction": 4},
    }
    assert "optimiser" in recipe  # the given values are unchanged


def test_a_network_that_is_no_table_is_left_to_the_checks_of_recipes() -> None:
    assert current_recipe({"network": 3}) == {"network": 3}


@pytest.mark.parametrize(
    "values", [{"drops": [], "milestones": []}, {"network": {"start": "paper", "init": "paper"}}], ids=str
)
def test_both_names_at_once(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"are two names of one key .*: leave (drops|start) out"):
        current_recipe(values)


def test_settings_get_the_current_names() -> None:
    assert current_key("network.start") == "network.init"
    assert current_key("start") == "start"  # not a key of a recipe
    settings = ["optimiser=adamw", " network.start = paper", "lr=0.1", "drops"]
    assert current_settings(settings) == ["optimizer=adamw", "network.init= paper", "lr=0.1", "drops"]
    with pytest.raises(ValueError, match="a setting must be text, got 3"):
        current_settings([3])  # type: ignore[list-item]
