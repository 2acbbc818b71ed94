"""What each of two processes does for `test_distributed.py`: all scenarios in one launch.

`python -m torch.distributed.run ... -m tests.training.scenarios FOLDER NAME...` saves the results of each process in
`FOLDER/NAME-RANK.pt`, and runs in `FOLDER`.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import senet
from senet.data import Preprocessing
from senet.runs import publishing
from senet.tasks.classification import task as classification
from senet.training import Trainer, trainer
from senet.training.checkpoint import read_checkpoint
from senet.training.distributed.errors import is_reported_by_peer
from senet.training.distributed.processes import Processes, close_processes, open_processes
from senet.utils.errors import SenetError
from tests.helpers import shallow_resnet20, write_no_curves
from tests.training.exactness import CASES, FAST, train
from tests.training.runs import Notes, digits, recipe

SYNC = ("sync_bn=true", "network.drop_path_rate=0.0", "lr=0.001")


def exactness(processes: Processes, folder: Path) -> Any:
    return {name: train(processes, **CASES[name]) for name in FAST}


def more_exactness(processes: Processes, folder: Path) -> Any:
    return {name: train(processes, **options) for name, options in CASES.items() if name not in FAST}


def whole(processes: Processes, folder: Path) -> Any:
    """Never stopped: with batch norms of their own, averages, mixing and parts; and for `resumed`."""
    settings = ("ema=0.9", "mixup=0.4", "accumulate=2", "checkpoint_every=2")
    notes, saved, evaluate = Notes(), [], classification.evaluate_loader

    def evaluated(*args: Any, **options: Any) -> Any:
        if processes.is_first:
            saved.append(read_checkpoint(folder / "whole" / "checkpoint.pt")["state"]["step"])
        return evaluate(*args, **options)

    with patch.object(classification, "evaluate_loader", evaluated):
        run = go(folder / "whole", *settings, reporter=notes)
    return {"epochs": len(run.epochs), "notes": notes.steps, "saved": saved}


def stopped(processes: Processes, folder: Path) -> Any:
    """A signal to the second process alone ends all at the same step; and then they resume."""
    settings = ("ema=0.9", "mixup=0.4", "accumulate=2", "checkpoint_every=2")
    with at_step(processes, 1, 2, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        first = go(folder / "stopped", *settings)
    with at_step(processes, 0, 1, 2, lambda: os.kill(os.getpid(), signal.SIGINT)):
        other = go(folder / "sync stopped", *SYNC)
    second = go(folder / "stopped", *settings, resume=True)
    return {
        "first": (first.signal, len(first.epochs), first.step),
        "other": (other.signal, len(other.epochs), other.step),
        "second": (second.signal, len(second.epochs), second.step),
    }


def spoilt(processes: Processes, folder: Path) -> Any:
    """A loss that is not finite in the second process alone."""
    normalize, calls = Preprocessing.normalize, [0]

    def spoil(self: Preprocessing, pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls[0] += len(pixels) > 2  # those that the network is tried with are not counted
        return normalize(self, pixels, *rest) * (float("nan") if calls[0] == 2 and processes.rank == 1 else 1.0)

    found: dict[str, Any] = {}
    with patch.object(Preprocessing, "normalize", spoil):
        run = go(folder / "skip", "on_nonfinite=skip")
        found["left out"] = [epoch.nonfinite_steps for epoch in run.epochs]
        calls[0] = 0
        found["stop"] = error_of(lambda: go(folder / "stop"))
        # As on a GPU: steps are read together, and cancelled on the device until then.
        with patch.object(trainer, "read_interval", lambda device: 100):
            calls[0] = 0
            run = go(folder / "skip, read late", "on_nonfinite=skip")
            found["left out, read late"] = [epoch.nonfinite_steps for epoch in run.epochs]
            calls[0] = 0
            found["stop, read late"] = error_of(lambda: go(folder / "stop, read late", "checkpoint_every=1"))
    return found


def refused(processes: Processes, folder: Path) -> Any:
    """What fails before the start, in all processes or in the second one alone."""
    data: Any = "/nowhere" if processes.rank else digits()
    (folder / "used").mkdir(exist_ok=True)
    (folder / "used" / "else").touch()
    return {
        "data": error_of(lambda: senet.train("se_resnet20", data, recipe(), folder / "refused")),
        "other data": error_of(
            lambda: senet.train("resnet20", digits(3, 8 + processes.rank), recipe(), folder / "refused")
        ),
        "batch": error_of(lambda: go(folder / "refused", "batch=1")),
        "used": error_of(lambda: go(folder / "used")),
    }


def resumed(processes: Processes, folder: Path) -> Any:
    """Two processes resume the run that one process has resumed."""
    notes = Notes()
    go(folder / "sync stopped", *SYNC, resume=True, reporter=notes)
    return notes.notes


def synchronized(processes: Processes, folder: Path) -> Any:
    """Never stopped, with batch norms of all processes: what `resumed` comes near to."""
    go(folder / "sync", *SYNC)


def go(output: Path, *settings: str, **options: Any) -> senet.runs.Run:
    return senet.train("se_resnet20", digits(), recipe(*settings), output, **options)


def error_of(call: Callable[[], object]) -> tuple[str, str, bool]:
    """Return the class and message of the error that a call raises, and whether another process reports it."""
    try:
        call()
    except (SenetError, ValueError) as error:
        return type(error).__name__, str(error), is_reported_by_peer(error)
    return "", "", False


def at_step(processes: Processes, rank: int, epoch: int, step: int, act: Callable[[], None]) -> ExitStack:
    """While it lasts, one process does something before a step of an epoch, both from 1."""
    stack, train_step = ExitStack(), Trainer.train_step

    def acting(self: Trainer, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        if (processes.rank, len(self.epochs) + 1, self.state.step + 1) == (rank, epoch, step):
            act()
        train_step(self, pixels, labels)

    stack.enter_context(patch.object(Trainer, "train_step", acting))
    return stack


def play(folder: Path, *names: str) -> None:
    """Run scenarios as one of the processes, and save the result of each."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell had ignored
    torch.set_num_threads(1)
    publishing.draw_curves = write_no_curves
    everybody = open_processes(torch.device("cpu"), 60)
    for name in names:
        with shallow_resnet20():
            result = globals()[name](everybody, folder)
        torch.save(result, folder / f"{name}-{everybody.rank}.pt")
    close_processes()


def rank_of_two(rank: int, port: int, folder: Path, *names: str) -> None:
    """Run scenarios as one of two processes that are forked, with the environment that torchrun gives its own."""
    os.environ |= {key: str(rank) for key in ("RANK", "LOCAL_RANK")}
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    play(folder, *names)


if __name__ == "__main__":
    play(Path(sys.argv[1]), *sys.argv[2:])
