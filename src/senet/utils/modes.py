"""Evaluation mode, TF32 and seeds for the length of a block; whether a trace is being recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["evaluating", "is_traced", "seeded", "tf32_products"]


def is_traced() -> bool:
    """Whether `torch.jit.trace` records the operations; Dynamo takes the answer for a constant, and guards nothing."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; each module's own mode is as before when this ends, that of frozen batch norms too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Set whether CUDA may use TF32 in float32 products and convolutions; PyTorch's default allows it in the latter."""
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
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators of the CPU and a device; after the block those of the CPU and of CUDA are as before it.

    CUDA is not started for another device: `torch.random.fork_rng` starts it wherever there is a GPU, and warns where
    there are several.
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
