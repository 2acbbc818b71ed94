"""The end of a residual unit, `relu(bn(y) + skip)`, without extra maps."""

import torch
from torch import Tensor, nn

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.batch_norm_forward import (
    gates_of,
    in_training,
    is_recorded,
    normalize_fused,
    normalize_map,
    takes_batch,
    train_whole,
)
from senet.nn.fused import can_fuse, evaluate, is_watched, squeezes_whole, train_plain, unsqueeze_spatial
from senet.utils.modes import is_traced

__all__ = ["sum_relu"]


def sum_relu(bn: nn.Module, y: Tensor, skip: Tensor) -> Tensor | None:
    """Compute `relu(bn(y) + skip)` without extra maps; return None if the caller has to run the parts.

    With SE in training, normalization, recalibration, sum and ReLU are one pass. Without SE, or in evaluation, they run
    in place on the normalized map; one pass would not be faster for batch norm alone. A backend with the whole
    operation also runs evaluation, and batch norm alone if it was chosen by name, see `senet.nn.fused.autograd`.

    Args:
        bn: a `torch.nn.BatchNorm2d` or an `SEBatchNorm`.
        y: (N, C, H, W).
        skip: (N, C, H, W), of y's dtype.
    """
    if isinstance(y, torch.fx.Proxy) or is_recorded():
        return _traced_sum_relu(bn, y, skip) if is_traced() else None
    se = bn.se if type(bn) is SEBatchNorm else None
    if (se is None and type(bn) is not nn.BatchNorm2d) or is_watched(bn):
        return None
    if y.shape != skip.shape or y.dtype != skip.dtype or y.shape[1] != bn.num_features:
        return None
    if torch._C._are_functorch_transforms_active():
        return None
    if se is not None and in_training(bn):
        found = train_whole(bn, se, y, skip)
        if found is not None:
            return found
        return normalize_fused(bn, y, se, skip) if can_fuse(y, se) else None
    if se is not None:
        found = None if takes_batch(bn) else evaluate(bn, se, y, skip)
    elif takes_batch(bn):
        found = train_plain(bn, y, skip)
    else:
        found = None
    if found is not None:
        return found
    x = normalize_map(bn, y)
    if se is None:
        return x.add_(skip).relu_()
    if torch.is_grad_enabled() or not squeezes_whole(se, x):
        return (se(x) + skip).relu_()  # type: ignore[no-any-return]
    return torch.addcmul(skip, x, unsqueeze_spatial(gates_of(se, x), x), out=x).relu_()


def _traced_sum_relu(bn: nn.Module, y: Tensor, skip: Tensor) -> Tensor | None:
    """Run the operations of evaluation for `torch.jit.trace`, whose check runs without gradients and compares outputs.

    Other operations round differently, which adds up in a network of 100 layers with random weights.
    """
    if type(bn) is not SEBatchNorm or takes_batch(bn) or is_watched(bn) or y.dtype != skip.dtype:
        return None
    if not squeezes_whole(bn.se, y):
        return None
    x = normalize_map(bn, y)
    return torch.addcmul(skip, x, unsqueeze_spatial(gates_of(bn.se, x), x)).relu()
