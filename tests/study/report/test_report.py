import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from senet.paper import entries
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan_file import save_plan
from senet.study.plan.study import Study, StudyArm
from senet.study.report import results
from senet.study.report.axes import limits
from senet.study.report.page import as_html, as_markdown
from senet.study.report.report import StudyReport, make_report
from senet.study.report.report_data import as_data
from senet.study.report.tables import report_rows
from senet.study.report.writing import write_report
from tests.study.folders import by_arm, precision_of, write_run, write_study


@pytest.fixture(autouse=True)
def _no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting multiply-adds is tested with the results, and takes its time."""
    monkeypatch.setattr(results, "cost_of", lambda run: results.Cost(run.parameters, 41_000_000, (32, 32)))


PLAIN, STANDARD = [20.0, 21.0, 22.5], [19.0, 20.5, 21.0]


@pytest.fixture
def report(tmp_path: Path) -> StudyReport:
    """PRE is surely better than the plain network, POST has one seed, identity none."""
    errors = by_arm(plain=PLAIN, standard=STANDARD, pre=[15.0, 16.01, 17.49], post=[None, 22.0])
    write_study(tmp_path / "s", errors)
    return make_report(tmp_path / "s")


def arm(data: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in data["arms"] if one["name"] == name]
    return found


def test_differences_are_paired_and_corrected(report: StudyReport) -> None:
    data = as_data(report)
    standard, pre = arm(data, "standard"), arm(data, "pre")
    p = {
        "standard": scipy.stats.ttest_rel(STANDARD, PLAIN).pvalue,
        "pre": scipy.stats.ttest_rel([15.0, 16.01, 17.49], PLAIN).pvalue,
    }
    assert p["pre"] < p["standard"]
    assert standard["difference"]["t_p"] == pytest.approx(p["standard"], rel=1e-6)
    assert standard["difference"]["p"] == pytest.approx(3 * p["standard"], rel=1e-6)
    assert pre["difference"]["p"] == pytest.approx(4 * p["pre"], rel=1e-4)  # of four that are planned
    assert (pre["difference"]["significant"], standard["difference"]["significant"]) == (True, False)
    assert standard["difference"]["values"] == [-1.0, -0.5, -1.5]
    low, high = scipy.stats.t.interval(0.95, 2, loc=20.5 - 0.3333333, scale=scipy.stats.sem(STANDARD))
    assert (standard["mean"], standard["half"]) == (pytest.approx(60.5 / 3), pytest.approx((high - low) / 2))
    # The first epoch of each run was one point lower.
    assert standard["best_epoch_mean"] == pytest.approx(60.5 / 3 - 1)
    assert (data["tests"], data["comparisons"]) == (2, 4)


def test_verdict_of_each_arm(report: StudyReport) -> None:
    data = as_data(report)
    assert arm(data, "plain")["verdict"] == "baseline"
    assert arm(data, "plain")["difference"] is None
    assert arm(data, "pre")["verdict"] == "lower error, significant with 3 seeds"
    assert arm(data, "post")["verdict"] == "one seed in common with the baseline: no interval and no test"
    assert arm(data, "identity")["verdict"] == "no complete run"
    standard = arm(data, "standard")
    # Differences -1, -0.5 and -1.5 have a deviation of 0.5: an effect of 2, at 0.05 / 4.
    needed = standard["difference"]["seeds_needed"]
    t = scipy.stats.t.isf(0.00625, needed - 1)
    assert scipy.stats.nct.sf(t, needed - 1, 2 * needed**0.5) >= 0.8
    t = scipy.stats.t.isf(0.00625, needed - 2)
    assert scipy.stats.nct.sf(t, needed - 2, 2 * (needed - 1) ** 0.5) < 0.8
    assert re.fullmatch(
        rf"not significant with 3 seeds, which detect [\d.]+ points; about {needed} seeds would detect the observed "
        rf"difference",
        standard["verdict"],
    )


def test_alongside_the_paper(report: StudyReport) -> None:
    data = as_data(report)
    rows = {entry.label: entry for entry in entries("14")}
    paper = arm(data, "pre")["paper"]
    assert (paper["table"], paper["label"], paper["top1_error"]) == ("14", "PRE", rows["PRE"].top1)
    assert paper["difference"] == pytest.approx(22.23 - 23.30)
    signs = {one["name"]: (one["paper"] or {}).get("same_sign") for one in data["arms"]}
    # POST had a higher error than plain with the seed that both have, and has a lower one in the paper.
    assert signs == {"plain": None, "standard": True, "pre": True, "post": False, "identity": None}
    assert data["signs"] == {"agree": 2, "arms": 3}
    # Measured plain 21.2, standard 20.2, PRE 16.2, POST 22; in the paper 23.30, 22.28, 22.23, 22.78.
    assert data["order"]["arms"] == 4
    assert data["order"]["tau"] == pytest.approx((5 - 1) / 6)
    assert any("on ImageNet" in note and "of other networks" in note for note in data["notes"])


def test_detectors_are_compared_by_average_precision(tmp_path: Path) -> None:
    """A higher AP is better, and the paper's rows of this study are top-1 errors."""
    study = open_study("squeeze", "faster_rcnn:resnet20")
    plan = make_plan(study, data="coco:cells", recipe="coco-2x", seeds=3, folder=tmp_path / "s")
    save_plan(plan)
    gains = {"plain": 0.0, "squeeze-max": 5.0, "squeeze-avg": -5.0}
    for run in plan.runs:
        write_run(run.folder, run.arm.network, plan.recipe_of(run), [], {"epochs": 2})
        last = 30.0 + gains[run.arm.name] * (1 + 0.01 * run.seed)
        lines = precision_of(1, 40.0, 50.0) + precision_of(2, last, 50.0)
        (run.folder / "metrics.jsonl").write_text(lines)
    data = as_data(make_report(tmp_path / "s"))
    assert [one["verdict"] for one in data["arms"]] == [
        "baseline",
        "higher AP, significant with 3 seeds",
        "lower AP, significant with 3 seeds",
    ]
    assert data["metric"]["key"] == "ap"
    assert [one["paper"] for one in data["arms"]] == [None] * 3
    assert (data["table"], data["order"]["arms"], data["signs"]["arms"]) == ("", 0, 0)
    assert (data["epochs"], data["iterations"]) == ([], [180_000])
    assert "180,000 iterations of the recipe coco-2x" in as_markdown(data)
    assert any("best epoch's would be too high" in note for note in data["notes"])
    assert "right is better" in as_html(data)
    assert "left is better" not in as_html(data)
    assert "backbone with pyramid for an image of 32x32 pixels" in as_markdown(data)


