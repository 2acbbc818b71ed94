"""Batch norm in evaluation: a scale and a shift of each channel, possibly followed by an activation."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from senet.graph.chains import Chains, Unusable
from senet.graph.comparing import same_function, small_shapes
from senet.graph.operations import Call

__all__ = ["Affine", "FoldableNorm", "affine_of", "is_norm", "read_norm"]

_EXACT = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Affine:
    """y -> scale * y + shift, by channel.

    Attributes:
        scale, shift: (C,), in float64.
    """

    scale: Tensor
    shift: Tensor

    def then(self, other: "Affine") -> "Affine":
        """Return this map followed by another one."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)


@dataclass(frozen=True)
class FoldableNorm:
    """A batch norm that can be folded.

    Attributes:
        affine: what it does to each channel.
        activation: the module after it, inside a module that is batch norm and activation; None without one.
    """

    affine: Affine
    activation: nn.Module | None


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm, possibly frozen or with an activation."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return True
    frozen = all(isinstance(module._buffers.get(name), Tensor) for name in _TENSORS)
    return frozen and isinstance(getattr(module, "eps", None), float)


def affine_of(norm: Any) -> Affine:
    """Return what a batch norm with running statistics does to each channel."""
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.detach().double() * scale
    return Affine(scale, shift if norm.bias is None else shift + norm.bias.detach().double())


def read_norm(chains: Chains, calls: list[Call]) -> FoldableNorm:
    """Read a batch norm.

    Args:
        chains: of the network's run.
        calls: the calls of the batch norm.

    Raises:
        Unusable: it cannot be folded.
    """
    norm: Any = calls[0].module
    chains.check(norm)
    if norm.running_mean is None or norm.running_var is None:
        raise Unusable("it has no running statistics, and normalizes by those of the batch")
    found = FoldableNorm(affine_of(norm), _activation(chains, calls[0]))
    taken = calls[0].taken
    if type(norm) not in _EXACT and taken is not None:
        activation = found.activation or nn.Identity()
        plain = nn.Sequential(_Affine(found.affine, len(taken.shape)), activation)
        if not same_function(norm, plain, small_shapes(taken.shape)):
            raise Unusable(f"{type(norm).__name__} does more than normalize and activate")
    return found


def _activation(chains: Chains, call: Call) -> nn.Module | None:
    """Return the module inside a batch norm that returns its output."""
    steps = [one for one in chains.run.calls if one.parent == call.index and one.given != one.taken]
    if not steps:
        return None
    if len(steps) > 1 or steps[0].given != call.given:
        raise Unusable(f"{type(call.module).__name__} does more than normalize and activate")
    return steps[0].module


class _Affine(nn.Module):
    """A batch norm as its scale and shift, for a comparison."""

    def __init__(self, affine: Affine, rank: int) -> None:
        super().__init__()
        self._affine, self._shape = affine, (-1, *[1] * (rank - 2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self._affine.scale.view(self._shape).cpu() + self._affine.shift.view(self._shape).cpu()
