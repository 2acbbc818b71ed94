import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from senet.recipes import Recipe, write_recipe
from senet.runs.comparison import compare, estimate
from senet.runs.finished import read_run

RECIPE: dict[str, Any] = {"epochs": 4, "batch": 8, "lr": 0.1}
ABOUT = {
    "network": "se_resnet20",
    "data": "cifar",
    "validation": "cifar",
    "training data": {"images": 50_000, "names and labels": "abcd"},
    "validation data": {"images": 5000, "names and labels": "1234"},
    "parameters": 272_095,
}


def write_run(
    path: Path, errors: list[float] | None = None, about: dict[str, Any] | None = None, **recipe: Any
) -> Path:
    """A folder as `senet.train` leaves it, without the models, with these top-1 errors."""
    path.mkdir(parents=True)
    write_recipe(Recipe(**RECIPE | recipe), path / "recipe.toml")
    versions = {"senet": "0.1.0", "torch": "2.9.0", "device": "cpu"}
    (path / "run.json").write_text(json.dumps(ABOUT | versions | (about or {})))
    lines = [
        {"epoch": epoch, "lr": 0.1, "train_loss": 1.0, "train_error": 50.0, "loss": error / 20, "top1_error": error}
        | {"top5_error": error / 4, "seconds": 10.0 + epoch, "images_per_second": 500.0}
        for epoch, error in zip(count(1), [40.0, 30.0, 10.0, 20.0] if errors is None else errors, strict=False)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_read_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", seed=3, network={"reduction": 8}))
    assert (run.network, run.data, run.validation, run.parameters) == ("se_resnet20", "cifar", "cifar", 272_095)
    assert [epoch["top1_error"] for epoch in run.epochs] == [40.0, 30.0, 10.0, 20.0]
    assert {"seed": 3, "lr": 0.1, "momentum": 0.9, "network.reduction": 8}.items() <= run.settings.items()
    assert "network" not in run.settings


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_the_interval_is_that_of_a_t_test(seeds: int) -> None:
    """The ends are the means that a t test at 5 % just does not reject."""
    values = np.random.default_rng(0).normal(10, 2, (seeds, 5))
    found = estimate(values)
    np.testing.assert_allclose(found.mean, [np.mean(column) for column in values.T], rtol=1e-12)
    for end in (found.mean - found.half, found.mean + found.half):
        np.testing.assert_allclose(scipy.stats.ttest_1samp(values, end).pvalue, 0.05, rtol=1e-9)


def test_the_interval_of_two_seeds_by_hand() -> None:
    # Student's table: 12.706 with one degree of freedom, and the standard error of 1 and 3 is 1.
    found = estimate(np.array([1.0, 3.0]))
    assert found.mean == 2
    assert found.half == pytest.approx(12.706, abs=5e-4)


def test_one_seed_has_no_interval_and_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scipy", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    found = estimate(np.array([[5.0, 4.0]]))
    np.testing.assert_array_equal(found.mean, [5, 4])
    assert np.isnan(found.half).all()
    with pytest.raises(ValueError, match=r"need SciPy \(.+\): pip install -e '.*\[report\]'"):
        estimate(np.array([1.0, 2.0]))


def test_runs_of_other_seeds_are_an_arm(tmp_path: Path) -> None:
    plain = {"network": "resnet20", "parameters": 269_722}
    paths = [
        write_run(tmp_path / "a", [40, 30, 12, 20], seed=2),
        write_run(tmp_path / "b", [50, 40, 30, 35], plain),
        # What changes no result makes no other arm; nor does the machine.
        write_run(tmp_path / "c", [44, 10, 22, 24], {"device": "cuda", "torch": "2.10"}, seed=1, workers=5),
    ]
    se, plain_arm = compare(paths)
    assert (se.label, plain_arm.label) == ("se_resnet20", "resnet20")
    assert [run.path for run in se.runs] == [paths[2], paths[0]]
    assert se.epochs == 4
    np.testing.assert_array_equal(se.values("top1_error"), [[44, 10, 22, 24], [40, 30, 12, 20]])
    np.testing.assert_allclose([se.last.mean, se.best.mean], [22, 11])
    error = scipy.stats.sem([[24, 10], [20, 12]])
    low, high = scipy.stats.t.interval(0.95, 1, loc=[22, 11], scale=error)
    np.testing.assert_allclose([se.last.half, se.best.half], (high - low) / 2)
    assert se.seconds == 12.5  # 11 to 14
    curve = se.curve("loss")
    np.testing.assert_allclose(curve.mean, [2.1, 1.0, 0.85, 1.1])
    assert curve.band is not None
    np.testing.assert_allclose((curve.band[0] + curve.band[1]) / 2, curve.mean)
    np.testing.assert_allclose(curve.band[1][-1] - curve.mean[-1], se.last.half / 20)
    assert plain_arm.curve("loss").band is None
    assert plain_arm.last.mean == 35
    assert plain_arm.best.mean == 30


def test_epochs_that_all_seeds_have(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "a", [40, 30, 5]), write_run(tmp_path / "b", [42, 32], seed=1)]
    (arm,) = compare(paths)
    assert arm.epochs == 2
    assert arm.last.mean == arm.best.mean == 31
    assert len(arm.curve("loss").mean) == 2