def test_missing_runs_are_listed(report: StudyReport) -> None:
    data = as_data(report)
    assert (data["runs"], data["planned"]) == (10, 15)
    assert {(one["arm"], one["seed"]) for one in data["left_out"]} == {
        ("post", 0),
        ("post", 2),
        *(("identity", seed) for seed in range(3)),
    }
    assert "5 of 15 runs are missing." in data["summary"]
    assert data["summary"][:2] == [
        "1 of 2 arms differs significantly from 'no SE': lower error with PRE.",
        "Of 4 arms, 2 could be tested; p is corrected for all 4.",
    ]
    assert any("Holm's correction over 4 tests, of which 2 cannot be made yet." in note for note in data["notes"])


def test_a_first_look_is_corrected_for_what_is_to_come(tmp_path: Path) -> None:
    """p = 0.0007 of one arm, when three more are planned."""
    write_study(tmp_path / "s", by_arm(plain=PLAIN, pre=[15.0, 16.01, 17.49]))
    data = as_data(make_report(tmp_path / "s"))
    found = arm(data, "pre")["difference"]
    assert found["p"] == pytest.approx(4 * found["t_p"])
    assert data["summary"][0] == "The one arm that was tested differs significantly from 'no SE': lower error with PRE."


def test_all_that_was_planned_is_tested(tmp_path: Path) -> None:
    study = open_study("placement", "resnet20").only(["plain", "standard"])
    write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=STANDARD), study)
    data = as_data(make_report(tmp_path / "s"))
    assert arm(data, "standard")["difference"]["p"] == arm(data, "standard")["difference"]["t_p"]
    assert not any("could be tested" in sentence for sentence in data["summary"])
    assert any(note.endswith("Holm's correction over 1 test.") for note in data["notes"])


