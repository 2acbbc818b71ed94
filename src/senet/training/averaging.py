"""An exponential moving average of a network's weights: timm's, with its warm-up."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential moving average of a network's parameters and buffers.

    Each step moves the average towards the network by a factor: 1 in the first step, decreasing to 1 - `decay`. timm's
    class computes the factor on the host. A CUDA graph would repeat the factor of the step that it recorded, so
    `on_device` keeps it in a tensor, and the update reads nothing else that changes.

    Args:
        model: the network, on its device; its parameters and buffers must be changed in place, not replaced.
        decay: of timm's `ModelEmaV3`, with `use_warmup`.
        on_device: keep the factor in a tensor, and update by operations that a CUDA graph can record.

    Attributes:
        module: a copy of the network, in evaluation mode, with averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float, *, on_device: bool) -> None:
        from timm.utils import ModelEmaV3

        self._timm: Any = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.module: Any = self._timm.module
        self._model, self._step = model, 0
        self._factor: Tensor | None = None
        if on_device:
            like = next(model.parameters())
            dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
            self._factor = torch.zeros((), dtype=dtype, device=like.device)
            pairs = list(zip(self.tensors, model.state_dict().values(), strict=True))
            self._moved = [pair for pair in pairs if pair[0].is_floating_point()]
            self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that an update changes."""
        return list(self.module.state_dict().values())

    def prepare(self, step: int) -> None:
        """Set which step the next update belongs to, without waiting for the device.

        Args:
            step: from 1, over the whole run.
        """
        self._step = step
        if self._factor is not None:
            self._factor.fill_(1.0 - self._timm.get_decay(step))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network."""
        if self._factor is None:
            self._timm.update(self._model, step=self._step)
            return
        averaged, new = map(list, zip(*self._moved, strict=True))
        distance = torch._foreach_sub(new, averaged)
        torch._foreach_mul_(distance, self._factor)
        torch._foreach_add_(averaged, distance)
        for old, count in self._copied:
            old.copy_(count)
