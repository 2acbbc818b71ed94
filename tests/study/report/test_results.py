import json
from dataclasses import replace
from pathlib import Path

import pytest

from senet.models import create_model
from senet.runs.finished import read_run
from senet.study.report.results import cost_of, read_results
from senet.utils.errors import FolderInUseError
from tests.study.folders import by_arm, plan_study, write_run, write_study


def test_the_errors_are_those_after_the_last_epoch(tmp_path: Path) -> None:
    """Not of the best epoch, which here is the first."""
    write_study(tmp_path / "s", by_arm(plain=[20, 21, 22], standard=[19, 20, 21], pre=[18]), seeds=3)
    found = read_results(tmp_path / "s")
    arms = {one.arm.name: one for one in found.arms}
    assert list(arms) == ["plain", "standard", "pre", "post", "identity"]
    assert arms["plain"].errors == {0: 20, 1: 21, 2: 22}
    assert arms["pre"].errors == {0: 18}
    assert arms["post"].errors == {}
    assert (arms["post"].seconds, arms["post"].cost) == (None, None)
    assert arms["plain"].seconds == 11.5
    assert len(found.runs) == 7
    missing = [(one.arm, one.seed, one.reason) for one in found.missing]
    assert missing == [
        *[(name, 0, "not started") for name in ("post", "identity")],
        *[(name, seed, "not started") for seed in (1, 2) for name in ("pre", "post", "identity")],
    ]


def test_incomplete_runs_are_missing_with_a_reason(tmp_path: Path) -> None:
    plan = write_study(tmp_path / "s", lambda run: 20.0, seeds=2)
    folder = tmp_path / "s" / "runs"
    lines = (folder / "pre" / "seed-0" / "metrics.jsonl").read_text().splitlines()
    (folder / "pre" / "seed-0" / "metrics.jsonl").write_text(lines[0] + "\n")
    (folder / "pre" / "seed-1" / "metrics.jsonl").write_text("")
    (folder / "post" / "seed-0" / "metrics.jsonl").unlink()
    bad = json.loads(lines[1]) | {"top1_error": float("nan")}
    (folder / "post" / "seed-1" / "metrics.jsonl").write_text(f"{lines[0]}\n{json.dumps(bad)}\n")
    (folder / "identity" / "seed-0" / "metrics.jsonl").write_text(
        "".join(json.dumps(json.loads(lines[0]) | {"epoch": epoch}) + "\n" for epoch in (1, 2, 3))
    )
    about = json.loads((folder / "identity" / "seed-1" / "run.json").read_text())
    about["validation data"]["images"] = None
    (folder / "identity" / "seed-1" / "run.json").write_text(json.dumps(about))
    found = read_results(plan.folder)
    reasons = {(one.arm, one.seed): one.reason for one in found.missing}
    assert reasons[("pre", 0)] == "1 of 2 epochs"
    assert "has no epochs yet" in reasons[("pre", 1)]
    assert reasons[("post", 0)] == "no epoch is complete"
    assert "must be epoch 2 with finite" in reasons[("post", 1)]
    assert reasons[("identity", 0)] == "3 of 2 epochs"
    assert "validation data: images must be a whole number" in reasons[("identity", 1)]
    assert len(found.runs) == 4


def test_a_run_that_failed_says_why(tmp_path: Path) -> None:
    """The log of the latest attempt gives the reason; a run that is complete or in progress has none."""
    errors = by_arm(plain=[20.0, 21.0, 22.0], standard=[19.0], pre=[None, 18.0])
    plan = write_study(tmp_path / "s", errors)
    error = "$ senet train\n1 0.5 90 %\nerror: the loss is nan at step 2\nand more\n"
    runs = {run.name: run for run in plan.runs}
    for name in ("plain seed 0", "standard seed 1", "pre seed 0", "post seed 0"):
        runs[name].log.parent.mkdir(parents=True, exist_ok=True)
        runs[name].log.write_text(error)
    runs["pre seed 0"].log.write_text(f"{error}$ senet train\n1 0.5 90 %\n")
    runs["post seed 0"].log.write_text("$ senet train\nerror: another run is writing to it\n")
    runs["post seed 0"].status_file.write_text(f"{FolderInUseError.exit_status}\n")
    runs["standard seed 1"].status_file.write_text("1\n")
    (runs["standard seed 1"].folder).mkdir()
    reasons = {(one.arm, one.seed): (one.failed, one.reason) for one in read_results(plan.folder).missing}
    assert reasons[("standard", 1)] == (True, "failed: the loss is nan at step 2 (no epoch is complete)")
    assert reasons[("standard", 2)] == reasons[("pre", 0)] == reasons[("post", 0)] == (False, "not started")
    assert ("plain", 0) not in reasons


