from pathlib import Path

from senet.runs import Epoch, Run, Silent
from senet.tasks import get_task
from tests.training.small import epoch_of

ERRORS = [40.0, 20.0, 30.0, 20.0]


def epochs(errors: list[float]) -> list[Epoch]:
    return [epoch_of(n, loss=2.0, top1_error=error, top5_error=error / 2) for n, error in enumerate(errors, 1)]


def test_the_best_epoch_is_the_first_of_the_least_error() -> None:
    run = Run(Path("run"), epochs(ERRORS))
    assert run.best is run.epochs[1]
    assert Run(Path("run"), []).best is None


def test_a_run_is_interrupted_by_a_signal_alone() -> None:
    assert not Run(Path("run"), []).interrupted
    assert Run(Path("run"), [], signal=15).interrupted


def test_an_epoch_comes_back_from_what_is_written_of_it() -> None:
    """A line of the time before steps could be left out has no such number."""
    (epoch,) = epochs([1.0])
    line, task = epoch.as_row(), get_task("classification")
    assert Epoch.from_row(line, task) == epoch
    assert line.pop("nonfinite_steps") == 0
    assert Epoch.from_row(line, task) == epoch


def test_silence_gives_back_the_steps() -> None:
    steps = range(3)
    assert Silent().progress(steps, 3, "decode") is steps