def test_failed_runs_are_reported(tmp_path: Path) -> None:
    """A mean of the seeds that did not diverge is no mean of all."""
    plan = write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=[19.0, 20.0]))
    (run,) = [run for run in plan.runs if run.name == "standard seed 2"]
    run.log.write_text("$ senet train\nerror: the loss is nan at step 2\n")
    data = as_data(make_report(tmp_path / "s"))
    (one,) = [one for one in data["left_out"] if one["failed"]]
    assert (one["arm"], one["seed"]) == ("standard", 2)
    sentence = "1 run failed: its arm's mean is over the seeds that did not fail, and may be too low."
    assert data["summary"][-1] == sentence
    for text in (as_html(data), as_markdown(data)):
        assert "failed: the loss is nan at step 2 (not started)" in text


def test_nothing_is_significant_and_it_says_so(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=[20.5, 20.0, 22.6], pre=[21.0, 20.0, 22.0]))
    data = as_data(make_report(tmp_path / "s"))
    assert data["summary"][0] == "None of 2 arms differs significantly from 'no SE'."


def test_another_baseline(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=STANDARD, pre=[18.0, 19.0, 20.0]))
    found = make_report(tmp_path / "s", baseline="standard")
    data = as_data(found)
    assert data["baseline"] == "standard"
    assert arm(data, "plain")["difference"]["values"] == [1.0, 0.5, 1.5]
    assert arm(data, "plain")["paper"]["difference"] == pytest.approx(1.02)
    with pytest.raises(ValueError, match="unknown arm 'standart'; did you mean 'standard'"):
        make_report(tmp_path / "s", baseline="standart")


def test_the_studys_baseline_if_it_has_runs(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(standard=STANDARD, pre=[18.0, 19.0, 20.0]))
    data = as_data(make_report(tmp_path / "s"))
    assert data["baseline"] == "standard"
    assert arm(data, "pre")["baseline"] == "standard"
    assert "from 'standard'" in data["summary"][0]


@pytest.mark.parametrize("named", [True, False])
def test_a_baseline_of_a_file_is_that_of_all_arms(tmp_path: Path, named: bool) -> None:
    """Though each network with SE could be compared to the same without."""
    name = "baseline = 'se_resnet20-lr-0.1'\n" if named else ""
    (tmp_path / "mine.toml").write_text(f"{name}[grid]\nnetwork = ['resnet20', 'se_resnet20']\nlr = [0.1, 0.05]\n")
    write_study(tmp_path / "s", lambda run: 20.0 + run.seed, open_study(tmp_path / "mine.toml"))
    data = as_data(make_report(tmp_path / "s"))
    against = {one["name"]: one["baseline"] for one in data["arms"]}
    if named:
        assert data["baseline"] == "se_resnet20-lr-0.1"
        assert {name for name, other in against.items() if other != data["baseline"]} == {data["baseline"]}
    else:
        assert data["baseline"] == "twins"
        assert against["se_resnet20-lr-0.05"] == "resnet20-lr-0.05"


