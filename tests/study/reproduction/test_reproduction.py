import hashlib
import importlib.util
import json
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from senet.costs.tables import build_on_meta
from senet.models import list_models
from senet.paper import ENTRIES, TITLES, Entry, entries
from senet.recipes import load_recipe
from senet.runs.finished import read_run
from senet.study.data_sets import CIFAR_10, CIFAR_100, COCO, IMAGENET, data_set_of
from senet.study.plan.named_studies import open_study
from senet.study.report import results
from senet.study.report.report import make_report
from senet.study.report.writing import write_report
from senet.study.reproduction.commands import commands_of, study_command
from senet.study.reproduction.lines import command_lines, measured_line, status_summary
from senet.study.reproduction.page import as_markdown
from senet.study.reproduction.reproduction import reproduce
from senet.study.reproduction.rows import Reproduction, Row
from tests.study.folders import by_arm, precision_of, write_run, write_study

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting multiply-adds is tested with the results, and takes its time."""
    monkeypatch.setattr(results, "cost_of", lambda run: results.Cost(run.parameters, None, (32, 32)))


def names_hash(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


CIFAR = {
    "training data": {"images": 50_000, "names and labels": "a"},
    "validation data": {"images": 10_000, "classes": 10, "class names": names_hash(CIFAR_10.names)},
}
IMAGES = {
    "training data": {"images": 1_281_167, "names and labels": "b"},
    "validation data": {"images": 50_000, "classes": 1000, "class names": "any"},
}


def run(
    folder: Path,
    network: str,
    recipe: str,
    *settings: str,
    about: Any = None,
    epochs: int | None = None,
    last: float = 5.0,
) -> Path:
    """A complete run of a recipe, or one of fewer epochs."""
    found = load_recipe(recipe, settings)
    errors = [50.0] * ((found.epochs if epochs is None else epochs) - 1) + [last]
    return write_run(folder, network, found, errors, about)


def row(found: Reproduction, table: str, label: str, size: int | None = None) -> Row:
    (one,) = [
        one
        for one in found.rows
        if (one.entry.table, one.entry.label) == (table, label) and size in (None, one.entry.size)
    ]
    return one


def test_every_row_of_the_paper_is_there() -> None:
    found = reproduce()
    assert [one.entry for one in found.rows] == list(ENTRIES)
    assert [key for key, _ in found.tables()] == list(TITLES)
    assert {one.status for one in found.rows} == {"missing", "unsupported"}
    unsupported = {(one.entry.table, one.entry.label) for one in found.rows if one.status == "unsupported"}
    # An ensemble, and a network that senet has not.
    assert {table for table, _ in unsupported} == {"6", "challenge"}
    assert ("6", "Places-365-CNN") in unsupported
    assert ("6", "ResNet-152") not in unsupported


def arguments(line: str, option: str) -> list[str]:
    words = shlex.split(line)
    return [after for word, after in pairwise(words) if word == option]


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if commands_of(entry)], ids=lambda e: f"{e.table} {e.label}"
)
def test_the_command_of_a_row_is_of_its_network(entry: Entry) -> None:
    """Recipe and settings can be, build the very network, and are those of the commands."""
    commands = commands_of(entry)
    assert commands is not None
    words = shlex.split(commands.lines[0])
    if entry.table == "release":
        assert words[:2] == ["senet", "evaluate"]
        assert arguments(commands.lines[0], "--network") == [entry.network]
        return
    assert words[:3] == ["senet", "train", f"faster_rcnn:{entry.network}" if entry.table == "7" else entry.network]
    assert entry.network in list_models()
    recipe = load_recipe(arguments(commands.lines[0], "--recipe")[0], arguments(commands.lines[0], "--set"))
    plain = load_recipe(commands.recipe, commands.settings)
    if entry.table == "7":
        assert recipe.network.pop("backbone_weights") == f"runs/{entry.network}/best.safetensors"
        assert recipe.task == "detection"
    else:
        assert recipe.crop_size == (224 if entry.table == "8" else entry.size)
    assert recipe == replace(plain, network={**plain.network, **entry.options})
    if recipe.network:
        build_on_meta(entry.network, **recipe.network)


def test_no_two_rows_share_a_folder() -> None:
    """But those that the same run is of."""
    folders: dict[str, str] = {}
    for entry in ENTRIES:
        commands = commands_of(entry)
        for line in commands.lines if commands else ():
            for folder in arguments(line, "--output"):
                assert folders.setdefault(folder, line) == line


@pytest.mark.parametrize("table", [key for key in TITLES if study_command(key)])
def test_the_study_of_a_table_holds_its_rows(table: str) -> None:
    line = study_command(table) or ""
    words = shlex.split(line)
    study = open_study(words[2], arguments(line, "--network")[0])
    assert {entry.label for entry in entries(table)} <= {arm.label for arm in study.arms if arm.entry}
    load_recipe(arguments(line, "--recipe")[0], arguments(line, "--set"))
    options = {
        f"network.{key}={value}"
        for arm in study.arms
        for key, value in (arm.entry.options if arm.entry else {}).items()
        if key != "bias"
    }
    assert {setting for arm in study.arms for setting in arm.settings if arm.entry} <= options


def test_recipes_are_the_papers() -> None:
    by_row = {(entry.table, entry.label): commands_of(entry) for entry in ENTRIES}
    recipes = {key: commands.recipe for key, commands in by_row.items() if commands}
    assert recipes[("2", "SE-ResNet-50")] == recipes[("14", "PRE")] == "imagenet"
    assert recipes[("6", "SE-ResNet-152")] == "places365"
    assert recipes[("3", "SE-ShuffleNet")] == "mobile"
    assert recipes[("4", "SE-ResNet-110")] == recipes[("5", "ResNet-164")] == "cifar-110"
    assert recipes[("4", "WRN-16-8")] == "wrn"
    assert recipes[("8", "SENet-154")] == recipes[("9", "SENet-154")] == "senet154"
    schedule = by_row[("schedule", "ResNet-50")]
    assert schedule is not None
    assert "milestones=[125,200,250]" in schedule.settings
    shake = by_row[("4", "SE-Shake-Shake 26 2x96d + Cutout")]
    assert shake is not None
    assert "Cutout" in shake.limitation


def test_data_sets_are_recognized_by_classes_and_images(tmp_path: Path) -> None:
    def found(name: str, about: Any) -> Any:
        return data_set_of(read_run(run(tmp_path / name, "resnet20", "digits", about=about)))

    assert found("a", CIFAR) is CIFAR_10
    # A part of it is one of it, another set of as many classes and images is not.
    assert found("b", CIFAR | {"training data": {"images": 9, "names and labels": "c"}}) is CIFAR_10
    other = CIFAR["validation data"] | {"class names": "0123"}
    assert found("c", CIFAR | {"validation data": other}) is None
    assert found("d", IMAGES) is IMAGENET
    assert found("e", IMAGES | {"training data": {"images": 130_000, "names and labels": "c"}}) is None
    hundred = {"images": 10_000, "classes": 100, "class names": names_hash(CIFAR_100.names)}
    assert found("f", CIFAR | {"validation data": hundred}) is CIFAR_100
    assert (len(CIFAR_100.names), list(CIFAR_100.names)) == (100, sorted(CIFAR_100.names))
    # A name says nothing.
    assert (
        found("g", {"data": "torchvision:CIFAR10?root=.", "validation data": {"images": 10_000, "classes": 10}}) is None
    )


def test_runs_as_in_the_paper(tmp_path: Path) -> None:
    run(tmp_path / "a", "se_wrn_16_8", "wrn", "seed=1", about=CIFAR, last=4.0)
    run(tmp_path / "b", "se_wrn_16_8", "wrn", "seed=2", "workers=2", about=CIFAR, last=5.0)
    found = reproduce([tmp_path])
    there = row(found, "4", "SE-WRN-16-8")
    assert there.status == "measured"
    (one,) = there.measured
    assert (one.seeds, one.mean, one.deviations) == ((1, 2), 4.5, ())
    assert one.half == pytest.approx(12.706 * 0.5, abs=1e-3)  # Student's table, and a standard error of 0.5
    assert one.where == "CIFAR-10 (50,000 training and 10,000 validation images), 200 epochs"
    assert measured_line(one).startswith("4.50 ± 6.35 % (2 seeds; top-5 1.12 %) on CIFAR-10")
    others = [other for other in found.rows if other.measured and other is not there]
    assert others == []
    assert found.unused == ()
    assert not any(
        "se_wrn_16_8" in line for line in command_lines("4", [r for r in found.rows if r.entry.table == "4"])
    )


def test_detectors_are_measured_by_average_precision(tmp_path: Path) -> None:
    about = {
        "training data": {"images": 118_287, "names and labels": "c"},
        "validation data": {"images": 5000, "classes": 80, "class names": names_hash(COCO.names)},
    }
    recipe = load_recipe("coco-2x", ["network.backbone_weights=elsewhere.safetensors"])
    for name, network, epochs in (("a", "faster_rcnn:se_resnet50", 25), ("b", "faster_rcnn:se_resnet101", 24)):
        path = write_run(tmp_path / name, network, recipe, [], about | {"epochs": 25})
        lines = [precision_of(number, 30.0 + number, 35.0 + number) for number in range(1, epochs + 1)]
        (path / "metrics.jsonl").write_text("".join(lines))
    found = reproduce([tmp_path])
    there = row(found, "7", "SE-ResNet-50")
    assert there.status == "measured"
    (line,) = map(measured_line, there.measured)
    assert (
        line
        == "60.00 % (1 seed; AP 55.00 %) on COCO (118,287 training and 5,000 validation images), 180,000 iterations"
    )
    assert [one for one in found.rows if one.measured] == [there]
    assert found.unused == (f"{tmp_path / 'b'}: 24 of 25 epochs",)
    write_run(
        tmp_path / "c", "faster_rcnn:resnet50", load_recipe("coco-2x", ["iterations=7392"]), [], about | {"epochs": 1}
    )
    (tmp_path / "c" / "metrics.jsonl").write_text(precision_of(1, 9.0, 19.0))
    (one,) = row(reproduce([tmp_path / "c"]), "7", "ResNet-50").measured
    assert one.deviations[0] == "a backbone without pretrained weights"
    assert "iterations = 7392 instead of 180000" in one.deviations


def test_a_run_twice_is_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, "wrn_16_8", "wrn", about=CIFAR)
    (one,) = row(reproduce([tmp_path]), "4", "WRN-16-8").measured
    assert (one.seeds, one.half) == ((0,), None)


def test_what_is_not_as_in_the_paper_is_said(tmp_path: Path) -> None:
    part = CIFAR["validation data"] | {"images": 5000}
    short = ("epochs=12", "milestones=[]", "lr=0.2", "network.init=identity")
    run(tmp_path / "a", "se_wrn_16_8", "wrn", *short, about=CIFAR | {"validation data": part})
    there = row(reproduce([tmp_path]), "4", "SE-WRN-16-8")
    assert there.status == "other settings"
    assert there.measured[0].deviations == (
        "5,000 validation images instead of 10,000",
        "epochs = 12 instead of 200",
        "lr = 0.2 instead of 0.1",
        "milestones = [] instead of [60, 120, 160]",
        "network.init = identity instead of none",
    )
    assert "unlike the paper: 5,000" in measured_line(there.measured[0])
    assert any("se_wrn_16_8" in line for line in command_lines("4", [there]))


def test_a_network_on_other_data_is_no_measurement(tmp_path: Path) -> None:
    path = run(tmp_path / "a", "se_resnet50", "imagenet", about=CIFAR)
    found = reproduce([path])
    assert not any(one.measured for one in found.rows)
    (text,) = found.unused
    assert f"{path}: the paper has no row of se_resnet50 on CIFAR-10" in text


def test_options_tell_rows_apart(tmp_path: Path) -> None:
    bias = ("label_smoothing=0.1", "network.bias=false")
    run(tmp_path / "a", "se_resnet50", "imagenet", *bias, "network.reduction=4", about=IMAGES)
    run(tmp_path / "b", "se_resnet50", "imagenet", *bias, "network.reduction=16", about=IMAGES, last=22.0)
    run(tmp_path / "c", "se_resnet50", "imagenet", about=IMAGES)
    found = reproduce([tmp_path / name for name in "abc"])
    measured = {(r.entry.table, r.entry.label): r for r in found.rows if r.measured}
    # r = 16 is the default, and the row of five tables.
    default = {("10", "r = 16"), ("11", "average"), ("12", "sigmoid"), ("13", "all stages"), ("14", "standard")}
    assert measured.keys() == {("10", "r = 4"), *default, ("2", "SE-ResNet-50"), ("schedule", "SE-ResNet-50")}
    assert all(measured[key].status == "measured" and measured[key].measured[0].mean == 22.0 for key in default)
    assert measured[("2", "SE-ResNet-50")].status == "measured"
    schedule = measured[("schedule", "SE-ResNet-50")]
    assert schedule.measured[0].deviations == (
        "epochs = 100 instead of 270",
        "milestones = [30, 60, 90] instead of [125, 200, 250]",
    )


def test_sizes_of_senet154(tmp_path: Path) -> None:
    run(tmp_path / "a", "senet154", "senet154", about=IMAGES)
    run(tmp_path / "b", "senet154", "senet154", "crop_size=320", "resize=366", about=IMAGES)
    found = reproduce([tmp_path])
    assert [path.rpartition("/")[2] for path in row(found, "8", "SENet-154", 224).measured[0].runs] == ["a"]
    assert row(found, "8", "SENet-154", 320).measured == ()
    assert [path.rpartition("/")[2] for path in row(found, "9", "SENet-154").measured[0].runs] == ["b"]
    assert row(found, "9", "SENet-154").status == "measured"


def test_what_is_not_there_as_in_the_paper_cannot_be_measured_so(tmp_path: Path) -> None:
    commands = row(reproduce(), "4", "Shake-Shake 26 2x96d + Cutout").commands
    assert commands is not None
    run(tmp_path / "a", "shake_shake_26_2x96d", commands.recipe, *commands.settings, about=CIFAR)
    (one,) = row(reproduce([tmp_path]), "4", "Shake-Shake 26 2x96d + Cutout").measured
    assert one.deviations == ("without Cutout",)


def test_runs_that_are_not_complete(tmp_path: Path) -> None:
    run(tmp_path / "a", "wrn_16_8", "wrn", about=CIFAR, epochs=3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{")
    found = reproduce([tmp_path])
    assert found.unused[0] == f"{tmp_path}/a: 3 of 200 epochs"
    assert "/b is not a run" in found.unused[1]
    assert not any(one.measured for one in found.rows)


def study(folder: Path, about: Any = CIFAR) -> Path:
    write_study(folder, by_arm(plain=[20.0, 21.0, 22.5], standard=[15.0, 16.01, 17.49], pre=[21.0]), about=about)
    return folder


def test_a_study_is_related(tmp_path: Path) -> None:
    found = reproduce([study(tmp_path / "s")])
    standard = row(found, "14", "standard")
    assert (standard.status, standard.measured) == ("related", ())
    (one,) = standard.related
    assert (one.network, one.seeds, one.baseline, one.significant) == ("se_resnet20", 3, "no SE", True)
    assert "CIFAR-10 (50,000 training and 10,000 validation images), 2 epochs with the recipe digits" in one.where
    assert one.mean == pytest.approx(48.5 / 3)
    assert row(found, "14", "PRE").related[0].difference_half is None
    assert row(found, "14", "POST").status == "missing"
    assert row(found, "10", "no SE").related[0].difference is None
    assert row(found, "11", "average").related == ()
    assert found.unused == ()


def test_an_arm_of_two_studies_is_related_once(tmp_path: Path) -> None:
    """As the plain network does, which has the same runs in all of them."""
    errors = by_arm(plain=[20.0, 21.0], standard=[19.0, 19.0], **{"squeeze-avg": [19.0, 19.0]})
    for name in ("placement", "squeeze"):
        write_study(tmp_path / name, errors, open_study(name, "resnet20"), seeds=2, about=CIFAR)
    found = reproduce([tmp_path])
    assert len(row(found, "10", "no SE").related) == 1
    assert len(row(found, "14", "standard").related) == len(row(found, "11", "average").related) == 1


def test_a_report_without_its_runs(tmp_path: Path) -> None:
    """As it is kept in the documentation."""
    folder = study(tmp_path / "s")
    (tmp_path / "docs" / "studies").mkdir(parents=True)
    write_report(make_report(folder), tmp_path / "docs" / "studies")
    related = [one.related for one in reproduce([folder]).rows]
    assert any(related)
    assert [one.related for one in reproduce([tmp_path / "docs"]).rows] == related
    assert [one.related for one in reproduce([tmp_path / "docs" / "studies" / "report.json"]).rows] == related


def test_a_study_of_the_papers_own_network_and_data_is_a_measurement(tmp_path: Path) -> None:
    found = open_study("networks").only(["wrn_16_8", "se_wrn_16_8"])
    write_study(tmp_path / "s", lambda run: 5.0 + run.seed, found, about=CIFAR)
    there = row(reproduce([tmp_path / "s"]), "4", "WRN-16-8")
    assert (there.status, there.related) == ("other settings", ())
    assert there.measured[0].seeds == (0, 1, 2)
    assert "epochs = 2 instead of 200" in there.measured[0].deviations


def test_a_study_of_the_papers_network_with_other_options_is_related(tmp_path: Path) -> None:
    """The paper's ablations are without biases; a grid of one's own is of no row, and said to be."""
    plain = open_study("placement", "resnet50").only(["standard", "post"])
    write_study(tmp_path / "s", lambda run: 22.0 + run.seed, plain, about=IMAGES)
    (tmp_path / "mine.toml").write_text("title = 'my grid'\n[grid]\nnetwork = 'se_resnet20'\nlr = [0.1, 0.05]\n")
    write_study(tmp_path / "t", lambda run: 22.0 + run.seed, open_study(tmp_path / "mine.toml"), about=IMAGES)
    found = reproduce([tmp_path])
    for label in ("standard", "POST"):
        there = row(found, "14", label)
        assert (there.status, next(one.network for one in there.related)[:11]) == ("related", "se_resnet50")
    assert found.unused == (f"{tmp_path}/t: the paper has no row of the study 'my grid'",)


@pytest.mark.parametrize("text", ["[]", '{"passed": 3}', '{"arms": [{}]}', "{"])
def test_a_report_of_another_program_ends_nothing(tmp_path: Path, text: str) -> None:
    study(tmp_path / "s")
    (tmp_path / "coverage").mkdir()
    (tmp_path / "coverage" / "report.json").write_text(text)
    found = reproduce([tmp_path])
    assert row(found, "14", "standard").status == "related"
    (unused,) = found.unused
    assert unused.startswith(f"{tmp_path}/coverage/report.json is no report.json of senet study report (")


def test_a_report_whose_arms_lack_something(tmp_path: Path) -> None:
    path = write_report(make_report(study(tmp_path / "s")))[-1]
    data = json.loads(path.read_text())
    arm: Any
    for arm in ({}, data["arms"][0] | {"paper": {}}, data["arms"][1] | {"difference": {}}, 3):
        (tmp_path / "x.json").write_text(json.dumps(data | {"arms": [arm]}))
        with pytest.raises(ValueError, match=r"x\.json is no report\.json of senet study report"):
            reproduce([tmp_path / "x.json"])


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder .*/none; give output folders"):
        reproduce([tmp_path / "none"])
    with pytest.raises(ValueError, match="expected the path of an output folder, got ''"):
        reproduce([""])  # which was the working directory
    with pytest.raises(ValueError, match="has no run, study or report; give output folders"):
        reproduce([tmp_path])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json is no report\.json of senet study report"):
        reproduce([tmp_path / "x.json"])


def test_a_study_without_runs_is_named(tmp_path: Path) -> None:
    write_study(tmp_path / "s", lambda run: None)
    (text,) = reproduce([tmp_path]).unused
    assert "/s has no complete run to report" in text


def test_the_page(tmp_path: Path) -> None:
    found = reproduce([study(tmp_path / "s"), run(tmp_path / "a", "wrn_16_8", "wrn", about=CIFAR)])
    page = as_markdown(found)
    assert status_summary(found) in " ".join(page.split())
    assert "Of 78 rows: 1 measured as in the paper, 3 with a related study" in page
    assert all(f"## Table {number}: " in page for number in range(2, 17))
    assert "| WRN-16-8 | `wrn_16_8` | 4.27/- | 5.00 |" in page
    assert "- related to standard: se\\_resnet20 on CIFAR-10" in page
    assert "AP 57.9/38.0" in page
    assert "senet train faster_rcnn:se_resnet101 --data coco:COCO --recipe coco-2x" in page
    for line in (study_command("14"), study_command("10")):
        assert line in page.splitlines()
    assert not re.search(r"^ *\|.*missing.*measured", page, re.M)


def test_as_data() -> None:
    data = reproduce().as_data()
    json.dumps(data, allow_nan=False)
    (one,) = [one for one in data if (one["table"], one["label"]) == ("14", "PRE")]
    assert one["options"] == {"bias": False, "placement": "pre"}
    assert (one["data_set"], one["top1_error"], one["status"]) == ("ImageNet", 22.23, "missing")
    assert one["study"].startswith("senet study placement")


def test_the_page_of_the_documentation_is_not_stale() -> None:
    spec = importlib.util.spec_from_file_location("generate_reproduce", DOCS / "generate_reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (DOCS / "reproduce.md").read_text(encoding="utf-8"), (
        "run: python docs/generate_reproduce.py"
    )
