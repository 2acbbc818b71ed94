"""A plan: its runs, their recipes and commands."""

from pathlib import Path
from typing import Any

import pytest

from senet.cli import app
from senet.recipes import load_recipe
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan_file import load_plan, save_plan
from tests.study.plan.plans import planned


def test_runs(tmp_path: Path) -> None:
    plan = planned(tmp_path, "conv3x3")
    names = ("plain", "standard", "conv3x3")
    assert [(run.arm.name, run.seed) for run in plan.runs] == [(name, seed) for seed in (0, 1) for name in names]
    last = plan.runs[-1]
    assert last.folder == tmp_path / "study" / "runs" / "conv3x3" / "seed-1"
    assert last.log == tmp_path / "study" / "runs" / "conv3x3" / "seed-1.log"
    assert last.name == "conv3x3 seed 1"


def test_detectors_are_trained_for_iterations(tmp_path: Path) -> None:
    options = {"recipe": "coco-2x", "network": "faster_rcnn:resnet20"}
    weights = "network.backbone_weights=elsewhere.safetensors"  # not read by a plan
    plan = planned(tmp_path, "conv3x3", weights, "iterations=180", **options)
    assert [run.arm.network for run in plan.runs[:2]] == ["faster_rcnn:resnet20", "faster_rcnn:se_resnet20"]
    assert {(recipe.epochs, recipe.iterations) for recipe in map(plan.recipe_of, plan.runs)} == {(0, 180)}


@pytest.mark.parametrize(
    ("recipe", "network", "reason"),
    [
        ("coco-2x", "resnet20", "resnet20 returns logits, and task=detection needs boxes"),
        ("digits", "faster_rcnn:resnet20", "returns boxes, and task=classification needs logits"),
    ],
)
def test_networks_of_another_task_are_refused(recipe: str, network: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the arm 'plain' cannot be built: .*{reason}"):
        planned(tmp_path, recipe=recipe, network=network)


def test_a_command_is_that_of_senet_train(tmp_path: Path) -> None:
    """Read by the command line, it is the run's recipe: that given, with the study's settings, the arm's, the seed."""
    import typer.main

    plan = save_plan(
        planned(tmp_path, "placement", "epochs=4", "network.reduction=4", val_fraction=0.25, skip_bad=True)
    )
    for run in plan.runs:
        _, isolated, module, name, train, *arguments = plan.command(run)
        assert (isolated, module, name, train) == ("-P", "-m", "senet", "train")
        command: Any = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
        given = command.make_context("train", list(arguments)).params
        assert (given["network"], given["data"], given["val_fraction"]) == (run.arm.network, "digits", 0.25)
        assert given["output"] == str(run.folder)
        assert given["resume"]
        assert given["skip_bad"]
        expected = ["epochs=4", f"seed={run.seed}"]
        # An arm without SE takes none of its options.
        expected += ["network.reduction=4", *run.arm.settings] if run.arm.name != "plain" else []
        found = load_recipe(given["recipe"], given["set_"])
        assert found == load_recipe("digits", expected) == plan.recipe_of(run)


def test_a_plain_arm_goes_without_what_is_about_se_alone(tmp_path: Path) -> None:
    """ "train_only=se" would leave nothing to train in it."""
    study = open_study("reduction", "resnet20").only(["plain", "reduction-4"])
    settings = ("train_only=se", "se_lr_factor=10", "network.gate=tanh", "label_smoothing=0.1")
    plan = make_plan(study, data="digits", recipe="digits", seeds=1, folder=tmp_path / "s", settings=settings)
    plain, with_se = (plan.recipe_of(run) for run in plan.runs)
    assert (plain.train_only, plain.se_lr_factor, plain.network) == ("all", 1.0, {})
    assert (with_se.train_only, with_se.se_lr_factor) == ("se", 10)
    assert with_se.network == {"gate": "tanh", "reduction": 4}
    assert plain.label_smoothing == with_se.label_smoothing == 0.1
    save_plan(plan)
    assert load_recipe(tmp_path / "s" / "recipe.toml").train_only == "all"  # of all runs; the others set it
    assert load_plan(tmp_path / "s").recipe_of(plan.runs[1]) == with_se


def test_a_plain_command_has_no_options_of_its_own(tmp_path: Path) -> None:
    command = planned(tmp_path).command(planned(tmp_path).runs[0])
    assert not {"--val-data", "--val-fraction", "--skip-bad"} & set(command)
    assert "--val-data" in planned(tmp_path, val_data="elsewhere").command(planned(tmp_path).runs[0])
