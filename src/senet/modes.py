"""Evaluation mode for a while; whether a trace is being recorded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "is_traced"]


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
