"""What a step of training does on the device.

In short::

    for each part of the batch: loss = cross_entropy(model(images), targets); backward
    optimizer.step(); average the weights      # but not where loss or gradient is not finite

Nothing here waits for the device unless a result is asked for, see `Trainer.read`.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.nn.block import SqueezeExcitation
from senet.recipes.recipe import Recipe
from senet.training.averaging import WeightAverage
from senet.training.distributed.processes import Processes
from senet.training.masking import MaskedOptimizer, Saved, cancel_where
from senet.training.optimizers import select_parameters
from senet.training.step_results import StepResult
from senet.training.stopwatch import Stopwatch

__all__ = ["Batch", "DeviceStep"]


@dataclass(frozen=True)
class Batch:
    """What a step's device work depends on.

    Attributes:
        images: (N, C, H, W), normalised and mixed.
        targets: (N,), class indices; or (N, classes), the share of each class.
        classes: (N,), what errors are counted by.
        divisor: of the sum of losses: images or their weight, over all processes.
        parts: in which the batch goes through the network.
        empty: whether its images stand for none, and have no weight.
    """

    images: Tensor
    targets: Tensor
    classes: Tensor
    divisor: float | Tensor
    parts: int
    empty: bool


class DeviceStep:
    """Gradient, update and averages of a step; and whether they stand.

    Args:
        model: the network, on its device.
        recipe: see `Recipe`.
        torch_optimizer, scaler, average: what a step changes, the network apart; `average` is None where there is none.
        processes, stopwatch: see `Trainer`.
        weights: (classes,), of the loss of each class; None weights all alike.
        kind: of logits and losses.
        late: results are read some steps later, and until then steps are cancelled on the device.

    Attributes:
        forward: what is called with images: the network; compiled, or of several processes.
        parallel: the network of several processes, or None.
        optimizer: steps of `torch_optimizer`.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        torch_optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: WeightAverage | None,
        processes: Processes,
        stopwatch: Stopwatch,
        *,
        weights: Tensor | None,
        kind: torch.dtype,
        late: bool,
    ) -> None:
        self.forward: Any = model
        self.parallel: Any = None
        self.optimizer = MaskedOptimizer(torch_optimizer)
        self._recipe, self._torch_optimizer, self._scaler, self._ema = recipe, torch_optimizer, scaler, average
        self._processes, self._stopwatch = processes, stopwatch
        self._weights, self._kind, self._late = weights, kind, late
        self._device = next(model.parameters()).device
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
        self._trained = select_parameters(model, recipe)
        self._averaged = [] if average is None else average.tensors
        # Whether a step has failed and the recipe stops: what follows it is cancelled.
        self._halted = torch.zeros((), dtype=torch.bool, device=self._device)
        # A gain is no statistic, and a network waits for the device to read one that was written to.
        gains = {id(module.gain) for module in model.modules() if isinstance(module, SqueezeExcitation)}
        self._statistics = Saved(buffer for buffer in model.buffers() if id(buffer) not in gains)

    def can_mask(self) -> bool:
        """Whether a step that is not finite is cancelled on the device, and not by a decision of the host."""
        counts = self._recipe.on_nonfinite == "skip" or self._scaler.is_enabled()
        return self._late and self.optimizer.can_mask(counts)

    def start_anew(self) -> None:
        """Let steps count again after one that has failed."""
        self._halted.zero_()

    def masked(self, batch: Batch) -> Tensor:
        """All of a step that is the device's; nothing here waits for it. Returns the values of its result, (4,)."""
        result = self.gradient(batch)
        dropped, failed = result.dropped | self._halted, result.failed | self._halted
        self.apply(batch, result, dropped, failed)
        if self._recipe.on_nonfinite == "stop":
            self._halted.copy_(failed)
        return result.values

    def gradient(self, batch: Batch) -> StepResult:
        """The gradient of a batch over all processes, and whether it is finite."""
        if self._is_kept(batch):
            self._statistics.save()
        sums = self._backward(batch)
        self._processes.sum_in_place(sums)
        self._scaler.unscale_(self._torch_optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None])
        scale = self._scaler._get_scale_async() if self._scaler.is_enabled() else None
        return StepResult.of(sums, norm, scale)

    def _backward(self, batch: Batch) -> Tensor:
        """The gradient of a batch, part by part; (2,), its loss, and how many labels were not the first."""
        many, world, parts, empty = self._processes.is_distributed, self._processes.world_size, batch.parts, batch.empty
        mixed = self._recipe.mixup or self._recipe.cutmix
        smoothing = 0.0 if mixed else self._recipe.label_smoothing  # it is in mixed targets
        sums = torch.zeros(2, device=self._device, dtype=torch.float64 if self._device.type != "mps" else torch.float32)
        pieces = (values.tensor_split(parts) for values in (batch.images, batch.targets, batch.classes))
        for number, (images, targets, classes) in enumerate(zip(*pieces, strict=True)):
            self._stopwatch.lap("data")
            # Gradients go to the others once, with those of all parts.
            alone = self.parallel.no_sync() if many and number < parts - 1 else nullcontext()
            with alone:
                with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
                    logits = self.forward(images).to(self._kind)
                loss = F.cross_entropy(logits, targets, self._weights, label_smoothing=smoothing, reduction="sum")
                loss = loss * 0.0 if empty else loss / batch.divisor
                wrong = (logits.detach().argmax(1) != classes).sum()
                sums += torch.stack((loss.detach(), wrong * 0 if empty else wrong))
                self._stopwatch.lap("forward")
                if number == 0:
                    # As late as can be: backward then takes the memory of the gradients before, and no new pages.
                    self._torch_optimizer.zero_grad()
                # What comes back is a mean over processes.
                self._scaler.scale(loss * world if many else loss).backward()  # type: ignore[no-untyped-call]
            self._stopwatch.lap("backward")
        return sums

    def apply(self, batch: Batch, result: StepResult, dropped: bool | Tensor, failed: bool | Tensor) -> None:
        """Update weights, loss scale and averages, but for a dropped step; set statistics back for one that failed.

        Args:
            dropped, failed: flags, known already or on the device.
        """
        self.optimizer.step(dropped)
        if self._scaler.is_enabled():
            for found in self._scaler._found_inf_per_device(self._torch_optimizer).values():
                found.copy_(result.overflow)
            scale = list(self._scaler._check_scale_growth_tracker("update"))
            cancel_where(lambda: scale, result.lost | self._halted, self._scaler.update)
        if self._is_kept(batch):
            self._statistics.restore(batch.empty or failed)
        if self._ema is not None:
            if isinstance(dropped, Tensor):
                cancel_where(lambda: self._averaged, dropped, self._ema.update)
            elif not dropped:
                self._ema.update()

    def _is_kept(self, batch: Batch) -> bool:
        """Whether buffers may have to be set back: a forward pass that is not finite spoils running statistics."""
        return batch.empty or self._recipe.on_nonfinite == "skip" or self._late
