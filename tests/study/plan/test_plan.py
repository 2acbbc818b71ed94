"""A plan: its runs and commands, what may be added to it, and what is another study."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from senet.cli import app
from senet.recipes import load_recipe
from senet.study.plan.arms import open_study
from senet.study.plan.plan import Plan, make_plan


def planned(folder: Path, name: str = "placement", *settings: str, **options: Any) -> Plan:
    network = options.pop("network", None if name == "networks" else "resnet20")
    values: dict[str, Any] = {"data": "digits", "recipe": "digits", "seeds": 2, "folder": folder / "study"}
    return make_plan(open_study(name, network), settings=settings, **values | options)


def test_runs(tmp_path: Path) -> None:
    plan = planned(tmp_path, "conv3x3")
    names = ("plain", "standard", "conv3x3")
    assert [(run.arm.name, run.seed) for run in plan.runs] == [(name, seed) for seed in (0, 1) for name in names]
    last = plan.runs[-1]
    assert last.folder == tmp_path / "study" / "runs" / "conv3x3" / "seed-1"
    assert last.log == tmp_path / "study" / "runs" / "conv3x3" / "seed-1.log"
    assert last.name == "conv3x3 seed 1"


def test_a_command_is_that_of_senet_train(tmp_path: Path) -> None:
    """Read by the command line, it is the run's recipe: that given, with the study's settings, the arm's, the seed."""
    import typer.main

    plan = planned(tmp_path, "placement", "epochs=4", "network.reduction=4", val_fraction=0.25, skip_bad=True).save()
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


def test_a_plain_arm_goes_without_what_concerns_se_alone(tmp_path: Path) -> None:
    """ "train_only=se" would leave nothing to train in it."""
    study = open_study("reduction", "resnet20").only(["plain", "reduction-4"])
    settings = ("train_only=se", "se_lr_factor=10", "network.gate=tanh", "label_smoothing=0.1")
    plan = make_plan(study, data="digits", recipe="digits", seeds=1, folder=tmp_path / "s", settings=settings)
    plain, with_se = (plan.recipe_of(run) for run in plan.runs)
    assert (plain.train_only, plain.se_lr_factor, plain.network) == ("all", 1.0, {})
    assert (with_se.train_only, with_se.se_lr_factor) == ("se", 10)
    assert with_se.network == {"gate": "tanh", "reduction": 4}
    assert plain.label_smoothing == with_se.label_smoothing == 0.1
    plan.save()
    assert load_recipe(tmp_path / "s" / "recipe.toml").train_only == "all"  # of all runs; the others set it
    assert Plan.load(tmp_path / "s").recipe_of(plan.runs[1]) == with_se


def test_a_plain_command_has_no_options_of_its_own(tmp_path: Path) -> None:
    command = planned(tmp_path).command(planned(tmp_path).runs[0])
    assert not {"--val-data", "--val-fraction", "--skip-bad"} & set(command)
    assert "--val-data" in planned(tmp_path, val_data="elsewhere").command(planned(tmp_path).runs[0])


@pytest.mark.parametrize("name", ["placement", "networks", "start"])
def test_saved_and_loaded(tmp_path: Path, name: str) -> None:
    settings = ["network.weights=x.pth"] if name == "start" else []
    plan = planned(tmp_path, name, *settings) if name != "networks" else small_networks(tmp_path)
    assert plan.save() == plan
    assert Plan.load(plan.folder) == plan
    assert load_recipe(plan.folder / "recipe.toml").epochs == 12
    entries = [arm.entry for arm in Plan.load(plan.folder).study.arms]
    assert entries == [arm.entry for arm in plan.study.arms]


def small_networks(folder: Path) -> Plan:
    study = open_study("networks").only(["preresnet110", "se_preresnet110"])
    return make_plan(study, data="digits", recipe="digits", seeds=1, folder=folder / "study")


def test_a_plan_grows_by_seeds_and_arms(tmp_path: Path) -> None:
    few = open_study("placement", "resnet20").only(["plain", "post"])
    plan = make_plan(few, data="digits", recipe="digits", seeds=2, folder=tmp_path / "study")
    assert len(plan.save().runs) == 4
    more = planned(tmp_path, seeds=1)
    joined = more.save()
    assert joined.seeds == (0, 1)
    assert joined.study.arms == more.study.arms
    assert Plan.load(joined.folder) == joined
    # And a command for less takes nothing away.
    assert replace(plan, seeds=(0,)).save() == joined


def grid(folder: Path, text: str, *names: str) -> Plan:
    (folder / "mine.toml").write_text(text)
    study = open_study(folder / "mine.toml", "se_resnet20")
    study = study.only(names) if names else study
    return make_plan(study, data="digits", recipe="digits", seeds=1, folder=folder / "study")


def test_a_grid_that_grows_by_a_key_keeps_its_arms(tmp_path: Path) -> None:
    """Their runs are there, under names that say less."""
    old = ["se_resnet20-reduction-4", "se_resnet20-reduction-8"]
    assert [arm.name for arm in grid(tmp_path, "[grid]\nreduction = [4, 8]\n").save().study.arms] == old
    more = "baseline = 'se_resnet20-reduction-4-lr-0.1'\n[grid]\nreduction = [4, 8]\nlr = [0.1, 0.05]\n"
    new = [f"se_resnet20-reduction-{ratio}-lr-0.05" for ratio in (4, 8)]
    plan = grid(tmp_path, more)
    names = [run.arm.name for run in plan.runs]
    assert names == [old[0], new[0], old[1], new[1]]  # 0.1 is the recipe's
    assert plan.study.baseline == old[0]
    joined = plan.save()
    assert [arm.name for arm in joined.study.arms] == names
    assert len({run.folder for run in joined.runs}) == 4
    assert grid(tmp_path, more).save() == joined


