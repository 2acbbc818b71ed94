"""Batch normalization followed by SE, as one module that replaces a batch norm."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from senet.nn.batch_norm_forward import in_training, normalize_recalibrate, sync_group, takes_batch
from senet.nn.block import SqueezeExcitation
from senet.nn.epsilon import Epsilon, read_epsilon, write_epsilon
from senet.nn.held_statistics import hold_statistics, holds_statistics
from senet.nn.initialization import expected_squeeze
from senet.nn.symbolic import emit_call

__all__ = ["BATCH_NORMS", "SEBatchNorm"]

# By spatial rank. Exact types only: subclasses (synchronized, frozen, with an activation) do something more.
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class SEBatchNorm(_NormBase):
    """Batch normalization, then SE: exactly `se(batch_norm(y))`, in training and in evaluation.

    It has the parameters and buffers of a batch norm (`weight`, `bias`, `running_mean`, `running_var`,
    `num_batches_tracked`), so plain keys stay valid; the keys `se.*` are new. It is not a subclass of
    `torch.nn.BatchNorm2d`: tools that search for batch norms by type would silently drop SE.
    `senet.convert_sync_batchnorm`, `senet.freeze_batch_norm` and `senet.update_bn` support it.

    Training takes as many passes over the map as a batch norm, and saves no more for backward, see `senet.nn.fused`.

    Maps keep their dtype. Triton's kernels compute everything else in float32, also under autocast: gradients of SE's
    weights are closer to float64 than those of PyTorch's modules, whose layers autocast runs in half precision.

    Args:
        num_features: C, the channels of the map.
        eps: added to the variance.
        momentum: share of the newest batch in the running statistics; None averages all batches.
        affine: whether to have `weight` and `bias`.
        track_running_stats: whether to have running statistics; without them, evaluation uses batch statistics.
        device: device of parameters and buffers, except `se`.
        dtype: dtype of parameters and buffers, except `se`.
        se: the block that recalibrates the normalized map; its channels are `num_features`.
        dim: spatial axes of the maps, 1 to 3, checked in `forward`; None takes any number.

    Raises:
        ValueError: the channels of `se` are not `num_features`, `dim` is not 1, 2, 3 or None, or the window of `se`
            has another number of axes.

    Examples:
        >>> norm = senet.SEBatchNorm.from_batch_norm(nn.BatchNorm2d(64), senet.SqueezeExcitation(64))
        >>> norm(torch.randn(8, 64, 14, 14)).shape
        torch.Size([8, 64, 14, 14])
        >>> type(norm.to_batch_norm()).__name__
        'BatchNorm2d'
    """

    qconfig: ClassVar[None] = None  # torch.ao's quantizers leave SE in floating point

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
        if dim is not None and isinstance(se.window, tuple) and len(se.window) != dim:
            raise ValueError(f"se has the window {se.window} for maps with {dim} spatial axes; give it {dim} lengths")
        if dim is not None and dim not in BATCH_NORMS:
            raise ValueError(f"dim must be 1, 2, 3, or None for any number of spatial axes, got {dim}")
        self.se = se
        self.dim = dim
        self.frozen = False
        self.synchronized = False
        self.process_group: Any = None

    @classmethod
    def from_batch_norm(cls, bn: nn.Module, se: SqueezeExcitation) -> SEBatchNorm:
        """Create a module that computes `se(bn(y))` and shares the parameters and buffers of bn, as optimizers require.

        Args:
            bn: a `torch.nn.BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`, not a subclass.
            se: the block, with bn's number of channels.

        Raises:
            TypeError: `bn` has another class, which may do more than batch normalization.
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
        """Return a batch norm without SE that shares this module's parameters and buffers.

        Returns:
            A `torch.nn.BatchNorm*d` for `dim` spatial axes; `BatchNorm2d` if that is None.
        """
        bn = BATCH_NORMS[self.dim or 2](self.num_features, device="meta")
        _share(self, bn)
        return bn

    def synchronize(self, process_group: Any = None) -> None:
        """Compute training statistics over all processes of a `torch.distributed` group; None is the default group.

        The statistics equal those of one process with all samples. Without distributed processes nothing changes.
        """
        self.synchronized, self.process_group = True, process_group

    def freeze(self) -> None:
        """Freeze statistics, weight and bias, also in training; the excitation still learns."""
        self.frozen = True
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # A plain checkpoint's bias changes the mean of the squeeze.
        if f"{prefix}bias" in state_dict and not any(key.startswith(f"{prefix}se.") for key in state_dict):
            self.se.expect(expected_squeeze(self, self.se.squeeze))

    def forward(self, input: Float[Tensor, "N C *spatial"]) -> Float[Tensor, "N C *spatial"]:
        """Normalize and recalibrate.

        Args:
            input: (N, C, *spatial), with one spatial axis or more.

        Returns:
            (N, C, *spatial).

        Raises:
            ValueError: the input has another number of channels or spatial axes; or in training, one value per channel.
        """
        if isinstance(input, torch.fx.Proxy):
            call = emit_call(self, (input,), {})
            return self._parts(input) if call is None else call
        return normalize_recalibrate(self, input)

    @property
    def eps(self) -> Any:
        """Added to the variance. Folding it into a convolution, which would drop SE, raises an error."""
        return Epsilon(read_epsilon(self))

    @eps.setter
    def eps(self, value: Any) -> None:
        write_epsilon(self, value)

    def _parts(self, y: Any) -> Any:
        """Run the parts that a symbolic trace with this module as root records, in its current mode."""
        if self.momentum is None or sync_group(self) is not None:
            raise ValueError(
                f"torch.fx cannot trace an SEBatchNorm by itself that is "
                f"{'synchronized' if self.momentum is not None else 'averaging all batches (momentum=None)'}; trace a "
                f"network that holds it"
            )
        count = self.num_batches_tracked if in_training(self) and self.track_running_stats else None
        use_running = self.running_mean is not None and (self.track_running_stats or not in_training(self))
        mean, var = (self.running_mean, self.running_var) if use_running else (None, None)
        options = (takes_batch(self), self.momentum, read_epsilon(self))
        return self.se(_traced_norm(y, mean, var, self.weight, self.bias, count, *options))


def _traced_norm(
    y: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    count: Tensor | None,
    *options: Any,
) -> Tensor:
    """Batch norm as one node of a symbolic trace, which counts batches when it runs."""
    if count is not None:
        count.add_(1)
    return nn.functional.batch_norm(y, mean, var, weight, bias, *options)


torch.fx.wrap("_traced_norm")


def _share(source: nn.Module, target: nn.Module) -> None:
    """Give target the options, parameters, buffers, mode, and attributes of the user's that source has."""
    for name in ("eps", "momentum", "affine", "track_running_stats"):
        setattr(target, name, source.__dict__[name])
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(target, name, getattr(source, name))
    target.__dict__.update({name: value for name, value in source.__dict__.items() if name not in _OWN})
    target.train(source.training)
    if holds_statistics(source):
        hold_statistics(target)


# Attributes of every batch norm, with SE and without, and `train` of `hold_statistics`.
_OWN = frozenset(
    {
        *vars(nn.Module()),
        *("num_features", "eps", "_eps", "momentum", "affine", "track_running_stats", "train"),
        *("dim", "frozen", "synchronized", "process_group"),
    }
)
