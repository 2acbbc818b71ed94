"""Loggers of runs, with stand-ins for the libraries."""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from senet.runs import RunFolder
from senet.training import train
from senet.training.loggers import RunLoggers, check_loggers
from senet.utils.errors import FileError
from tests.helpers import shallow_resnet20
from tests.training.loggers.stand_ins import STAND_INS, install
from tests.training.small import epoch_of, small_data, small_recipe

pytestmark = pytest.mark.usefixtures("quick_curves", "small_networks")
LIBRARIES = pytest.mark.parametrize("name", STAND_INS)


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    with shallow_resnet20():
        yield


def run(output: Path, log: Any, reporter: Any = None, **options: Any) -> Any:
    recipe = small_recipe(**{"epochs": 2} | options)
    resume = (output / "checkpoint.pt").exists()
    return train("resnet20", (small_data(), small_data()), recipe, output, log=log, resume=resume, reporter=reporter)


class Notes:
    """A reporter that keeps its notes."""

    def __init__(self) -> None:
        from senet.runs.reporting import Silent

        self.notes: list[str] = []
        self._silent = Silent()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._silent, name)


def logged(store: Any) -> list[tuple[int, dict[str, float]]]:
    """The history of the one run."""
    ((_, found),) = store.runs.items()
    return found["history"]  # type: ignore[no-any-return]


def metrics_of(output: Path) -> list[tuple[int, dict[str, float]]]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(row.pop("epoch"), row) for row in rows]


def open_loggers(output: Path, log: Any, done: int = 0, notes: list[str] | None = None, **options: Any) -> RunLoggers:
    given: dict[str, Any] = {"config": {"lr": 0.1}, "epochs": epochs(done), "planned": 4, **options}
    folder = RunFolder(output)
    return RunLoggers(check_loggers(log), folder=folder, note=(notes if notes is not None else []).append, **given)


def epochs(count: int) -> list[Any]:
    return [epoch_of(n, loss=1 / n) for n in range(1, count + 1)]


@LIBRARIES
def test_a_run_and_its_resumption_are_one_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, output, notes = install(name, monkeypatch), tmp_path / "digits", Notes()
    run(output, name, notes)
    assert logged(store) == metrics_of(output)
    (identity,) = store.runs
    assert store.runs[identity]["status"] in ("exit 0", "FINISHED", "done")
    assert store.runs[identity]["config"]["network"] == "resnet20"
    assert {"lr", "seed", "data", "torch"} <= set(store.runs[identity]["config"])
    assert store.runs[identity]["name"].startswith("digits")
    assert len(notes.notes) == 1
    assert notes.notes[0].startswith(f"{name}: ")
    run(output, name, epochs=3)
    assert logged(store) == metrics_of(output)
    assert [step for step, _ in logged(store)] == [1, 2, 3]
    assert store.runs[identity]["opened"] == 2
    assert json.loads((output / "loggers.json").read_text()) == {name: {"id": identity, "logged": 3}}
    assert not capsys.readouterr().out  # of the library: a program may read JSON there


@LIBRARIES
def test_what_a_killed_process_did_not_log_is_logged_later(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = install(name, monkeypatch)
    with open_loggers(tmp_path, name) as loggers:
        loggers.write(epochs(1))
    with open_loggers(tmp_path, name, done=3) as loggers:
        loggers.write(epochs(4))
    assert [(step, row["loss"]) for step, row in logged(store)] == [(n, 1 / n) for n in range(1, 5)]


def test_a_logger_that_fails_changes_no_bit(tmp_path: Path) -> None:
    def failing(metrics: Mapping[str, float], step: int) -> None:
        torch.rand(3), random.random(), np.random.rand()
        raise ConnectionError("no network\nfor now")

    notes = Notes()
    quiet, loud = run(tmp_path / "quiet", (), epochs=4), run(tmp_path / "loud", failing, notes, epochs=4)
    for file in ("best", "last"):
        one, other = (load_file(tmp_path / kind / f"{file}.safetensors") for kind in ("quiet", "loud"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert [epoch.metrics for epoch in quiet.epochs] == [epoch.metrics for epoch in loud.epochs]
    assert len(notes.notes) == 3  # and no more, since each failure may take minutes
    assert notes.notes[0] == (
        "logger 1 failed after epoch 1, and training continues: ConnectionError: no network; it is tried again after "
        "the next epoch"
    )
    assert "after 3 failures nothing more is logged to it" in notes.notes[2]


def test_epochs_that_were_missed_are_logged_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, notes = install("mlflow", monkeypatch), list[str]()
    with open_loggers(tmp_path, "mlflow", notes=notes) as loggers:
        store.fail = TimeoutError("the server is busy")
        loggers.write(epochs(1))
        loggers.write(epochs(2))
        store.fail = None
        loggers.write(epochs(3))
    assert [step for step, _ in logged(store)] == [1, 2, 3]
    assert sum("the server is busy" in note for note in notes) == 2


@pytest.mark.parametrize(("ending", "status"), [(None, "KILLED"), (RuntimeError("x"), "FAILED")])
def test_a_library_knows_how_a_run_ended(
    ending: Exception | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = install("mlflow", monkeypatch)
    loggers = open_loggers(tmp_path, "mlflow")
    loggers.write(epochs(1))
    loggers.__exit__(None if ending is None else type(ending), ending, None)
    assert [run["status"] for run in store.runs.values()] == [status]


def test_an_error_at_the_end_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("trackio", monkeypatch)
    notes: list[str] = []
    with open_loggers(tmp_path, "trackio", notes=notes) as loggers:
        monkeypatch.setattr(loggers._loggers["trackio"], "close", lambda ending: 1 / 0)
    assert notes[-1] == "trackio failed at the end of the run: ZeroDivisionError: division by zero"


def test_functions_get_the_epochs_of_their_process(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    with open_loggers(tmp_path, [lambda metrics, step: seen.append((step, metrics["loss"]))], done=2) as loggers:
        loggers.write(epochs(4))
    assert seen == [(3, 1 / 3), (4, 1 / 4)]
    assert not (tmp_path / "loggers.json").exists()


def test_what_is_refused_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown logger 'wandbb'.*wandb"):
        run(tmp_path / "run", "wandbb")
    with pytest.raises(TypeError, match="log must be a name or a function of metrics and an epoch, got 3"):
        run(tmp_path / "run", [3])
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"{name} .*: pip install -e '.*\[{name}\]'"):
            run(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


def test_a_library_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = install("mlflow", monkeypatch)
    install("wandb", monkeypatch)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **options: 1 / 0)
    with pytest.raises(ValueError, match="wandb does not start: ZeroDivisionError"):
        run(tmp_path / "run", ["mlflow", "wandb"])
    assert [found["status"] for found in store.runs.values()] == ["FAILED"]


def test_a_damaged_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("wandb", monkeypatch)
    (tmp_path / "loggers.json").write_text("{")
    with pytest.raises(FileError, match=r"loggers\.json"):
        open_loggers(tmp_path, "wandb")


def test_a_run_that_only_changes_its_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = install("wandb", monkeypatch), install("trackio", monkeypatch)
    run(tmp_path, "wandb")
    run(tmp_path, "trackio", epochs=3)
    assert [step for step, _ in logged(first)] == [1, 2]
    assert [step for step, _ in logged(second)] == [1, 2, 3]
    assert set(json.loads((tmp_path / "loggers.json").read_text())) == {"wandb", "trackio"}
