"""Forward pass of batch norm and SE: which statistics it takes, and whether it is fused, in place, or in parts."""

from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.block import SqueezeExcitation, squeeze
from senet.nn.epsilon import read_epsilon
from senet.nn.fused import (
    Running,
    can_fuse,
    count_batch,
    evaluate,
    normalize,
    squeezes_whole,
    train,
    unsqueeze_spatial,
)
from senet.utils.modes import is_traced

__all__ = [
    "gates_of",
    "in_training",
    "is_recorded",
    "normalize_fused",
    "normalize_map",
    "normalize_recalibrate",
    "running_statistics",
    "sync_group",
    "takes_batch",
    "train_whole",
]


def normalize_recalibrate(bn: Any, y: Tensor) -> Tensor:
    """Compute `SEBatchNorm.forward`, fused in training."""
    if bn.dim is not None and y.ndim != bn.dim + 2:
        raise ValueError(f"expected a map with {bn.dim} spatial axes (N, C, *spatial), got shape {tuple(y.shape)}")
    # In a trace sizes are tensors; comparing them would record a constant, with a warning.
    se = bn.se
    # Evaluation by batch statistics, of a batch norm without others, has the bits of PyTorch's modules.
    if in_training(bn) and y.ndim > 2 and (is_traced() or y.shape[1] == bn.num_features):
        found = train_whole(bn, se, y, None)
        if found is not None:
            return found
        if can_fuse(y, se):
            return normalize_fused(bn, y, se, None)
        if sync_group(bn) is not None:
            return se(normalize_fused(bn, y, None, None))  # type: ignore[no-any-return]
    elif not takes_batch(bn):
        found = evaluate(bn, se, y, None)
        if found is not None:
            return found
    normalized = normalize_map(bn, y)
    if _in_place(se, normalized):
        return normalized.mul_(unsqueeze_spatial(gates_of(se, normalized), normalized))
    return se(normalized)  # type: ignore[no-any-return]


def _in_place(se: SqueezeExcitation, normalized: Tensor) -> bool:
    """Return whether a normalized map can be scaled in place, by one gate: gradients and other readers need no copy."""
    return not (torch.is_grad_enabled() or is_recorded()) and squeezes_whole(se, normalized)


def is_recorded() -> bool:
    """Return whether `torch.jit.trace` or a compiler records operations, which must not depend on the gradient mode."""
    return is_traced() or torch.compiler.is_compiling()


def gates_of(se: SqueezeExcitation, u: Tensor) -> Tensor:
    """Return the gates (N, C) in u's dtype, calling the block's modules as `SqueezeExcitation.forward` does."""
    return se.excite(squeeze(u, se.squeeze, se.channels)).to(u.dtype)


def normalize_map(bn: Any, y: Tensor) -> Tensor:
    """Compute `torch.nn.BatchNorm*d.forward`, with the statistics that `takes_batch` selects."""
    running = running_statistics(bn)
    mean, var = (None, None) if running is None else running[:2]
    share = 0.0 if running is None else float(count_batch(running))
    return nn.functional.batch_norm(y, mean, var, bn.weight, bn.bias, takes_batch(bn), share, read_epsilon(bn))


def takes_batch(bn: nn.Module) -> bool:
    """Return whether a batch norm uses batch statistics rather than running statistics."""
    return in_training(bn) or (bn.running_mean is None and bn.running_var is None)


def in_training(bn: nn.Module) -> bool:
    """Return whether a batch norm is in training mode, and not frozen."""
    return bn.training and not getattr(bn, "frozen", False)


def train_whole(bn: nn.Module, se: SqueezeExcitation, y: Tensor, skip: Tensor | None) -> Tensor | None:
    """Train as one operation, if a backend supports it and the batch norm is not synchronized."""
    return train(bn, se, y, skip) if sync_group(bn) is None else None


def normalize_fused(bn: Any, y: Tensor, se: SqueezeExcitation | None, skip: Tensor | None) -> Tensor:
    """Normalize by batch statistics, and optionally recalibrate and add a skip, in fused passes."""
    return normalize(y, bn.weight, bn.bias, running_statistics(bn), read_epsilon(bn), se, skip, sync_group(bn))


def sync_group(bn: Any) -> Any:
    """Return the process group that shares statistics; None if it is this process only."""
    if not getattr(bn, "synchronized", False) or not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):
        return None
    group = torch.distributed.group.WORLD if bn.process_group is None else bn.process_group
    return group if torch.distributed.get_world_size(group) > 1 else None


def running_statistics(bn: Any) -> Running | None:
    """Return the running statistics that this call reads or, in training, updates."""
    training = in_training(bn)
    if bn.running_mean is None or bn.running_var is None or (training and not bn.track_running_stats):
        return None
    return Running(bn.running_mean, bn.running_var, bn.num_batches_tracked if training else None, bn.momentum)
