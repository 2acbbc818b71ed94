"""Batch normalisation followed by SE, as one module that replaces a batch norm."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from senet.nn.block import SqueezeExcitation, squeeze
from senet.nn.epsilon import Epsilon, read_epsilon, write_epsilon
from senet.nn.fused import (
    Running,
    can_fuse,
    count_batch,
    evaluate,
    is_plain,
    is_watched,
    normalise,
    train,
    train_plain,
    unsqueeze_spatial,
)
from senet.nn.initialization import expected_squeeze
from senet.nn.symbolic import emit_call
from senet.utils.modes import is_traced

__all__ = ["BATCH_NORMS", "SEBatchNorm", "is_watched", "sum_relu", "takes_batch"]

# By spatial rank. Exact types only: subclasses (synchronised, frozen, with an activation) do something more.
BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class SEBatchNorm(_NormBase):
    """Batch normalisation, then SE: exactly `se(batch_norm(y))`, in training and in evaluation.

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
        se: the block that recalibrates the normalised map; its channels are `num_features`.
        dim: spatial axes of the maps, 1 to 3, checked in `forward`; None takes any number.

    Raises:
        ValueError: the channels of `se` are not `num_features`, or `dim` is not 1, 2, 3 or None.
    """

    qconfig: ClassVar[None] = None  # torch.ao's quantisers leave SE in floating point

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
        self.frozen = False
        self.synchronised = False
        self.process_group: Any = None

    @classmethod
    def from_batch_norm(cls, bn: nn.Module, se: SqueezeExcitation) -> SEBatchNorm:
        """Create a module that computes `se(bn(y))` and shares the parameters and buffers of bn, as optimizers require.

        Args:
            bn: a `torch.nn.BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`, not a subclass.
            se: the block, with bn's number of channels.

        Raises:
            TypeError: `bn` has another class, which may do more than batch normalisation.
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

    def synchronise(self, process_group: Any = None) -> None:
        """Compute training statistics over all processes of a `torch.distributed` group; None is the default group.

        The statistics equal those of one process with all samples. Without distributed processes nothing changes.
        """
        self.synchronised, self.process_group = True, process_group

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

    def forward(self, y: Float[Tensor, "N C *spatial"]) -> Float[Tensor, "N C *spatial"]:
        """Normalise and recalibrate.

        Args:
            y: (N, C, *spatial), with one spatial axis or more.

        Returns:
            (N, C, *spatial).

        Raises:
            ValueError: y has another number of channels or spatial axes; or in training, one value per channel.
        """
        if isinstance(y, torch.fx.Proxy):
            call = emit_call(self, (y,), {})
            return self._parts(y) if call is None else call
        return _forward(self, y)

    @property
    def eps(self) -> Any:
        """Added to the variance. Folding it into a convolution, which would drop SE, raises an error."""
        return Epsilon(read_epsilon(self))

    @eps.setter
    def eps(self, value: Any) -> None:
        write_epsilon(self, value)

    def _parts(self, y: Any) -> Any:
        """Run the parts that a symbolic trace with this module as root records, in its current mode."""
        if self.momentum is None or _group(self) is not None:
            raise ValueError(
                f"torch.fx cannot trace an SEBatchNorm by itself that is "
                f"{'synchronised' if self.momentum is not None else 'averaging all batches (momentum=None)'}; trace a "
                f"network that holds it"
            )
        count = self.num_batches_tracked if _trains(self) and self.track_running_stats else None
        use_running = self.running_mean is not None and (self.track_running_stats or not _trains(self))
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
    """Give target the options, parameters, buffers and mode of source."""
    for name in ("eps", "momentum", "affine", "track_running_stats"):
        setattr(target, name, source.__dict__[name])
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(target, name, getattr(source, name))
    target.train(source.training)


def _forward(bn: SEBatchNorm, y: Tensor) -> Tensor:
    """Compute `SEBatchNorm.forward`, fused if it uses batch statistics."""
    if bn.dim is not None and y.ndim != bn.dim + 2:
        raise ValueError(f"expected a map with {bn.dim} spatial axes (N, C, *spatial), got shape {tuple(y.shape)}")
    # In a trace sizes are tensors; comparing them would record a constant, with a warning.
    se, takes = bn.se, takes_batch(bn)
    if takes and y.ndim > 2 and (is_traced() or y.shape[1] == bn.num_features):
        found = _whole(bn, se, y, None)
        if found is not None:
            return found
        if can_fuse(y, se):
            return _fused(bn, y, se, None)
        if _group(bn) is not None:
            return se(_fused(bn, y, None, None))  # type: ignore[no-any-return]
    elif not takes:
        found = evaluate(bn, se, y, None)
        if found is not None:
            return found
    normalised = _normalise(bn, y)
    if _in_place(se, normalised):
        return normalised.mul_(unsqueeze_spatial(_gates(se, normalised), normalised))
    return se(normalised)  # type: ignore[no-any-return]


