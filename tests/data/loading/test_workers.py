"""Worker processes end with the process that started them, although they ignore SIGTERM."""

import os
import subprocess
import sys

import pytest

from tests.slow import fast_if

_SCRIPT = """
import sys
import torch
from torch.utils.data import DataLoader, TensorDataset
from senet.data.loading.workers import ignore_signals, iterate

loader = DataLoader(TensorDataset(torch.zeros(1000, 2)), num_workers=2, worker_init_fn=ignore_signals)
batches = iterate(loader)
next(batches)
{how}
print("end of the script", flush=True)
"""


@pytest.mark.parametrize("how", ["", "1 / 0", "sys.exit(3)"], ids=["open", "error", "exit"])
@fast_if(lambda how: how == "1 / 0")
def test_a_process_exits_with_an_iterator_still_open(how: str) -> None:
    """Multiprocessing sent SIGTERM, which workers ignore, and waited for them without end."""
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT.format(how=how)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    expected = {"": (0, "end of the script\n", ""), "sys.exit(3)": (3, "", "")}
    if how == "1 / 0":
        assert (process.returncode, out) == (1, "")
        assert err.endswith("ZeroDivisionError: division by zero\n")
    else:
        assert (process.returncode, out, err) == expected[how]
