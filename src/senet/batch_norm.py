"""Batch normalisation followed by SE as one module that takes a batch norm's place."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from senet.block import SqueezeExcitation

__all__ = ["BATCH_NORMS", "SEBatchNorm"]

# By spatial rank. Only these very types: a subclass (synchronised, frozen, with an activation) does something more.
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class SEBatchNorm(_NormBase):
    """Batch normalisation, then SE: exactly `se(batch_norm(y))`, in training and in evaluation.

    It has a batch norm's parameters and buffers under a batch norm's names (`weight`, `bias`, `running_mean`,
    `running_var`, `num_batches_tracked`), so that it takes the place of one and every plain key stays; new are the
    keys `se.*`. It is no subclass of `torch.nn.BatchNorm2d`: tools that look for one by type would drop SE in silence,
    and so leave it alone: convert to synchronised batch norms first, and insert SE afterwards.

    Args:
        num_features: C, the channels of the map.
        eps: added to the variance.
        momentum: share of the newest batch in the running statistics; None averages all batches.
        affine: whether there are `weight` and `bias`.
        track_running_stats: whether there are running statistics; without them, evaluation takes those of the batch.
        device: of parameters and buffers, but not of `se`.
        dtype: of the same.
        se: the block that recalibrates the normalised map; its channels are `num_features`.
        dim: spatial axes of the maps, 1 to 3, checked in `forward`; None takes any number.

    Raises:
        ValueError: `se` has other channels than `num_features`, or `dim` is not 1, 2, 3 or None.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        se: SqueezeExcitation,
        dim: int | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if se.channels != num_features:
            raise ValueError(
                f"se has {se.channels} channels where num_features is {num_features}; "
                f"build it with SqueezeExcitation({num_features})"
            )
        if dim is not None and dim not in BATCH_NORMS:
            raise ValueError(f"dim must be 1, 2, 3, or None for any number of spatial axes, got {dim}")
        self.se = se
        self.dim = dim

    @classmethod
    def from_batch_norm(cls, bn: nn.Module, se: SqueezeExcitation) -> SEBatchNorm:
        """One that computes `se(bn(y))`, sharing bn's very parameters and buffers, so that optimisers keep them.

        Args:
            bn: a `torch.nn.BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`, and not of a subclass.
            se: the block, with bn's number of channels.

        Raises:
            TypeError: `bn` is something else, which may do more than batch normalisation.
            ValueError: `se` has another number of channels.
        """
        dim = next((dim for dim, kind in BATCH_NORMS.items() if type(bn) is kind), None)
        if dim is None:
            raise TypeError(
                f"expected a torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d itself, got {type(bn).__name__}; "
                f"for a module of another kind, apply SE to its output"
            )
        module = cls(bn.num_features, se=se, dim=dim, device="meta")  # type: ignore[arg-type]
        _share(bn, module)
        return module

    def to_batch_norm(self) -> nn.Module:
        """The reverse of `from_batch_norm`: without SE, sharing this module's very parameters and buffers.

        Returns:
            A `torch.nn.BatchNorm*d` for `dim` spatial axes, `BatchNorm2d` where that is None.
        """
        bn = BATCH_NORMS[self.dim or 2](self.num_features, device="meta")
        _share(self, bn)
        return bn

    def forward(self, y: Float[Tensor, "N C *spatial"]) -> Float[Tensor, "N C *spatial"]:
        """Normalise and recalibrate.

        Args:
            y: (N, C, *spatial), with one spatial axis or more.

        Returns:
            (N, C, *spatial).

        Raises:
            ValueError: y has another number of channels or of spatial axes; in training, one value for each channel.
        """
        return self.se(_normalise(self, y))  # type: ignore[no-any-return]


def _share(source: nn.Module, target: nn.Module) -> None:
    """Make target compute with source's options, parameters and buffers, and in its mode."""
    for name in ("eps", "momentum", "affine", "track_running_stats"):
        setattr(target, name, getattr(source, name))
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(target, name, getattr(source, name))
    target.train(source.training)


def _normalise(bn: SEBatchNorm, y: Tensor) -> Tensor:
    """`torch.nn.BatchNorm*d.forward` for the statistics of `bn`.

    A leaf for torch.fx that takes the module: a trace then follows `train()` and `eval()`, as it does for torch's own.
    """
    if bn.dim is not None and y.ndim != bn.dim + 2:
        raise ValueError(f"expected a map with {bn.dim} spatial axes (N, C, *spatial), got shape {tuple(y.shape)}")
    mean, var, count = bn.running_mean, bn.running_var, bn.num_batches_tracked
    momentum = 0.0 if bn.momentum is None else bn.momentum
    if bn.training and bn.track_running_stats and count is not None:
        count.add_(1)
        if bn.momentum is None:  # a cumulative average
            momentum = 1.0 / float(count)
    use_batch = bn.training or (mean is None and var is None)
    if bn.training and not bn.track_running_stats:
        mean = var = None
    return nn.functional.batch_norm(y, mean, var, bn.weight, bn.bias, use_batch, momentum, bn.eps)


torch.fx.wrap("_normalise")
