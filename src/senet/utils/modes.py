"""Context managers for evaluation and training mode, TF32, seeds and generators; detection of TorchScript tracing."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["evaluating", "is_traced", "preserved_generators", "seeded", "tf32_products", "training_mode"]


def is_traced() -> bool:
    """Return whether `torch.jit.trace` is recording. Dynamo treats the result as a constant and adds no guard."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode within a block, then restore each module's mode, including frozen batch norms."""
    with _mode(model, False):
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Set training mode within a block, then restore each module's mode. Norms that hold their statistics evaluate."""
    with _mode(model, True):
        yield


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before


@contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 matmuls and convolutions on CUDA. PyTorch's default allows it in convolutions."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = enabled
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Restore the states of the CPU's global generators after a block: of Python, NumPy and PyTorch."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for the CPU and a device within a block, then restore those of the CPU and CUDA.

    CUDA is initialized only if the device is a GPU: `torch.random.fork_rng` would initialize it on any machine with a
    GPU, and warn if there are several.
    """
    if device.type == "cuda":
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield
        return
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        if device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