def sum_relu(bn: nn.Module, y: Tensor, skip: Tensor) -> Tensor | None:
    """Compute `relu(bn(y) + skip)` without extra maps; return None if the caller has to run the parts.

    With SE in training, normalisation, recalibration, sum and ReLU are one pass. Without SE, or in evaluation, they run
    in place on the normalised map; one pass would not be faster for batch norm alone. A backend with the whole
    operation also runs evaluation, and batch norm alone if it was chosen by name, see `senet.nn.fused.autograd`.

    Args:
        bn: a `torch.nn.BatchNorm2d` or an `SEBatchNorm`.
        y: (N, C, H, W).
        skip: (N, C, H, W), of y's dtype.
    """
    if isinstance(y, torch.fx.Proxy) or _is_recorded():
        return _traced_sum_relu(bn, y, skip) if is_traced() else None
    se = bn.se if type(bn) is SEBatchNorm else None
    if (se is None and type(bn) is not nn.BatchNorm2d) or is_watched(bn):
        return None
    if y.shape != skip.shape or y.dtype != skip.dtype or y.shape[1] != bn.num_features:
        return None
    if torch._C._are_functorch_transforms_active():
        return None
    if se is not None and takes_batch(bn):
        found = _whole(bn, se, y, skip)
        if found is not None:
            return found
        return _fused(bn, y, se, skip) if can_fuse(y, se) else None
    if se is not None:
        found = evaluate(bn, se, y, skip)
    elif takes_batch(bn):
        found = train_plain(bn, y, skip)
    else:
        found = None
    if found is not None:
        return found
    x = _normalise(bn, y)
    if se is None:
        return x.add_(skip).relu_()
    if torch.is_grad_enabled() or not is_plain(se):
        return (se(x) + skip).relu_()  # type: ignore[no-any-return]
    return torch.addcmul(skip, x, unsqueeze_spatial(_gates(se, x), x), out=x).relu_()


def _traced_sum_relu(bn: nn.Module, y: Tensor, skip: Tensor) -> Tensor | None:
    """Run the operations of evaluation for `torch.jit.trace`, whose check runs without gradients and compares outputs.

    Other operations round differently, which adds up in a network of 100 layers with random weights.
    """
    if type(bn) is not SEBatchNorm or takes_batch(bn) or is_watched(bn) or not is_plain(bn.se) or y.dtype != skip.dtype:
        return None
    x = _normalise(bn, y)
    return torch.addcmul(skip, x, unsqueeze_spatial(_gates(bn.se, x), x)).relu()


def _in_place(se: SqueezeExcitation, normalised: Tensor) -> bool:
    """Return whether a normalised map can be scaled in place: it is not shared, and not needed for gradients."""
    return not (torch.is_grad_enabled() or _is_recorded()) and is_plain(se)


def _is_recorded() -> bool:
    """Return whether `torch.jit.trace` or a compiler records operations, which must not depend on the gradient mode."""
    return is_traced() or torch.compiler.is_compiling()


def _gates(se: SqueezeExcitation, u: Tensor) -> Tensor:
    """Return the gates (N, C) in u's dtype, calling the block's modules as `SqueezeExcitation.forward` does."""
    return se.excite(squeeze(u, se.squeeze, se.channels)).to(u.dtype)


def _normalise(bn: Any, y: Tensor) -> Tensor:
    """Compute `torch.nn.BatchNorm*d.forward`, with the statistics that `takes_batch` selects."""
    running = _running(bn)
    mean, var = (None, None) if running is None else running[:2]
    share = 0.0 if running is None else float(count_batch(running))
    return nn.functional.batch_norm(y, mean, var, bn.weight, bn.bias, takes_batch(bn), share, read_epsilon(bn))


def takes_batch(bn: nn.Module) -> bool:
    """Return whether a batch norm uses batch statistics rather than running statistics."""
    return _trains(bn) or (bn.running_mean is None and bn.running_var is None)


def _trains(bn: nn.Module) -> bool:
    """Return whether a batch norm is in training mode, and not frozen."""
    return bn.training and not getattr(bn, "frozen", False)


def _whole(bn: nn.Module, se: SqueezeExcitation, y: Tensor, skip: Tensor | None) -> Tensor | None:
    """Train as one operation, if a backend supports it and the batch norm is not synchronised."""
    return train(bn, se, y, skip) if _group(bn) is None else None


def _fused(bn: Any, y: Tensor, se: SqueezeExcitation | None, skip: Tensor | None) -> Tensor:
    return normalise(y, bn.weight, bn.bias, _running(bn), read_epsilon(bn), se, skip, _group(bn))


def _group(bn: Any) -> Any:
    """Return the process group that shares statistics; None if it is this process only."""
    if not getattr(bn, "synchronised", False) or not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):
        return None
    group = torch.distributed.group.WORLD if bn.process_group is None else bn.process_group
    return group if torch.distributed.get_world_size(group) > 1 else None


def _running(bn: Any) -> Running | None:
    """Return the running statistics that this call reads or, in training, updates."""
    training = _trains(bn)
    if bn.running_mean is None or bn.running_var is None or (training and not bn.track_running_stats):
        return None
    return Running(bn.running_mean, bn.running_var, bn.num_batches_tracked if training else None, bn.momentum)
