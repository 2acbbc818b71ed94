"""The host's time by line, on a machine without a GPU."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "host.py"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton, which PyTorch for CUDA ships")
def test_lines_of_both_passes() -> None:
    """In a process of its own, whose kernels do nothing."""
    command = [sys.executable, str(SCRIPT), "--rounds", "3", "--calls", "20", "--lines", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert done.stdout.startswith(device)
    forward, backward = done.stdout.partition("\nforward: ")[2].split("\nbackward: ")
    for text in (forward, backward):
        total = float(text.split(" us")[0])
        lines = [float(found) for found in re.findall(r"^ *([\d.]+)  \w+\.py:\d+", text, re.MULTILINE)]
        assert total > 0
        assert sum(lines) == pytest.approx(total, rel=0.1)
        assert "autograd.py" in text
        assert "reference.py" not in text