def test_one_seed(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=[20.0], standard=[19.0]), seeds=1)
    data = as_data(make_report(tmp_path / "s"))
    assert (arm(data, "standard")["mean"], arm(data, "standard")["half"]) == (19.0, None)
    assert arm(data, "standard")["difference"]["mean"] == -1.0
    assert data["summary"][0] == ("No arm can be tested against 'no SE' yet: a test needs two or more seeds in common.")
    json.dumps(data, allow_nan=False)


def test_a_baseline_without_the_seeds_of_the_others(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=[20.0], standard=[None, 19.0, 18.0]))
    data = as_data(make_report(tmp_path / "s"))
    assert arm(data, "standard")["verdict"] == "no seed in common with plain"
    assert arm(data, "standard")["paper"]["same_sign"] is None


def test_the_same_results_in_both_arms(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=PLAIN, pre=[error - 1 for error in PLAIN]))
    data = as_data(make_report(tmp_path / "s"))
    verdict = "no difference with each of 3 seeds: no t test is possible"
    assert arm(data, "standard")["verdict"] == verdict
    assert arm(data, "pre")["verdict"].startswith("the same difference with each of 3 seeds")
    assert (arm(data, "pre")["difference"]["p"], data["tests"]) == (None, 0)
    assert (arm(data, "pre")["difference"]["mean"], arm(data, "pre")["difference"]["half"]) == (-1.0, None)
    # Zero is on neither side.
    assert (arm(data, "standard")["paper"]["same_sign"], arm(data, "pre")["paper"]["same_sign"]) == (None, True)


def test_networks_are_compared_to_their_plain_twins(tmp_path: Path) -> None:
    study = open_study("networks").only(["preresnet110", "se_preresnet110", "wrn_16_8", "se_wrn_16_8"])
    errors = {"preresnet110": 7.0, "se_preresnet110": 6.0, "wrn_16_8": 5.0, "se_wrn_16_8": 5.5}
    write_study(tmp_path / "s", lambda run: errors[run.arm.network] + 0.1 * run.seed, study)
    data = as_data(make_report(tmp_path / "s"))
    assert data["baseline"] == "twins"
    assert [one["baseline"] for one in data["arms"]] == ["", "preresnet110", "", "wrn_16_8"]
    assert arm(data, "se_wrn_16_8")["difference"]["mean"] == pytest.approx(0.5)
    assert arm(data, "se_wrn_16_8")["paper"]["difference"] == pytest.approx(3.88 - 4.27)


def test_an_arm_without_a_baseline_says_so(tmp_path: Path) -> None:
    """A network with SE whose twin is in no arm, and one whose twin was left out."""
    (tmp_path / "mine.toml").write_text(
        "[grid]\nnetwork = ['resnet20', 'se_resnet20', 'resnet32', 'se_resnet32', 'se_resnet56']\n"
    )
    study = open_study(tmp_path / "mine.toml").only(["resnet20", "se_resnet20", "se_resnet32", "se_resnet56"])
    write_study(tmp_path / "s", lambda run: 20.0 + run.seed + len(run.arm.name), study, seeds=2)
    found = make_report(tmp_path / "s")
    data = as_data(found)
    verdicts = {one["name"]: one["verdict"] for one in data["arms"]}
    assert verdicts["resnet20"] == "baseline"
    assert "no t test" in verdicts["se_resnet20"]
    none = "no baseline: "
    assert verdicts["se_resnet32"] == f"{none}the arm resnet32 is not in the study; run it too"
    assert verdicts["se_resnet56"] == f"{none}the study has no arm of resnet56 with the same recipe"
    assert data["comparisons"] == 1
    for name in ("se_resnet32", "se_resnet56"):
        assert (arm(data, name)["baseline"], arm(data, name)["difference"]) == ("", None)
        assert arm(data, name)["without_baseline"]
    assert not arm(data, "resnet20")["without_baseline"]
    assert "se_resnet32, se_resnet56 have no baseline and are not compared." in data["summary"]
    columns, rows = report_rows(data)
    cells = [dict(zip(columns, row, strict=True))["difference"] for row in rows]
    assert cells == ["", "+3.00", "no baseline", "no baseline"]
    for text in (Elements(as_html(data)).text, as_markdown(data)):
        assert verdicts["se_resnet56"] in text
    assert as_html(data).count('aria-label="se_resnet56: no baseline"') == 1
    write_report(found)


