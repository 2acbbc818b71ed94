import os
import signal
from pathlib import Path

import pytest

from senet.training.signals import Stopped, StopRequest
from tests import forked


def signal_twice(number: signal.Signals, output: Path) -> None:
    """Receive a signal twice, as one process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        output.write_text(f"{stop.signal}\n")
        os.kill(os.getpid(), number)
        output.write_text("alive\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, number: signal.Signals) -> None:
    process = forked.start(signal_twice, number, tmp_path / "output")
    process.join()
    assert (tmp_path / "output").read_text() == f"{int(number)}\n"
    assert process.exitcode == -number  # for a shell, 128 + number


def test_check() -> None:
    stop = StopRequest()
    stop.check()
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped):
        stop.check()