def test_labels_say_what_differs(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", lr=0.2),
        write_run(tmp_path / "c", nesterov=True, network={"reduction": 8}),
    ]
    assert [arm.label for arm in compare(paths)] == [
        "se_resnet20 lr=0.1 nesterov=false",
        "se_resnet20 lr=0.2 nesterov=false",
        "se_resnet20 lr=0.1 nesterov=true reduction=8",
    ]
    assert [arm.label for arm in compare(paths[:2], ["lr"])] == ["lr=0.1", "lr=0.2"]
    assert [arm.label for arm in compare(paths[::2], ["network.reduction"])] == ["default", "reduction=8"]
    assert [arm.label for arm in compare(paths[:1])] == ["se_resnet20"]
    with pytest.raises(ValueError, match="two arms are both called 'se_resnet20', and differ in lr: add --by lr"):
        compare(paths, ["network"])
    with pytest.raises(ValueError, match="unknown key 'momentun'; did you mean 'momentum'"):
        compare(paths, ["momentun"])


def test_networks_of_one_name_and_different_sizes(tmp_path: Path) -> None:
    """Such as one that was given built."""
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", about={"parameters": 5})]
    assert [arm.label for arm in compare(paths)] == ["se_resnet20 parameters=272095", "se_resnet20 parameters=5"]


def test_other_training_data_are_another_arm(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", about={"data": "half"})]
    assert [arm.label for arm in compare(paths)] == ["se_resnet20 data=cifar", "se_resnet20 data=half"]
    # A share of the same data, which leaves their name as it is.
    other = {"training data": {"images": 40_000, "names and labels": "ef"}}
    paths = [write_run(tmp_path / "c"), write_run(tmp_path / "d", about=other)]
    labels = ["se_resnet20 images=50000 (abcd)", "se_resnet20 images=40000 (ef)"]
    assert [arm.label for arm in compare(paths)] == labels


def test_other_validation_data(tmp_path: Path) -> None:
    """Another share of the same data, too: `--val-fraction` leaves the spec as it is."""
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", about={"validation data": {"images": 4000}})]
    message = "/a has the validation data 'cifar' .5000 images., and .*/b 'cifar' .4000 images., not the same images"
    with pytest.raises(ValueError, match=message):
        compare(paths)


def test_a_run_twice(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match=r"/x/\.\./a is given twice; give each once"):
        compare([path, tmp_path / "x" / ".." / "a"])
    with pytest.raises(ValueError, match="/a and .*/b are the same run of seed 0.*leave one out, or train with"):
        compare([path, write_run(tmp_path / "b")])
    with pytest.raises(ValueError, match="no runs to compare; give output folders"):
        compare([])


@pytest.mark.parametrize("name", ["run.json", "recipe.toml"])
def test_no_run(tmp_path: Path, name: str) -> None:
    (write_run(tmp_path / "a") / name).unlink()
    with pytest.raises(ValueError, match=f"/a is not a run: it has no {name}; give an output folder of senet train"):
        read_run(tmp_path / "a")


def test_no_epochs_yet(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", [])
    with pytest.raises(ValueError, match="/a has no epochs yet; wait"):
        read_run(path)
    (path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="/a has no epochs yet; wait"):
        read_run(path)


@pytest.mark.parametrize("data", ["training data", "validation data"])
@pytest.mark.parametrize("images", [None, 0, 2.5, "5", True])
def test_a_number_of_images_that_is_none(tmp_path: Path, data: str, images: Any) -> None:
    path = write_run(tmp_path / "a", about={data: {"images": images, "names and labels": "1234"}})
    with pytest.raises(ValueError, match=rf"run\.json is broken: .*{data}: images must be a whole number from 1 on"):
        read_run(path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"network": 1, "data": "", "validation": "", "validation data": {}, "parameters": "x"}']
)
def test_a_broken_description(tmp_path: Path, text: str) -> None:
    (write_run(tmp_path / "a") / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"/a/run\.json is broken: .*; train the run again"):
        read_run(tmp_path / "a")


def test_a_broken_recipe(tmp_path: Path) -> None:
    (write_run(tmp_path / "a") / "recipe.toml").write_text("epochs = ")
    with pytest.raises(ValueError, match="cannot read the recipe .*/a/recipe.toml: it is not TOML"):
        read_run(tmp_path / "a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"epoch": 2, "los', "line 2 of .*metrics.jsonl is no epoch: it is not JSON.*`senet train --resume` writes"),
        ('{"epoch": 2}', "line 2 of .*metrics.jsonl is no epoch: it lacks 'loss'"),
        ("3", "line 2 of .*metrics.jsonl is no epoch: .* object is not subscriptable"),
        (
            '{"epoch": 2, "top1_error": "much", "top5_error": 1, "loss": 1, "seconds": 1}',
            "line 2 of .* is no epoch: must be real number",
        ),
        (
            '{"epoch": 2, "top1_error": NaN, "top5_error": 1, "loss": 1, "seconds": 1}',
            "line 2 of .* epoch 2 with finite loss, top1_error",
        ),
        (
            '{"epoch": 7, "top1_error": 1, "top5_error": 1, "loss": 1, "seconds": 1}',
            "line 2 of .* must be epoch 2 .*got .*7",
        ),
        ("null", "line 2 of .*metrics.jsonl is no epoch: .* object is not subscriptable"),
        ('{"epoch": 2, "top1_error": 1, "loss": 1, "seconds": 1}', "line 2 of .* is no epoch: it lacks 'top5_error'"),
        (
            '{"epoch": 2, "top1_error": 1, "top5_error": NaN, "loss": 1, "seconds": 1}',
            "finite loss, top1_error, top5_error",
        ),
        ('{"epoch": 2, "top1_error": 250, "top5_error": 1, "loss": 1, "seconds": 1}', "top1_error from 0 to 100, got"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    metrics = write_run(tmp_path / "a", [40]) / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "a")
