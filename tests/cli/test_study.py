"""`senet study`: real runs of a second are slow tests here; their parts are tested in tests/study."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from senet.cli.common.study_live import StudyLive, duration
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.running.run import RunState
from tests.cli.helpers import answer, invoke, refuses

SETTINGS = ("epochs=1", "warmup=0.5", "batch=4", "lr=0.01", "device=cpu", "workers=0")
SHORT = ["--recipe", "digits", *(part for setting in SETTINGS for part in ("--set", setting))]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("senet.study.running.run._POLL", 0.05)


def command(folder: Path, data: Path, name: object = "conv3x3", *more: object) -> list[object]:
    return ["study", name, "--data", data, "--network", "resnet20", "-o", folder / "study", *SHORT, *more]


@pytest.mark.slow
def test_a_study(tmp_path: Path, data: Path) -> None:
    """An arm at first, more arms and a failure next, what is missing last."""
    (tmp_path / "lr.toml").write_text("[grid]\nlr = [0.01, 1e30]\n")
    values = ("epochs=1", "schedule=step", "warmup=0", "batch=4", "workers=0", "device=cpu")
    settings = [part for value in values for part in ("--set", value)]
    base = ["study", tmp_path / "lr.toml", "--data", data, "--model", "resnet20", "-o", tmp_path / "study"]
    base += ["--recipe", "digits", *settings, "--seeds", 1]
    first = answer(*base, "--arms", "resnet20-lr-0.01")
    (run,) = first["runs"]
    assert (run["arm"], run["seed"], run["status"], run["epochs"]) == ("resnet20-lr-0.01", 0, "done", 1)
    error = json.loads((Path(run["folder"]) / "metrics.jsonl").read_text())["top1_error"]
    assert run["top1_error"] == error
    result = invoke(*base, "--jobs", 2)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == "2 runs: 1 done"
    assert "resnet20-lr-1e-30 seed 0 failed after 0 of 1 epochs:\n    error: the loss is " in result.stderr
    log = tmp_path / "study" / "runs" / "resnet20-lr-1e-30" / "seed-0.log"
    assert f"\n    log: {log}\n" in result.stderr
    assert result.stderr.endswith("1 of 2 runs failed: resnet20-lr-1e-30 seed 0; run the same command to retry them\n")
    assert [line.split() for line in result.stdout.splitlines()[1:3]] == [
        ["resnet20-lr-0.01", "resnet20", "lr=0.01", "1", "of", "1", f"{error:.2f}"],
        ["resnet20-lr-1e-30", "resnet20", "lr=1e+30", "0", "of", "1", "-"],
    ]
    assert f"senet study report {tmp_path}/study" in result.stdout
    refuses("in use by another study: batch was 4 and is 2", *base, "--set", "batch=2")


def test_a_dry_run(tmp_path: Path, data: Path) -> None:
    found = answer(*command(tmp_path, data, "conv3x3", "--seeds", 2, "--dry-run", "--jobs", 2))
    assert [(run["arm"], run["seed"]) for run in found["runs"]] == [
        (arm, seed) for seed in (0, 1) for arm in ("plain", "standard", "conv3x3")
    ]
    plain, standard = found["runs"][:2]
    assert (plain["parameters"], plain["macs"]) == (269_202, 40_550_528)
    assert standard["network"] == "se_resnet20"
    assert standard["parameters"] > plain["parameters"]
    assert found["seconds"] == pytest.approx(sum(run["seconds_left"] for run in found["runs"]) / 2)
    assert plain["seconds_left"] == plain["run_seconds"] > 3 * plain["step_seconds"] > 0
    assert (found["jobs"], found["threads"]) == (2, 1)
    assert not (tmp_path / "study").exists()
    result = invoke(*command(tmp_path, data, "conv3x3", "--seeds", 1, "--dry-run", "--arms", "plain"))
    assert "269,202" in result.stdout
    assert "from the median of up to 5 steps of each arm" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_the_same_command(
    tmp_path: Path, data: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # whatever a shell had ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    many = ["--seeds", 1, "--set", "epochs=3000", "--set", "batch=1", "--arms", "plain", "--json"]
    metrics = tmp_path / "study" / "runs" / "plain" / "seed-0" / "metrics.jsonl"
    epochs = 0
    for _ in range(2):
        done = epochs

        def interrupt(done: int = done) -> None:
            while not metrics.exists() or len(metrics.read_text().splitlines()) <= done:
                time.sleep(0.02)
            os.kill(os.getpid(), number)

        threading.Thread(target=interrupt, daemon=True).start()
        result = invoke(*command(tmp_path, data, "conv3x3", *many))
        assert result.exit_code == 128 + number, result.stderr
        (run,) = json.loads(result.stdout)["runs"]
        assert run["status"] == "stopped"
        assert "interrupted: 0 of 1 runs done; run the same command to resume" in result.stderr
        epochs = len(metrics.read_text().splitlines())
        assert run["epochs"] == epochs > done
    assert f"plain seed 0 resumes after {done} of 3000 epochs" in result.stderr
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stage", [], "unknown study 'stage'; did you mean 'stages'"),
        ("gate", ["--network", "resnet21"], "unknown network 'resnet21'; did you mean"),
        ("gate", ["--recipe", "digit"], "unknown recipe 'digit'; did you mean 'digits'"),
        ("gate", ["--set", "epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        ("gate", ["--data", "nowhere"], "the data 'nowhere' does not exist"),
        ("gate", ["--seeds", "0"], "seeds must be 1 or more, got 0"),
        ("gate", ["--jobs", "0"], "jobs must be 1 or more, got 0"),
        ("gate", ["--jobs", "0", "--dry-run"], "jobs must be 1 or more, got 0"),
        ("gate", ["--arms", "gate-tan"], "unknown arm 'gate-tan'; did you mean 'gate-tanh'"),
        ("gate", ["--baseline", "plain"], "--baseline is an option of `senet study report DIR`"),
        ("gate", ["--ray", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
        ("init", [], "'init' needs network.weights"),
        ("init", ["--set", "network.weights=/nope.pth"], "network.weights='/nope.pth': there is no such file"),
        ("gate", ["--cpus", "2"], "--cpus and --gpus require --ray"),
        ("networks", [], "names its own networks; leave out --network resnet20"),
        ("nowhere.toml", [], "no study file at nowhere.toml"),
    ],
)
def test_refuses(tmp_path: Path, data: Path, name: str, options: list[str], message: str) -> None:
    refuses(message, *command(tmp_path, data, name, *options))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("option", ["--data", "--recipe", "--output"])
def test_what_is_missing(tmp_path: Path, option: str) -> None:
    given = {"--data": "digits", "--recipe": "digits", "--output": tmp_path / "study"}
    rest = [part for key, value in given.items() if key != option for part in (key, value)]
    refuses(f"{option} .* is missing; see `senet study --help`", "study", "gate", "--network", "resnet20", *rest)


def test_a_folder_in_two_places(tmp_path: Path) -> None:
    refuses("unexpected argument 'x': give the study's folder as --output DIR", "study", "gate", "x")
    refuses("DIR, the study's folder, is missing", "study", "report")
    refuses("unknown study 'atention'; did you mean 'attention'", "study", "atention", "--dry-run")


def test_a_folder_that_cannot_be_made(tmp_path: Path, data: Path) -> None:
    (tmp_path / "file").touch()
    refuses(
        "file is a file; .*file/study would be below it; choose another folder",
        *command(tmp_path / "file", data, "conv3x3"),
    )


def test_report_is_a_command_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("senet.cli.study_report.report", lambda folder, **options: calls.append((folder, options)))
    assert invoke("study", "report", tmp_path, "--baseline", "pre", "--json").exit_code == 0
    assert calls == [(str(tmp_path), {"baseline": "pre", "json": True})]


@pytest.mark.parametrize(
    "option",
    [["--seeds", 5], ["--arms", "plain"], ["--dry-run"], ["--output", "/nope"], ["--jobs", 2], ["--set", "a=b"]],
)
def test_a_report_takes_no_options_of_runs(tmp_path: Path, option: list[object]) -> None:
    refuses(
        f"{option[0]} is an option for running a study; `senet study report DIR` runs nothing",
        "study",
        "report",
        tmp_path,
        *option,
    )


@pytest.fixture
def states(tmp_path: Path) -> list[RunState]:
    study = open_study("conv3x3", "resnet20")
    plan = make_plan(study, data="digits", recipe="digits", seeds=1, folder=tmp_path)
    return [RunState(run, 4) for run in plan.runs]


def test_lines_where_there_is_no_terminal(states: list[RunState], capsys: pytest.CaptureFixture[str]) -> None:
    plain, standard, _ = states
    with StudyLive() as live:
        plain.epoch, plain.value = 1, 50.0
        live.start(states)
        plain.status, standard.status = "running", "elsewhere"
        live.update(states)
        plain.epoch, plain.value = 2, 40.0
        live.update(states)
        live.update(states)
        plain.status, plain.since, plain.seconds = "done", 1.0, 75.0
        live.ended(plain)
    assert capsys.readouterr().err.splitlines() == [
        "3 runs: 0 done, 1 started",
        "plain seed 0 resumes after 1 of 4 epochs",
        "standard seed 0 is being run by another process",
        "plain seed 0: 2 of 4 epochs, error 40.00 %",
        "plain seed 0 done: 2 of 4 epochs, error 40.00 %, 75 s",
    ]


@pytest.mark.usefixtures("terminal")
def test_a_table_on_a_terminal(states: list[RunState], capsys: pytest.CaptureFixture[str]) -> None:
    plain, standard, _ = states
    with StudyLive() as live:
        live.start(states)
        plain.status, plain.epoch, plain.value, standard.status = "running", 2, 40.0, "queued"
        live.update(states)
        table = live._table(states)
        assert table.columns[0]._cells == ["plain seed 0", "standard seed 0"]
        assert table.columns[1]._cells == ["━" * 10 + "╌" * 10, "queued"]
        assert table.columns[2]._cells == ["2/4", "0/4"]
        assert table.columns[3]._cells == ["40.00", ""]
        assert str(table.title).startswith("3 runs: 1 running, 1 queued, 1 waiting; about 0")
        live.ended(plain)
    assert "plain seed 0 running: 2 of 4 epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (75.0, "75 s"), (600.0, "10 min"), (12_600.0, "3.5 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
