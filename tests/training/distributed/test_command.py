"""A command in each of several processes: which process reports an error, and what the others do."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from senet.cli.common.boundary import explain
from senet.recipes import Recipe
from senet.training.distributed import command
from senet.training.distributed.command import errors_reported_once, read_together
from senet.training.distributed.errors import mark_shared
from senet.utils.errors import DataError, FolderInUseError, ReportedByPeerError, TrainingError
from tests.helpers import noting
from tests.training.small import small_recipe


@dataclass
class Arguments:
    recipe: Recipe


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """The second of two processes; the devices with which they are opened are kept."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    opened: list[torch.device] = []

    class Two:
        @contextmanager
        def fail_together(self) -> Iterator[None]:
            try:
                yield
            except (ValueError, TypeError, OSError) as error:
                raise mark_shared(error, 1) from error

    monkeypatch.setattr(command, "open_processes", noting(opened, lambda device, timeout: device, lambda *_: Two()))
    before = signal.getsignal(signal.SIGTERM)
    yield opened
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    closed: list[bool] = []
    monkeypatch.setattr(command, "close_processes", lambda: closed.append(True))
    return closed


def failing(error: Exception) -> Callable[[], Arguments]:
    def read() -> Arguments:
        raise error

    return read


def test_one_process_reads_its_arguments_and_raises_its_errors(closed: list[bool]) -> None:
    with errors_reported_once():
        assert read_together(lambda: Arguments(small_recipe()), 7).recipe == small_recipe()
    assert closed == [True]
    error = DataError("no data")
    with pytest.raises(DataError, match="no data") as caught, errors_reported_once():
        read_together(failing(error), 7)
    assert caught.value is error
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    assert closed == [True]


def test_processes_are_opened_on_the_device_of_the_recipe(
    second: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    read_together(lambda: Arguments(small_recipe(device="mps")), 7)
    assert second == [torch.device("mps")]


@pytest.mark.parametrize("cuda", [True, False])
def test_a_process_that_cannot_read_its_arguments_meets_the_others_to_say_so(
    second: list[torch.device], monkeypatch: pytest.MonkeyPatch, cuda: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(ValueError, match="unknown key"):
        read_together(failing(ValueError("unknown key")), 7)
    assert second == [torch.device("cuda" if cuda else "cpu")]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("lr"), 2),
        (OSError("no such file"), 2),
        (DataError("no data"), 2),
        (TrainingError("nan"), 1),
        (FolderInUseError("run"), 75),
    ],
)
def test_an_error_that_another_process_reports_has_its_status_and_no_message(
    second: list[torch.device], closed: list[bool], error: Exception, status: int
) -> None:
    with pytest.raises(ReportedByPeerError) as caught, errors_reported_once():
        raise mark_shared(error, 1)
    assert caught.value.error is error
    assert explain(caught.value) == (status, "")
    assert closed == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_an_error_of_this_process_alone_is_reported_by_it(second: list[torch.device]) -> None:
    with pytest.raises(TrainingError) as caught, errors_reported_once():
        raise TrainingError("process 1 of 2: no image")
    assert explain(caught.value) == (1, "process 1 of 2: no image")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # so that torchrun does not end it before it prints
