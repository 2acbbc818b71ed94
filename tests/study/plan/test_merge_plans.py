"""Plans in one folder: what may be added, and what is another study."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from senet.recipes import load_recipe
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan_file import load_plan, save_plan
from tests.study.plan.plans import grid, planned


def test_a_plan_grows_by_seeds_and_arms(tmp_path: Path) -> None:
    few = open_study("placement", "resnet20").only(["plain", "post"])
    plan = make_plan(few, data="digits", recipe="digits", seeds=2, folder=tmp_path / "study")
    assert len(save_plan(plan).runs) == 4
    more = planned(tmp_path, seeds=1)
    joined = save_plan(more)
    assert joined.seeds == (0, 1)
    assert joined.study.arms == more.study.arms
    assert load_plan(joined.folder) == joined
    # And a command for less takes nothing away.
    assert save_plan(replace(plan, seeds=(0,))) == joined


def test_a_grid_that_grows_by_a_key_keeps_its_arms(tmp_path: Path) -> None:
    """Their runs are there, under names that say less."""
    old = ["se_resnet20-reduction-4", "se_resnet20-reduction-8"]
    assert [arm.name for arm in save_plan(grid(tmp_path, "[grid]\nreduction = [4, 8]\n")).study.arms] == old
    more = "baseline = 'se_resnet20-reduction-4-lr-0.1'\n[grid]\nreduction = [4, 8]\nlr = [0.1, 0.05]\n"
    new = [f"se_resnet20-reduction-{ratio}-lr-0.05" for ratio in (4, 8)]
    plan = grid(tmp_path, more)
    names = [run.arm.name for run in plan.runs]
    assert names == [old[0], new[0], old[1], new[1]]  # 0.1 is the recipe's
    assert plan.study.baseline == old[0]
    joined = save_plan(plan)
    assert [arm.name for arm in joined.study.arms] == names
    assert len({run.folder for run in joined.runs}) == 4
    assert save_plan(grid(tmp_path, more)) == joined


def test_an_arm_of_another_recipe_has_no_name_of_another(tmp_path: Path) -> None:
    save_plan(grid(tmp_path, "[grid]\nreduction = [4, 8]\nlr = 0.1\n"))
    with pytest.raises(ValueError, match="arm se_resnet20-reduction-4 was '.*lr=0.1' and is '.*lr=0.05'"):
        save_plan(grid(tmp_path, "[grid]\nreduction = [4, 8]\nlr = 0.05\n"))


def test_the_baseline_is_what_the_study_says_now(tmp_path: Path) -> None:
    text = "baseline = 'se_resnet20-reduction-{}'\n[grid]\nreduction = [4, 8]\n"
    save_plan(grid(tmp_path, text.format(4)))
    assert (
        save_plan(grid(tmp_path, text.format(8), "se_resnet20-reduction-4")).study.baseline == "se_resnet20-reduction-8"
    )
    assert save_plan(grid(tmp_path, text.partition("\n")[2])).study.baseline == ""


def test_the_baseline_may_come_later(tmp_path: Path) -> None:
    for name in ("post", "plain", "pre"):
        few = open_study("placement", "resnet20").only([name])
        plan = save_plan(make_plan(few, data="digits", recipe="digits", seeds=1, folder=tmp_path / "study"))
        assert plan.study.baseline == "plain"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("conv3x3", [], {}), "study was 'placement' and is 'conv3x3'"),
        (("placement", ["lr=0.2"], {}), "lr was 0.1 and is 0.2"),
        (("placement", ["network.drop_path_rate=0.1"], {}), "network.drop_path_rate was None and is 0.1"),
        (("placement", [], {"network": "resnet32"}), "arm plain was 'resnet20' and is 'resnet32'"),
        (("placement", [], {"data": "elsewhere"}), "data was 'digits' and is 'elsewhere'"),
        (("placement", [], {"val_fraction": 0.5}), "val_fraction was None and is 0.5"),
        (("placement", [], {"recipe": "cifar"}), "epochs was 12 and is 164.*; and .* more"),
    ],
)
def test_another_plan_is_refused(tmp_path: Path, other: Any, message: str) -> None:
    save_plan(planned(tmp_path))
    before = (tmp_path / "study" / "study.json").read_text(), (tmp_path / "study" / "recipe.toml").read_text()
    name, settings, options = other
    with pytest.raises(ValueError, match=f"study is in use by another study: .*{message}.*Choose another folder"):
        save_plan(planned(tmp_path, name, *settings, **options))
    after = (tmp_path / "study" / "study.json").read_text(), (tmp_path / "study" / "recipe.toml").read_text()
    assert after == before


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    save_plan(planned(tmp_path))
    save_plan(planned(tmp_path, "placement", "workers=3", "device=cpu"))
    assert load_recipe(tmp_path / "study" / "recipe.toml").workers == 3