def test_no_arm_has_a_baseline(tmp_path: Path) -> None:
    """Of arms that all have a twin, none of them here; nothing is called a baseline, and --baseline chooses one."""
    study = open_study("networks").only(["se_preresnet110", "se_wrn_16_8"])
    write_study(tmp_path / "s", lambda run: 5.0 + run.seed, study, seeds=2)
    found = make_report(tmp_path / "s")
    data = as_data(found)
    assert data["baseline"] == ""
    assert all(one["verdict"].startswith("no baseline: the arm ") for one in data["arms"])
    assert data["summary"][0].startswith("No arm has a baseline, so nothing is compared")
    assert "difference (no arm has a baseline)" in Elements(as_html(data)).text
    write_report(found)
    chosen = as_data(make_report(tmp_path / "s", baseline="se_wrn_16_8"))
    assert [one["baseline"] for one in chosen["arms"]] == ["se_wrn_16_8", ""]
    assert arm(chosen, "se_wrn_16_8")["verdict"] == "baseline"


def test_rows_of_other_tables_are_not_compared(tmp_path: Path) -> None:
    """The paper's errors on CIFAR-10 and ImageNet have no difference and no order."""
    study = open_study("squeeze", "resnet20")
    plain, *others = study.arms
    mixed = replace(study, arms=(replace(plain, entry=entries("4")[0]), *others))
    write_study(tmp_path / "s", lambda run: 20.0 + run.seed, mixed, seeds=2)
    data = as_data(make_report(tmp_path / "s"))
    assert [one["paper"]["difference"] for one in data["arms"]] == [None, None, None]
    assert data["order"] == {"arms": 0, "tau": None, "p": None}


def test_wilcoxon_where_there_are_seeds_enough(tmp_path: Path) -> None:
    steps = [0.1, -0.2, 0.3, 0.45, 0.5, 0.61]
    errors = by_arm(plain=[20.0] * 6, standard=[20 - step for step in steps])
    write_study(tmp_path / "s", errors, seeds=6)
    data = as_data(make_report(tmp_path / "s"))
    expected = scipy.stats.wilcoxon(steps).pvalue
    assert arm(data, "standard")["difference"]["wilcoxon_p"] == pytest.approx(expected)
    assert "p (Wilcoxon)" in report_rows(data)[0]
    assert any("not corrected" in note for note in data["notes"])


def test_columns_that_say_nothing_are_left_out(report: StudyReport) -> None:
    data = as_data(report)
    columns, rows = report_rows(data)
    assert "p (Wilcoxon)" not in columns
    cells = dict(zip(columns, rows[2], strict=True))
    assert cells["arm"] == "PRE"
    assert cells["error %"] == f"16.17 ± {arm(data, 'pre')['half']:.2f}"
    assert cells["difference"].startswith("-5.00 ± ")
    assert (cells["paper's difference"], cells["same side"]) == ("-1.07", "yes")
    assert (cells["parameters"], cells["multiply-adds"], cells["s per epoch"]) == ("272,095", "41.00 M", "11.5")


def test_axes_hold_every_point_and_not_every_interval(tmp_path: Path) -> None:
    write_study(tmp_path / "s", by_arm(plain=[20.0, 20.2], standard=[19.0, 21.0]), seeds=2)
    data = as_data(make_report(tmp_path / "s"))
    low, high = limits(data, "errors")
    assert low < 19.0
    assert high > 21.0
    # An interval of 12.7 deviations would leave the points in a twelfth of the axis.
    assert arm(data, "standard")["half"] > 12
    assert high - low < 8
    low, high = limits(data, "differences")
    assert low < min(-1.0, -1.02)
    assert high > 0.8


