"""Processes that are forked from a server which has imported PyTorch and senet: a start takes no seconds of imports.

The server is a process of its own, without threads, and has run nothing: a fork of pytest's own process would do for a
CPU, but PyTorch refuses backward passes in the fork of a process that has used a GPU.
"""

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch.multiprocessing

PRELOADED = ["torch", "timm", "torchvision", "senet", "senet.training.loop", "senet.gates.recording.recorder"]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a function of a test's module in a process."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    process = multiprocessing.get_context("forkserver").Process(target=_run, args=(target, *arguments))
    process.start()
    return process


def run_ranks(target: Callable[..., None], arguments: Sequence[Any], processes: int = 2) -> None:
    """Run a function with rank and arguments in so many processes; what fails in one fails here."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(_run_rank, (target, *arguments), nprocs=processes, start_method="forkserver")


def _run(target: Callable[..., None], *arguments: Any) -> None:
    gc.freeze()  # what the server has imported: collections of garbage take half a second with it
    target(*arguments)


def _run_rank(rank: int, target: Callable[..., None], *arguments: Any) -> None:
    _run(target, rank, *arguments)
