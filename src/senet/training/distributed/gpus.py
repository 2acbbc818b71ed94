"""The GPU of each process that torchrun started, and the backends with which processes communicate."""

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["ProcessGPU", "backend_for", "check_gpus", "describe_gpu", "prepare_nccl", "select_gpu"]


class ProcessGPU(NamedTuple):
    """The GPU of a process.

    Attributes:
        machine: host name.
        gpu: UUID of the GPU, equal in all processes that see it.
    """

    machine: str
    gpu: str


def backend_for(device: torch.device) -> str:
    """Return the backends of `torch.distributed` for processes that train on a device.

    On GPUs there are two: NCCL for tensors on a GPU, and gloo for numbers on the CPU, so that they do not wait for a
    GPU. PyTorch has no NCCL on Windows, and gloo sums tensors on a GPU as well.
    """
    if device.type != "cuda":
        return "gloo"
    return "cpu:gloo,cuda:nccl" if torch.distributed.is_nccl_available() else "cpu:gloo,cuda:gloo"


def select_gpu() -> torch.device:
    """Select the GPU of this process by its rank on the machine, LOCAL_RANK, and make it PyTorch's current device.

    Launchers may show each process its own GPU only: the rank is taken modulo the number of GPUs, and `check_gpus`
    finds processes that share one.

    Raises:
        ValueError: LOCAL_RANK is missing in the environment or is no number.
    """
    local = os.environ.get("LOCAL_RANK", "")
    if not local.isdecimal():
        raise ValueError(
            f"LOCAL_RANK={local!r} in the environment does not say which GPU this process has: start processes with "
            f"torchrun, which sets it, or set LOCAL_RANK to the rank on the machine"
        )
    device = torch.device("cuda", int(local) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def describe_gpu(device: torch.device) -> ProcessGPU:
    """Return the GPU of a device."""
    properties: Any = torch.cuda.get_device_properties(device)
    return ProcessGPU(socket.gethostname(), str(getattr(properties, "uuid", device)))


def check_gpus(found: Sequence[ProcessGPU]) -> None:
    """Check that each process has a GPU of its own.

    Args:
        found: the GPU of each process, by rank.

    Raises:
        ValueError: processes of a machine share a GPU, which NCCL refuses; the message names both numbers.
    """
    for machine in dict.fromkeys(process.machine for process in found):
        gpus = [process.gpu for process in found if process.machine == machine]
        if len(set(gpus)) < len(gpus):
            raise ValueError(
                f"{len(gpus)} processes on {machine} have {len(set(gpus))} GPUs: each needs one of its own; start "
                f"torchrun with --nproc-per-node {len(set(gpus))}, show more GPUs with CUDA_VISIBLE_DEVICES, or set "
                f"device=cpu"
            )


def prepare_nccl() -> None:
    """Turn off direct communication of GPUs where the driver wrongly offers it; the user's own settings stay."""
    if _has_faulty_p2p():
        for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
            os.environ.setdefault(name, "1")


def _has_faulty_p2p() -> bool:
    """Return whether this machine has several GPUs, a GeForce RTX 40 among them, and a driver before 550.40.07.

    Such drivers offer peer-to-peer access that the hardware does not have; the condition is the one that Hugging Face's
    accelerate 1.x checks.
    """
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        gpus = [(name, tuple(map(int, version.split(".")))) for name, version in (line.split(", ") for line in lines)]
    except (OSError, subprocess.SubprocessError, ValueError):  # no such program, or another output
        return False
    return len(gpus) > 1 and any("RTX 40" in name and driver < (550, 40, 7) for name, driver in gpus)
