"""Stand-ins for wandb, mlflow and trackio, which are not installed for tests: they take what the libraries take.

`test_libraries.py` compares their signatures with those of the libraries, where these are installed.
"""

import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Store:
    """What a library keeps: `runs[id]["history"]` is a list of (step, metrics)."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"history": [], "opened": 0, "status": "running"})
        self.fail: Exception | None = None  # raised by each call that logs

    def open(self, run: str, config: dict[str, Any] | None) -> None:
        self.runs[run]["opened"] += 1
        self.runs[run].setdefault("config", config)
        self.runs[run]["status"] = "running"

    def log(self, run: str, metrics: dict[str, float], step: int) -> None:
        print("a library that prints")
        if self.fail is not None:
            raise self.fail
        self.runs[run]["history"].append((step, metrics))


def wandb(store: Store) -> dict[str, ModuleType]:
    class Run:
        offline = True
        url = None

        def __init__(self, name: str) -> None:
            self.id = name

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            store.runs[self.id]["axis"] = step_metric

        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            assert step is not None
            store.log(self.id, {key: value for key, value in data.items() if key != "epoch"}, data["epoch"])

        def finish(self, exit_code: int | None = None) -> None:
            store.runs[self.id]["status"] = f"exit {exit_code}"

    def init(
        *, project: str, name: str, id: str | None, resume: str, dir: str, config: dict[str, Any], settings: Any
    ) -> Run:
        assert resume == "allow"
        assert settings.silent
        identity = id or f"w{len(store.runs)}"
        store.open(identity, config)
        store.runs[identity].update(project=project, name=name, dir=dir)
        return Run(identity)

    def settings(*, console: str, silent: bool) -> SimpleNamespace:
        return SimpleNamespace(console=console, silent=silent)

    return {"wandb": _module("wandb", init=init, Settings=settings)}


def mlflow(store: Store) -> dict[str, ModuleType]:
    class MlflowClient:
        tracking_uri = "a store"

        def get_experiment_by_name(self, name: str) -> Any:
            return None if not store.runs else SimpleNamespace(experiment_id="1")

        def create_experiment(self, name: str) -> str:
            return "1"

        def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
            identity = f"m{len(store.runs)}"
            store.open(identity, None)
            store.runs[identity].update(project=experiment_id, name=run_name, config={})
            return SimpleNamespace(info=SimpleNamespace(run_id=identity))

        def update_run(self, run_id: str, status: str | None = None) -> None:
            assert run_id in store.runs
            store.open(run_id, None)

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            store.runs[run_id]["config"] |= {one.key: one.value for one in params}
            if metrics:
                (step,) = {one.step for one in metrics}
                store.log(run_id, {one.key: one.value for one in metrics}, step)

        def set_terminated(self, run_id: str, status: str | None = None) -> None:
            store.runs[run_id]["status"] = str(status)

    def metric(key: str, value: float, timestamp: int, step: int) -> SimpleNamespace:
        return SimpleNamespace(key=key, value=value, step=step)

    def param(key: str, value: str) -> SimpleNamespace:
        assert isinstance(value, str)
        return SimpleNamespace(key=key, value=value)

    entities = _module("mlflow.entities", Metric=metric, Param=param)
    return {"mlflow": _module("mlflow", MlflowClient=MlflowClient, entities=entities), "mlflow.entities": entities}


def trackio(store: Store) -> dict[str, ModuleType]:
    class Run:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
            assert step is not None
            store.log(self.name, metrics, step)

        def finish(self) -> None:
            store.runs[self.name]["status"] = "done"

    def init(
        project: str,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        resume: str = "never",
        embed: bool = True,
        auto_log_gpu: bool | None = None,
        auto_log_cpu: bool | None = None,
    ) -> Run:
        assert resume == "allow"
        assert name is not None
        assert not embed
        assert auto_log_cpu is auto_log_gpu is False
        store.open(name, config)
        store.runs[name].update(project=project, name=name)
        return Run(name)

    return {"trackio": _module("trackio", init=init)}


STAND_INS = {"wandb": wandb, "mlflow": mlflow, "trackio": trackio}


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Put the stand-in of a library in its place."""
    store = Store()
    for module, stand_in in STAND_INS[name](store).items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    return store


def _module(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    return module
