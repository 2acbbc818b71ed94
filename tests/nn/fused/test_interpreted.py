"""Triton's kernels on the CPU: the tests of `interpreted/`, in a process that interprets kernels."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"
ROOT = FOLDER.parents[2]
TRITON = importlib.util.find_spec("triton") is not None


@pytest.mark.skipif(not TRITON, reason="needs Triton, which PyTorch for CUDA ships")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="its tests run in this process")
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_by_the_interpreter(request: pytest.FixtureRequest, which: str) -> None:
    covered = request.config.pluginmanager.hasplugin("_cov")
    command = [sys.executable, "-m", *(("coverage", "run", "-m") if covered else ()), "pytest"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", which, str(FOLDER)],
        cwd=ROOT,
        env=environment | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_cpu_never_imports_triton() -> None:
    """Which takes longer than a small network's first step."""
    program = """
import sys, torch, senet
for how in ("auto", "aten"):
    senet.set_fused(how)
    module = senet.SEBatchNorm(4, se=senet.SqueezeExcitation(4, 2))
    module(torch.randn(2, 4, 3, 3, requires_grad=True)).sum().backward()
    module.eval()(torch.randn(2, 4, 3, 3))
assert senet.nn.fused.fused_by("cpu") == "aten"
print([name for name in sys.modules if name.partition(".")[0] == "triton"])
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("SENET_FUSED", "TRITON_INTERPRET")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
