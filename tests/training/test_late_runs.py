"""Runs that read the results of their steps late, as on a GPU: the same files as with a look at each step."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from senet.runs import Silent
from senet.training import Trainer
from senet.training import trainer as trainer_module
from senet.training.checkpoint import read_checkpoint
from senet.training.step_inputs import StepInputs
from senet.utils.errors import TrainingError
from tests.training import runs
from tests.training.runs import assert_same, result

SKIP = "on_nonfinite=skip"
BAD = ((1, 2), (2, 1))  # epochs and steps, from 1


def run(output: Path, *settings: str, **options: Any) -> Any:
    return runs.run(output, *settings, network="resnet20", **options)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Read every so many steps, and after no time."""
    monkeypatch.setattr(trainer_module, "_SECONDS", 1e9)
    return lambda every: monkeypatch.setattr(trainer_module, "read_interval", lambda device: every)


@pytest.fixture(autouse=True)
def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are nan at some steps."""
    prepare, train_step = StepInputs.prepare, Trainer.train_step
    spoils: list[bool] = []

    def stepping(self: Trainer, *inputs: Tensor) -> None:
        spoils.append((len(self.epochs) + 1, self.state.step + 1) in BAD)
        train_step(self, *inputs)

    def spoiling(self: StepInputs, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        images, targets, classes = prepare(self, *args)
        return images * float("nan") if spoils[-1] else images, targets, classes

    monkeypatch.setattr(Trainer, "train_step", stepping)
    monkeypatch.setattr(StepInputs, "prepare", spoiling)


@pytest.mark.parametrize(
    "settings", [("ema=0.9",), ("optimizer=adamw", "lr=0.001", "nesterov=false", "accumulate=2")], ids=str
)
def test_a_run_that_leaves_steps_out_is_the_same_however_late_it_is_read(
    settings: tuple[str, ...], tmp_path: Path, late: Callable[[int], None]
) -> None:
    run(tmp_path / "each", SKIP, *settings)
    late(1000)
    run(tmp_path / "late", SKIP, *settings)
    assert_same(tmp_path / "late", tmp_path / "each")
    assert [epoch["nonfinite_steps"] for epoch in result(tmp_path / "late")[1]] == [1, 1, 0]


def test_a_run_that_stops_late_resumes_as_if_it_had_left_the_step_out(
    tmp_path: Path, late: Callable[[int], None]
) -> None:
    """Its checkpoint has nothing of the step or after it, and the message is that of a run that stops at once."""
    errors = []
    for every in (1, 1000):
        late(every)
        with pytest.raises(TrainingError, match="the loss is nan at step 2 of epoch 1, with learning rate") as error:
            run(tmp_path / f"stop {every}", "checkpoint_every=1")
        errors.append(re.sub(r"stop \d+", "", str(error.value)))
    assert errors[0] == errors[1]
    assert "checkpoint.pt holds 0 epochs and 1 step, and --resume continues from there" in errors[0]
    states = [read_checkpoint(tmp_path / f"stop {every}" / "checkpoint.pt")["state"] for every in (1, 1000)]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key
    late(1000)
    run(tmp_path / "whole", SKIP)
    run(tmp_path / "stop 1000", SKIP, resume=True)
    assert_same(tmp_path / "stop 1000", tmp_path / "whole")


def test_nothing_is_saved_after_an_unread_step_that_is_not_finite(tmp_path: Path, late: Callable[[int], None]) -> None:
    late(1000)
    with pytest.raises(TrainingError, match=r"at step 2 of epoch 1, .*; no epoch was completed, and nothing is saved"):
        run(tmp_path / "run")
    assert not list(tmp_path.glob("run/*.safetensors")) + list(tmp_path.glob("run/checkpoint.pt"))


class SignalAt(Silent):
    """SIGTERM at a step of an epoch, both from 1."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def step(self, epoch: int, step: int, *rest: Any) -> None:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_saves_what_was_read(tmp_path: Path, late: Callable[[int], None]) -> None:
    late(1000)
    run(tmp_path / "whole", SKIP)
    stopped = run(tmp_path / "run", SKIP, reporter=SignalAt(2, 2))
    assert (len(stopped.epochs), stopped.step) == (1, 2)
    state = read_checkpoint(tmp_path / "run" / "checkpoint.pt")["state"]
    assert (state["step"], state["images"], state["left_out"]) == (2, 8, 1)
    run(tmp_path / "run", SKIP, resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_signal_after_an_unread_step_that_is_not_finite_saves_nothing(
    tmp_path: Path, late: Callable[[int], None]
) -> None:
    late(1000)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 2 of epoch 1, .*nothing is saved"):
        run(tmp_path / "run", reporter=SignalAt(1, 2))
    assert not list(tmp_path.glob("run/checkpoint.pt"))
