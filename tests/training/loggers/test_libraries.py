"""The libraries themselves, in their offline modes, where they are installed: they are large, and no dependency."""

import importlib
import inspect
import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.training.loggers.stand_ins import STAND_INS, Store
from tests.training.loggers.test_run_loggers import metrics_of, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    return pytest.importorskip(request.param, exc_type=ImportError)


def signatures(module: Any) -> dict[str, inspect.Signature]:
    """The signatures of the functions and methods that a stand-in has."""
    found: dict[str, inspect.Signature] = {}
    for name, value in vars(module).items():
        if inspect.isclass(value):
            methods = {k: v for k, v in vars(value).items() if inspect.isfunction(v) and k != "__init__"}
            found |= {f"{name}.{k}": inspect.signature(v) for k, v in methods.items()}
        elif inspect.isfunction(value):
            found[name] = inspect.signature(value)
    return found


@pytest.mark.parametrize(("library", "name"), [(name, name) for name in STAND_INS], indirect=["library"])
def test_stand_ins_take_what_the_libraries_take(library: Any, name: str) -> None:
    stand_in = STAND_INS[name](Store())
    for module, replaced in stand_in.items():
        real = importlib.import_module(module)
        for path, signature in signatures(replaced).items():
            target: Any = real
            for part in path.split("."):
                target = getattr(target, part)
            theirs = inspect.signature(target).parameters
            if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in theirs.values()):
                continue  # such as wandb.Settings, which checks its fields itself
            assert set(signature.parameters) <= set(theirs), path


def records(file: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, after a header of seven bytes, in blocks of 32 KiB."""
    at, parts = 7, b""
    while at + 7 <= len(file):
        if at % 32768 > 32768 - 7:
            at += -at % 32768
            continue
        length, kind = int.from_bytes(file[at + 4 : at + 6], "little"), file[at + 6]
        parts += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_wandb(output: Path) -> list[tuple[int, dict[str, float]]]:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # as at the end of the process: waits until the files are complete
    found = []
    for path in sorted((output / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            record: Any = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
                found.append((items.pop("epoch"), {k: v for k, v in items.items() if not k.startswith("_")}))
    assert len({path.stem for path in (output / "wandb").glob("offline-run-*/*.wandb")}) == 1  # one id
    return found


def read_mlflow(output: Path) -> list[tuple[int, dict[str, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("senet")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["network"] == "resnet20"
    rows: dict[int, dict[str, float]] = {}
    for key in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, key):
            rows.setdefault(metric.step, {})[key] = metric.value
    return sorted(rows.items())


def read_trackio(output: Path) -> list[tuple[int, dict[str, float]]]:
    from trackio.utils import TRACKIO_DIR  # read from the environment when trackio was imported

    identity = json.loads((output / "loggers.json").read_text())["trackio"]["id"]
    with closing(sqlite3.connect(TRACKIO_DIR / "senet.db")) as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY step", (identity,))
        return [(step, json.loads(metrics)) for step, metrics in rows.fetchall()]


READERS = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


@pytest.mark.parametrize(("library", "name"), [(name, name) for name in STAND_INS], indirect=["library"])
def test_a_run_and_its_resumption_are_one_run(library: Any, name: str, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path / "run", name)
    run(tmp_path / "run", name, epochs=3)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert READERS[name](tmp_path / "run") == metrics_of(tmp_path / "run")
