"""Deterministic algorithms: repeated and resumed runs on the same GPU are bitwise identical.

PyTorch selects algorithms without atomic additions, and raises an error if an operation has none. Matrix products of
cuBLAS need a fixed workspace as well, which an environment variable selects. cuBLAS and PyTorch read the variable once,
when CUDA starts, so it must be set before.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["CUBLAS_VARIABLE", "CUBLAS_WORKSPACE", "deterministic_algorithms", "explain_refusal", "prepare_cublas"]

CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
# The faster of the two workspaces with which cuBLAS is deterministic: 8 buffers of 4096 KiB.
CUBLAS_WORKSPACE = ":4096:8"
_DETERMINISTIC_WORKSPACES = (CUBLAS_WORKSPACE, ":16:8")


def prepare_cublas(device: torch.device) -> None:
    """Set the workspace with which cuBLAS is deterministic, before CUDA starts; on other devices, do nothing.

    The variable stays set: cuBLAS keeps its workspace until the process ends.

    Args:
        device: on which a run with deterministic=true trains.

    Raises:
        ValueError: CUDA has started in this process without the variable, or the variable selects a workspace that is
            not deterministic.
    """
    if device.type != "cuda":
        return
    found = os.environ.get(CUBLAS_VARIABLE)
    if found in _DETERMINISTIC_WORKSPACES:
        return
    remedy = f"set {CUBLAS_VARIABLE}={CUBLAS_WORKSPACE} in the environment before the process starts"
    if found:
        raise ValueError(
            f"deterministic=true needs {CUBLAS_VARIABLE} to be {' or '.join(_DETERMINISTIC_WORKSPACES)}, "
            f"got {found!r}: {remedy}, or unset it"
        )
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise ValueError(
            f"deterministic=true needs {CUBLAS_VARIABLE}={CUBLAS_WORKSPACE} before CUDA starts, and CUDA has started "
            f"in this process without it: {remedy}"
        )
    os.environ[CUBLAS_VARIABLE] = CUBLAS_WORKSPACE


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Let PyTorch use only deterministic algorithms within a block; restore all switches after it.

    `torch.use_deterministic_algorithms` also keeps Inductor from choosing kernels by measurements. Memory is not
    filled before use, which costs a pass over every tensor and matters only to programs that read it unwritten.

    Args:
        enabled: False changes no switch.
    """
    if not enabled:
        yield
        return
    import torch._inductor.config as inductor

    cudnn: Any = torch.backends.cudnn
    switches = (
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    )
    before = [getattr(owner, name) for owner, name, _ in switches]
    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    compiler = getattr(inductor, "deterministic", None)  # PyTorch 2.9 may not have it
    try:
        torch.use_deterministic_algorithms(True)
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        if compiler is not None:
            inductor.deterministic = compiler
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def explain_refusal(error: Exception) -> str:
    """Explain PyTorch's error about an operation without a deterministic implementation; "" for any other error.

    PyTorch raises a plain RuntimeError, and only its message names the operation.
    """
    text = str(error)
    if CUBLAS_VARIABLE in text:
        return (
            f"deterministic=true needs {CUBLAS_VARIABLE}={CUBLAS_WORKSPACE} before CUDA starts: set it in the "
            f"environment before the process starts"
        )
    refused = re.search(r"^(.+?) does not have a deterministic implementation", text)
    if refused is None:
        return ""
    return (
        f"deterministic=true, and PyTorch has no deterministic implementation of {refused[1]}, which the network uses: "
        f"train another network, or set deterministic=false: runs on a GPU are then equal up to rounding"
    )