NAME = '<script>alert("&")</script> | `x` %%table%%'


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, Any]:
    """Names that would be something else in HTML and Markdown."""
    arms = (
        StudyArm("plain", NAME, "resnet20"),
        StudyArm("other", "other", "se_resnet20"),
    )
    study = Study("mine", f"mine {NAME}", "", arms, "plain")
    write_study(tmp_path / "s", lambda run: 20.0 + run.seed, study, seeds=2, about={"data": NAME})
    return as_data(make_report(tmp_path / "s")) | {"data": NAME}


class Elements(HTMLParser):
    """Tags, and text outside of styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_escapes_names_and_loads_nothing(strange: dict[str, Any]) -> None:
    found = Elements(as_html(strange))
    assert "script" not in found.tags
    assert "link" in found.tags
    assert found.text.count(NAME) >= 4  # title, heading, data, row
    assert not any(re.match(r"(https?:)?//", value) for value in found.values)
    assert not re.search(r"url\(|@import", as_html(strange))


def test_markdown_escapes_names(strange: dict[str, Any]) -> None:
    text = as_markdown(strange)
    assert "<" not in text
    assert "&lt;script&gt;" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert len(rows) == 4
    assert len(bars) == 1


def test_the_page_shows_every_seed(report: StudyReport) -> None:
    data = as_data(report)
    page = as_html(data)
    assert page.count('title="seed ') == sum(len(one["errors"]) for one in data["arms"]) + sum(
        len(one["difference"]["values"]) for one in data["arms"] if one["difference"]
    )
    for sentence in data["summary"]:
        assert sentence in Elements(page).text
    assert "difference in the paper" in page
    assert "Missing runs" in page


def test_write_report(report: StudyReport, tmp_path: Path) -> None:
    files = write_report(report)
    folder = tmp_path / "s"
    assert files == [folder / f"report.{kind}" for kind in ("html", "md", "png", "json")]
    assert json.loads((folder / "report.json").read_text()) == as_data(report)
    assert (folder / "report.md").read_text() == as_markdown(as_data(report))
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not [path for path in folder.iterdir() if path.name.startswith(".report")]
    (tmp_path / "copy").mkdir()
    assert write_report(report, tmp_path / "copy")[2].read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(OSError, match="no folder"):
        write_report(report, tmp_path / "none")


def test_a_report_is_silent_about_where_things_lie(tmp_path: Path) -> None:
    """It may be published."""
    about = {"validation": "/home/me/data/cifar/val.tar"}
    write_study(tmp_path / "s", by_arm(plain=PLAIN, standard=[19.0]), about=about)
    (tmp_path / "s" / "runs" / "standard" / "seed-0" / "metrics.jsonl").write_text("")
    data = as_data(make_report(tmp_path / "s"))
    assert data["validation"] == "…/cifar/val.tar"
    (reason,) = [one["reason"] for one in data["left_out"] if (one["arm"], one["seed"]) == ("standard", 0)]
    assert reason.startswith("the run …/standard/seed-0 has no epochs yet")
    for text in (json.dumps(data, ensure_ascii=False), as_html(data), as_markdown(data)):
        assert str(tmp_path) not in text
        assert "/home/me" not in text


def test_one_row_of_the_paper_alone_is_not_shown(tmp_path: Path) -> None:
    study = open_study("placement", "resnet20")
    alone = replace(study, arms=(study.arms[0], replace(study.arms[1], entry=None)))
    write_study(tmp_path / "s", lambda run: 20.0 + run.seed, alone, seeds=2)
    data = as_data(make_report(tmp_path / "s"))
    assert [one["paper"] for one in data["arms"]] == [None, None]
    assert not any("paper" in column for column in report_rows(data)[0])
    assert not any("paper" in note for note in data["notes"])
