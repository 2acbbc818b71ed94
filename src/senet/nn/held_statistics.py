"""Keep the running statistics of a norm fixed while the network around it trains."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["hold_statistics", "holds_statistics", "norms_with_statistics", "release_statistics"]


class _StaysInEvaluation:
    """Replaces `train` of a norm: whatever mode is asked for, the norm evaluates. Its SE follows the mode."""

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, mode: bool = True) -> nn.Module:
        for child in self.norm.children():
            child.train(mode)
        self.norm.training = False
        return self.norm


def norms_with_statistics(model: nn.Module) -> list[nn.Module]:
    """Return the modules that have running statistics: batch norms, with and without SE, and some instance norms."""
    return [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]


def hold_statistics(norm: nn.Module) -> None:
    """Keep a norm in evaluation, also when `train()` is called on it or on a network that holds it."""
    norm.__dict__["train"] = _StaysInEvaluation(norm)
    norm.training = False


def release_statistics(norm: nn.Module) -> None:
    """Undo `hold_statistics`; the next call of `train()` or `eval()` sets the mode."""
    if holds_statistics(norm):
        del norm.__dict__["train"]


def holds_statistics(norm: nn.Module) -> bool:
    """Return whether `hold_statistics` was called on a norm."""
    return isinstance(norm.__dict__.get("train"), _StaysInEvaluation)
