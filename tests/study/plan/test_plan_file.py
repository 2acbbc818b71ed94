"""A plan in its folder: saved, loaded, broken, and folders that hold something else."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from senet.recipes import load_recipe
from senet.study.plan.plan_file import load_plan, save_plan
from tests.study.plan.plans import planned, small_networks


@pytest.mark.parametrize("name", ["placement", "networks", "init"])
def test_saved_and_loaded(tmp_path: Path, name: str) -> None:
    settings = ["network.weights=x.pth"] if name == "init" else []
    plan = planned(tmp_path, name, *settings) if name != "networks" else small_networks(tmp_path)
    assert save_plan(plan) == plan
    assert load_plan(plan.folder) == plan
    assert load_recipe(plan.folder / "recipe.toml").epochs == 12
    entries = [arm.entry for arm in load_plan(plan.folder).study.arms]
    assert entries == [arm.entry for arm in plan.study.arms]


def test_what_is_saved_is_json_of_all_values(tmp_path: Path) -> None:
    plan = save_plan(planned(tmp_path, "placement", "network.weights=x.pth"))
    found = json.loads((plan.folder / "study.json").read_text())
    recipe = asdict(load_recipe("digits", ["network.weights=x.pth"]))
    assert found["values"] == {key: value for key, value in recipe.items() if key != "seed"}


def test_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is in use: it holds 'thesis.tex', and no study.json; choose another"):
        save_plan(planned(tmp_path))
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["thesis.tex"]
    (tmp_path / "study" / "thesis.tex").unlink()
    (tmp_path / "study" / "runs").mkdir()  # runs that are there already are welcome
    save_plan(planned(tmp_path))


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "study").touch()
    with pytest.raises(ValueError, match="is in use: it is a file; choose another name"):
        save_plan(planned(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"study": {}}', "null", '{"study": {"arms": [{"entry": ["10", "x"]}]}}']
)
def test_a_broken_plan(tmp_path: Path, text: str) -> None:
    plan = save_plan(planned(tmp_path))
    (plan.folder / "study.json").write_text(text)
    with pytest.raises(ValueError, match="study.json is broken: .*; put a copy in its place, or remove it"):
        load_plan(plan.folder)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("values",), {"epochs": 2}),
        (("values",), []),
        (("seeds",), ["x"]),
        (("study", "arms"), []),
        (("study", "baseline"), None),
        (("study", "arms", 1, "name"), 5),
        (("study", "arms", 1, "network"), "nope"),
        (("study", "arms", 2, "settings"), ["epoch=3"]),
    ],
)
def test_a_plan_of_wrong_values_is_broken(tmp_path: Path, where: tuple[Any, ...], value: Any) -> None:
    plan = save_plan(planned(tmp_path))
    found = json.loads((plan.folder / "study.json").read_text())
    part = found
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (plan.folder / "study.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="study.json is broken: .*; put a copy in its place, or remove it"):
        load_plan(plan.folder)


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a study: it has no study.json"):
        load_plan(tmp_path)


def test_a_study_of_version_0_1_called_start_is_the_study_init(tmp_path: Path) -> None:
    """Its arms keep their names, and so their runs."""
    plan = save_plan(planned(tmp_path, "init", "network.weights=x.pth"))
    path = plan.folder / "study.json"
    path.write_text(
        path.read_text().replace('"name": "init', '"name": "start').replace("network.init=", "network.start=")
    )
    old = load_plan(plan.folder)
    assert old.study.name == "init"
    assert [arm.name for arm in old.study.arms] == ["plain", "start-identity", "start-paper"]
    again = save_plan(planned(tmp_path, "start", "network.weights=x.pth", seeds=3))
    assert [arm.name for arm in again.study.arms] == ["plain", "start-identity", "start-paper"]
    assert again.seeds == (0, 1, 2)
