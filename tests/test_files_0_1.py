"""Files that version 0.1 wrote are read, and what was renamed since is refused with its present name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import senet
from senet.recipes import load_recipe
from senet.recipes.toml import apply_settings
from senet.runs.comparison import compare
from senet.runs.finished import read_run
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan_file import load_plan, merge_saved, save_plan
from senet.study.report.results import read_results
from senet.study.reproduction.collect import collect
from senet.training.checkpoint import read_checkpoint
from tests.cli.helpers import invoke
from tests.files_0_1.tiny import FOLDER, NETWORK, add_network, image, remove_network, squares

OLD, NEW = ("optimiser", "drops", "lr_batch", "start"), ("optimizer", "milestones", "base_batch_size", "init")


@pytest.fixture
def tiny(quick_curves: None) -> Iterator[None]:
    """The network of the files."""
    add_network()
    yield
    remove_network()


def test_a_recipe() -> None:
    recipe = load_recipe(FOLDER / "recipe.toml")
    assert (recipe.optimizer, recipe.milestones, recipe.base_batch_size) == ("sgd", [1], 12)
    assert recipe.network == {"reduction": 2, "init": "identity"}


def test_a_recipe_on_the_base_of_another(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "recipe.toml", tmp_path / "old.toml")
    (tmp_path / "new.toml").write_text('base = "old.toml"\nmilestones = []\n[network]\ninit = "paper"\n')
    (tmp_path / "newer.toml").write_text('base = "new.toml"\ndrops = [2]\n[network]\nstart = "identity"\n')
    assert load_recipe(tmp_path / "new.toml").milestones == []
    assert load_recipe(tmp_path / "new.toml").network == {"reduction": 2, "init": "paper"}
    newer = load_recipe(tmp_path / "newer.toml", ["lr_batch=24"])
    assert (newer.milestones, newer.base_batch_size, newer.network["init"]) == ([2], 24, "identity")


def test_settings_under_old_names() -> None:
    found = apply_settings({"milestones": [1]}, ["drops=[2]", " lr_batch = 8", "network.start=paper"])
    assert found == {"milestones": [2], "base_batch_size": 8, "network": {"init": "paper"}}
    # A key that is set is not shortened along with the epochs.
    assert load_recipe("cifar", ["epochs=82", "drops=[9]"]).milestones == [9]


@pytest.mark.parametrize(("old", "new"), list(zip(OLD, NEW, strict=True)))
def test_both_names_at_once(old: str, new: str, tmp_path: Path) -> None:
    value = {"drops": "[1]", "lr_batch": "2"}.get(old, '"sgd"')
    table, prefix = ("[network]", "network.") if old == "start" else ("", "")
    (tmp_path / "both.toml").write_text(f'base = "cifar"\n{table}\n{old} = {value}\n{new} = {value}\n')
    for read in (
        lambda: load_recipe(tmp_path / "both.toml"),
        lambda: load_recipe("cifar", [f"{prefix}{old}={value}", f"{prefix}{new}={value}"]),
    ):
        with pytest.raises(ValueError, match=rf"{old} and .*{new} are two names of one key .*leave .*{old} out"):
            read()


def test_a_model_file(tiny: None) -> None:
    model = senet.load(FOLDER / "model.safetensors")
    expected = torch.load(FOLDER / "logits.pt", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(model(image()), expected, rtol=1e-5, atol=1e-5)
    assert model.pretrained_cfg["label_names"] == ["low", "middle", "high"]  # type: ignore[index]


def test_a_run_is_resumed_to_its_end(tiny: None, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(FOLDER / "run", output)
    assert len(read_run(output).epochs) == 1
    # Its own recipe.toml, as the command that resumes a study's run has it.
    run = senet.train(NETWORK, (squares(), squares()), output / "recipe.toml", output, resume=True)
    expected = [json.loads(line) for line in (FOLDER / "metrics.jsonl").read_text().splitlines()]
    assert len(run.epochs) == len(expected) == 2
    for epoch, other in zip((one.as_row() for one in run.epochs), expected, strict=True):
        for key in other.keys() - {"seconds", "images_per_second"}:
            assert epoch[key] == pytest.approx(other[key], rel=1e-4), key
    kept = read_checkpoint(output / "checkpoint.pt")
    assert "optimizer" in kept["state"]
    assert not {"optimiser"} & kept["state"].keys()
    text = (output / "recipe.toml").read_text()
    assert all(f"\n{name} = " in text for name in NEW)
    assert not any(f"\n{name} = " in text for name in OLD)


def test_runs_are_compared_by_keys_under_their_old_names(tiny: None, tmp_path: Path) -> None:
    runs = FOLDER / "study" / "runs"
    arms = compare([runs / f"resnet20-lr_batch-{n}" / "seed-0" for n in (0, 64)], ["lr_batch"])
    assert [arm.label for arm in arms] == ["base_batch_size=0", "base_batch_size=64"]


def test_a_recording_of_gates(tiny: None) -> None:
    gates = senet.load_gates(FOLDER / "recording.gates")
    model = senet.load(FOLDER / "model.safetensors")
    again = senet.record_gates(model, squares(), sample=3, thumbnail=4, correlation=True)
    assert [block.name for block in gates.blocks] == [block.name for block in again.blocks]
    for block, other in zip(gates.blocks, again.blocks, strict=True):
        for key in ("sample_gates", "sample_squeezes"):
            np.testing.assert_allclose(getattr(block, key), getattr(other, key), rtol=1e-4, atol=1e-6)
        for statistics, more in (("gates", ("comoments",)), ("squeezes", ())):
            for key in ("images", "means", "squares", "minimum", *more):
                one, two = (getattr(getattr(each, statistics), key) for each in (block, other))
                np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gates.sample.thumbnails, again.sample.thumbnails)


def test_a_study_file() -> None:
    study = open_study(FOLDER / "study.toml")
    assert [arm.settings for arm in study.arms[-2:]] == [
        ('network.init="identity"', "base_batch_size=0"),
        ('network.init="identity"', "base_batch_size=64"),
    ]


@pytest.mark.parametrize(("old", "new"), [("start", "init"), ("lr_batch", "base_batch_size")])
def test_a_study_file_with_both_names(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f'[grid]\nnetwork = "se_resnet20"\n{old} = 1\n{new} = 1\n')
    with pytest.raises(ValueError, match=rf"{new} is in the grid twice, under two names"):
        open_study(path)


def test_a_study_that_grows_keeps_its_arms(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "study", tmp_path / "study")
    before = load_plan(tmp_path / "study")
    assert before.values["network"] == {"reduction": 2, "init": "identity"}
    settings = ("resize=16", "crop_size=16", "epochs=1", "batch=128")
    study = open_study(FOLDER / "study.toml")
    plan = make_plan(
        study, data="digits", recipe=str(FOLDER / "recipe.toml"), settings=settings, seeds=2, folder=tmp_path / "study"
    )
    joined = merge_saved(plan)
    assert [arm.name for arm in joined.study.arms] == [arm.name for arm in before.study.arms]
    assert joined.seeds == (0, 1)
    written = save_plan(joined).folder / "study.json"
    assert not any(f'"{name}"' in written.read_text() for name in OLD)


def test_runs_and_report_of_a_study() -> None:
    results = read_results(FOLDER / "study")
    assert len(results.runs) == 4
    assert not results.missing
    found = collect([FOLDER / "study" / "report.json"])
    settings: list[Any] = [arm["settings"] for arm in found.reports[0].data["arms"]]
    assert settings[-1] == ['network.init="identity"', "base_batch_size=64"]


def test_options_under_old_names_in_python() -> None:
    with pytest.raises(TypeError, match=r"create_model has no option 'start': it is init= now"):
        senet.create_model("se_resnet20", start="paper")
    with pytest.raises(TypeError, match=r"insert has no option 'start': it is init= now"):
        senet.insert(senet.create_model("resnet20"), start="paper")  # type: ignore[call-arg]


def test_options_under_old_names_on_the_command_line() -> None:
    result = invoke("insert", "resnet20", "--dry-run", "--start", "paper")
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert "--start" in line
    assert line.endswith("It is --init now.")