def test_a_run_that_is_not_the_planned_one(tmp_path: Path) -> None:
    plan = plan_study(tmp_path / "s", seeds=1)
    runs = {run.arm.name: run for run in plan.runs}
    recipes = {name: plan.recipe_of(run) for name, run in runs.items()}
    write_run(runs["plain"].folder, "resnet20", recipes["plain"], [9, 8])
    write_run(runs["standard"].folder, "se_resnet32", recipes["standard"], [9, 8])
    write_run(runs["pre"].folder, "se_resnet20", replace(recipes["pre"], seed=5), [9, 8])
    write_run(runs["post"].folder, "se_resnet20", replace(recipes["post"], lr=0.7), [9, 8])
    # What changes no result may differ.
    write_run(runs["identity"].folder, "se_resnet20", replace(recipes["identity"], workers=3, device="cpu"), [9, 8])
    found = read_results(plan.folder)
    assert [(one.arm, one.reason) for one in found.missing] == [
        ("standard", "its network is se_resnet32, the arm's is se_resnet20"),
        ("pre", "its seed is 5, the plan's is 0"),
        ("post", "its lr is 0.7, the plan's is 0.1"),
    ]
    assert [run.path.parent.name for run in found.runs] == ["plain", "identity"]


def test_the_option_of_an_arm_is_checked(tmp_path: Path) -> None:
    plan = plan_study(tmp_path / "s", seeds=1)
    runs = {run.arm.name: run for run in plan.runs}
    write_run(runs["plain"].folder, "resnet20", plan.recipe_of(runs["plain"]), [9, 8])
    write_run(runs["pre"].folder, "se_resnet20", plan.recipe_of(runs["post"]), [9, 8])
    (missing,) = [one for one in read_results(plan.folder).missing if one.arm == "pre"]
    assert missing.reason == "its network.placement is post, the plan's is pre"


def test_other_images_are_left_out(tmp_path: Path) -> None:
    plan = plan_study(tmp_path / "s", seeds=1)
    for run, about in zip(
        plan.runs,
        (
            {},
            {"validation data": {"images": 4999}},
            {"training data": {"images": 9, "names and labels": "x"}},
            {},
            {},
        ),
        strict=True,
    ):
        write_run(run.folder, run.arm.network, plan.recipe_of(run), [9, 8], about)
    reasons = [one.reason for one in read_results(plan.folder).missing]
    assert reasons == [
        "it was validated on cifar/val, not on the images of plain/seed-0",
        "it was trained on cifar, not on the images of plain/seed-0",
    ]


def test_nothing_to_report(tmp_path: Path) -> None:
    plan = plan_study(tmp_path / "s", seeds=1)
    with pytest.raises(ValueError, match="/s has no complete run to report; plain with seed 0: not started"):
        read_results(plan.folder)
    with pytest.raises(ValueError, match=r"is not a study: it has no study\.json"):
        read_results(tmp_path)


def test_cost(tmp_path: Path) -> None:
    """Multiply-adds of the network with its options and the data's classes, on images of the recipe's size."""
    plan = write_study(tmp_path / "s", lambda run: 20.0, seeds=1)
    arms = {one.arm.name: one for one in read_results(plan.folder).arms}
    plain, standard = arms["plain"].cost, arms["standard"].cost
    assert plain is not None
    assert standard is not None
    assert standard.parameters == 272_095
    # He et al. 2015: ResNet-20 has 40.8 M; SE's layers are 2 C^2 / 16 of each block.
    assert plain.macs == pytest.approx(40.8e6, rel=0.01)
    widths = [16] * 3 + [32] * 3 + [64] * 3
    assert standard.macs is not None
    # PyTorch's own count of the difference: weights of the two layers, used once an image.
    model = create_model("se_resnet20")
    weights = sum(p.numel() for name, p in model.named_parameters() if ".se." in name and p.ndim > 1)
    assert weights == sum(2 * c * (c // 16) for c in widths)
    assert standard.macs - (plain.macs or 0) == weights


def test_cost_of_a_network_that_is_not_known(tmp_path: Path) -> None:
    plan = plan_study(tmp_path / "s", seeds=1)
    run = plan.runs[0]
    write_run(tmp_path / "r", "mine", plan.recipe_of(run), [9, 8])
    found = cost_of(read_run(tmp_path / "r"))
    assert (found.parameters, found.macs) == (272_095, None)
