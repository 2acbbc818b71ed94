"""The GPU of each process that torchrun started, and how processes with GPUs communicate: NCCL."""

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["ProcessGPU", "backend_for", "check_gpus", "describe_gpu", "prepare_nccl", "select_gpu"]


class ProcessGPU(NamedTuple):
    """The GPU of a process, as all processes see it: its machine's name, and its own."""

    machine: str
    gpu: str


def backend_for(device: torch.device) -> str:
    """Return the backends of `torch.distributed` that processes with a device need.

    With GPUs there are two: NCCL for tensors on a GPU, and gloo for numbers of the CPU, which then do not wait for a
    GPU. PyTorch has no NCCL on Windows; gloo sums tensors on a GPU as well.
    """
    if device.type != "cuda":
        return "gloo"
    return "cpu:gloo,cuda:nccl" if torch.distributed.is_nccl_available() else "cpu:gloo,cuda:gloo"


def select_gpu() -> torch.device:
    """Make the GPU of this process PyTorch's current one: that of its rank on the machine, LOCAL_RANK.

    Where a process sees fewer GPUs than its rank, as with launchers that show each process its own alone, the rank is
    taken modulo their number; `check_gpus` finds processes that share one.

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
    """Return which GPU a device is."""
    properties: Any = torch.cuda.get_device_properties(device)
    return ProcessGPU(socket.gethostname(), str(getattr(properties, "uuid", device)))


def check_gpus(found: Sequence[ProcessGPU]) -> None:
    """Check that each process has a GPU of its own.

    Args:
        found: of all processes, by rank.

    Raises:
        ValueError: processes of a machine share a GPU, which NCCL refuses. The message names their numbers.
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
    """Set what NCCL needs on GPUs that do not communicate directly (GeForce RTX 40 with old drivers)."""
    from accelerate.utils import check_cuda_p2p_ib_support

    if not check_cuda_p2p_ib_support():
        for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
            os.environ.setdefault(name, "1")