def test_an_arm_of_another_recipe_has_no_name_of_another(tmp_path: Path) -> None:
    grid(tmp_path, "[grid]\nreduction = [4, 8]\nlr = 0.1\n").save()
    with pytest.raises(ValueError, match="arm se_resnet20-reduction-4 was '.*lr=0.1' and is '.*lr=0.05'"):
        grid(tmp_path, "[grid]\nreduction = [4, 8]\nlr = 0.05\n").save()


def test_the_baseline_is_what_the_study_says_now(tmp_path: Path) -> None:
    text = "baseline = 'se_resnet20-reduction-{}'\n[grid]\nreduction = [4, 8]\n"
    grid(tmp_path, text.format(4)).save()
    assert grid(tmp_path, text.format(8), "se_resnet20-reduction-4").save().study.baseline == "se_resnet20-reduction-8"
    assert grid(tmp_path, text.partition("\n")[2]).save().study.baseline == ""


def test_the_baseline_may_come_later(tmp_path: Path) -> None:
    for name in ("post", "plain", "pre"):
        few = open_study("placement", "resnet20").only([name])
        plan = make_plan(few, data="digits", recipe="digits", seeds=1, folder=tmp_path / "study").save()
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
    planned(tmp_path).save()
    before = (tmp_path / "study" / "study.json").read_text(), (tmp_path / "study" / "recipe.toml").read_text()
    name, settings, options = other
    with pytest.raises(ValueError, match=f"study is in use by another study: .*{message}.*Take another folder"):
        planned(tmp_path, name, *settings, **options).save()
    after = (tmp_path / "study" / "study.json").read_text(), (tmp_path / "study" / "recipe.toml").read_text()
    assert after == before


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    planned(tmp_path).save()
    planned(tmp_path, "placement", "workers=3", "device=cpu").save()
    assert load_recipe(tmp_path / "study" / "recipe.toml").workers == 3


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ((), {"seeds": 0}, "seeds must be 1 or more, got 0"),
        (("seed=3",), {}, "give --seeds N instead of --set seed="),
        (("network.placement=post",), {}, "'placement' varies that itself: leave out --set network.placement=post"),
        (("epoch=3",), {}, "unknown key 'epoch'; did you mean 'epochs'"),
        (("network.reduction=0",), {}, "the arm 'standard' cannot be built: reduction must be"),
        (("network.drop_path=0.1",), {}, "the arm 'plain' cannot be built: .*drop_path_rate= here"),
        ((), {"network": "mobilenet"}, "the arm 'pre' cannot be built: "),
    ],
)
def test_refuses(tmp_path: Path, settings: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        planned(tmp_path, "placement", *settings, **options)
    assert not any(tmp_path.iterdir())


def test_refuses_a_recipe_that_has_what_is_varied(tmp_path: Path) -> None:
    """The arm r = 16 has no setting, and would be another one."""
    (tmp_path / "mine.toml").write_text('base = "digits"\n[network]\nreduction = 8\n')
    with pytest.raises(ValueError, match="'reduction' varies network.reduction itself: leave it out of the recipe"):
        planned(tmp_path, "reduction", recipe=str(tmp_path / "mine.toml"))


def test_start_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'start' needs network.weights: give --set network.weights="):
        planned(tmp_path, "start")


def test_a_gate_without_an_identity_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the arm 'gate-tanh' cannot be built: .*no start at which every gate is 1"):
        planned(tmp_path, "gate", "network.init=identity")


def test_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is in use: it holds 'thesis.tex', and no study.json; choose another"):
        planned(tmp_path).save()
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["thesis.tex"]
    (tmp_path / "study" / "thesis.tex").unlink()
    (tmp_path / "study" / "runs").mkdir()  # runs that are there already are welcome
    planned(tmp_path).save()


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "study").touch()
    with pytest.raises(ValueError, match="is in use: it is a file; choose another name"):
        planned(tmp_path).save()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"study": {}}', "null", '{"study": {"arms": [{"entry": ["10", "x"]}]}}']
)
def test_a_broken_plan(tmp_path: Path, text: str) -> None:
    plan = planned(tmp_path).save()
    (plan.folder / "study.json").write_text(text)
    with pytest.raises(ValueError, match="study.json is broken: .*; put a copy in its place, or remove it"):
        Plan.load(plan.folder)


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
    plan = planned(tmp_path).save()
    found = json.loads((plan.folder / "study.json").read_text())
    part = found
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (plan.folder / "study.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="study.json is broken: .*; put a copy in its place, or remove it"):
        Plan.load(plan.folder)


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no study: it has no study.json"):
        Plan.load(tmp_path)


def test_what_is_saved_is_json_of_all_values(tmp_path: Path) -> None:
    plan = planned(tmp_path, "placement", "network.weights=x.pth").save()
    found = json.loads((plan.folder / "study.json").read_text())
    recipe = asdict(load_recipe("digits", ["network.weights=x.pth"]))
    assert found["values"] == {key: value for key, value in recipe.items() if key != "seed"}
