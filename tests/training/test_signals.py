import signal
import subprocess
import sys

import pytest

from senet.training.signals import Stopped, StopRequest

TWICE = """
import os, signal
from senet.training.signals import StopRequest
number = {number}
signal.signal(signal.SIGINT, signal.default_int_handler)
with StopRequest() as stop:
    os.kill(os.getpid(), number)
    print(stop.signal, flush=True)
    os.kill(os.getpid(), number)
    print("alive")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE.format(number=int(number))], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{int(number)}\n"
    assert done.returncode == -number  # for a shell, 128 + number


def test_check() -> None:
    stop = StopRequest()
    stop.check()
    stop.signal = signal.SIGTERM
    with pytest.raises(Stopped):
        stop.check()
