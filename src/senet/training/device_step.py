"""The part of a training step that runs on the device.

In short::

    for each part of the batch: loss = objective.loss(model, images, targets); backward
    optimizer.step(); average the weights      # unless loss or gradient is not finite

Nothing here waits for the device; `Trainer.read` does.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.block import SqueezeExcitation
from senet.recipes.recipe import Recipe
from senet.tasks import Objective
from senet.training.averaging import WeightAverage
from senet.training.distributed.processes import Processes
from senet.training.masking import MaskedOptimizer, Saved, cancel_where
from senet.training.optimizers import select_parameters
from senet.training.step_results import StepResult
from senet.training.stopwatch import Stopwatch

__all__ = ["Batch", "DeviceStep"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The inputs of a step on the device.

    Attributes:
        images: (N, C, H, W), normalized and mixed.
        targets: (N, ...), of the objective.
        labels: (N, ...), by which errors are counted.
        divisor: of the sum of losses: number of images, or their weight, over all processes.
        parts: number of parts in which the batch goes through the network.
        empty: whether the images are placeholders without weight.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    divisor: float | Tensor
    parts: int
    empty: bool


class DeviceStep:
    """Gradient, update and averages of a step, unless the step is cancelled.

    Args:
        model: the network, on its device.
        recipe: of the run.
        optimizer, scaler, average: what a step changes, in addition to the network; `average` may be None.
        processes, stopwatch: see `Trainer`.
        objective: what the step minimizes.
        counters: number of sums that it has in addition to the loss.
        late: results are read some steps later, and steps are cancelled on the device.

    Attributes:
        forward: called with images: the network, compiled or data-parallel where the run is.
        parallel: the data-parallel network of several processes, or None.
        optimizer: steps of `optimizer` that a flag can cancel.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        recipe: Recipe,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: WeightAverage | None,
        processes: Processes,
        stopwatch: Stopwatch,
        objective: Objective,
        counters: int,
        late: bool,
    ) -> None:
        self.forward: Any = model
        self.parallel: Any = None
        self.optimizer = MaskedOptimizer(optimizer)
        self._recipe, self._torch_optimizer, self._scaler, self._ema = recipe, optimizer, scaler, average
        self._processes, self._stopwatch = processes, stopwatch
        self._objective, self._counters, self._late = objective, counters, late
        self._device = next(model.parameters()).device
        self._autocast_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
        self._trained = select_parameters(model, recipe)
        self._averaged = [] if average is None else average.tensors
        # Whether a step has failed and the recipe stops: the steps that follow are cancelled.
        self._halted = torch.zeros((), dtype=torch.bool, device=self._device)
        # A gain is no statistic, and the network waits for the device to read a gain that was written to.
        gains = {id(module.gain) for module in model.modules() if isinstance(module, SqueezeExcitation)}
        self._statistics = Saved(buffer for buffer in model.buffers() if id(buffer) not in gains)

    def can_mask(self) -> bool:
        """Return whether a step that is not finite is cancelled on the device, without a decision of the host."""
        counts = self._recipe.on_nonfinite == "skip" or self._scaler.is_enabled()
        return self._late and self.optimizer.can_mask(counts)

    def clear_failure(self) -> None:
        """Stop cancelling the steps that follow a failed one."""
        self._halted.zero_()

    def masked(self, batch: Batch) -> Tensor:
        """Make a step that a flag on the device cancels; returns the values of its result, see `StepResult`."""
        result = self.gradient(batch)
        dropped, failed = result.dropped | self._halted, result.failed | self._halted
        self.apply(batch, result, dropped, failed)
        if self._recipe.on_nonfinite == "stop":
            self._halted.copy_(failed)
        return result.values

    def gradient(self, batch: Batch) -> StepResult:
        """Compute the gradient of a batch over all processes, and whether it is finite."""
        if self._saves_statistics(batch):
            self._statistics.save()
        sums = self._backward(batch)
        self._processes.sum_in_place(sums)
        self._scaler.unscale_(self._torch_optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._trained if p.grad is not None])
        scale = self._scaler._get_scale_async() if self._scaler.is_enabled() else None
        return StepResult.of(sums, norm, scale)

    def _outputs(self, *inputs: Any) -> Any:
        """Return the outputs of the network, under autocast where the recipe has it."""
        with torch.autocast(self._device.type, self._autocast_dtype, enabled=self._autocast_dtype is not None):
            return self.forward(*inputs)

    def _backward(self, batch: Batch) -> Tensor:
        """Compute the gradient of a batch, part by part; returns the loss and the sums of the counters."""
        many, world, parts, empty = self._processes.is_distributed, self._processes.world_size, batch.parts, batch.empty
        precise = torch.float64 if self._device.type != "mps" else torch.float32
        sums = torch.zeros(1 + self._counters, device=self._device, dtype=precise)
        pieces = (values.tensor_split(parts) for values in (batch.images, batch.targets, batch.labels))
        for number, (images, targets, labels) in enumerate(zip(*pieces, strict=True)):
            self._stopwatch.lap("data")
            # The gradients of all parts are averaged over processes at once, in the last part.
            local = self.parallel.no_sync() if many and number < parts - 1 else nullcontext()
            with local:
                loss, counts = self._objective.loss(self._outputs, images, targets, labels)
                loss = loss * 0.0 if empty else loss / batch.divisor
                sums += torch.stack((loss.detach(), *(count * 0 if empty else count for count in counts)))
                self._stopwatch.lap("forward")
                if number == 0:
                    # As late as possible: backward then reuses the memory of the previous gradients.
                    self._torch_optimizer.zero_grad()
                # DDP averages over processes; the loss is divided by the images of all.
                self._scaler.scale(loss * world if many else loss).backward()  # type: ignore[no-untyped-call]
            self._stopwatch.lap("backward")
        return sums

    def apply(self, batch: Batch, result: StepResult, dropped: bool | Tensor, failed: bool | Tensor) -> None:
        """Update weights, loss scale and averages, unless the step is dropped; restore statistics if it failed.

        Args:
            batch: of the step.
            result: of `gradient`.
            dropped, failed: flags, as bool or as tensors on the device.
        """
        self.optimizer.step(dropped)
        if self._scaler.is_enabled():
            for found in self._scaler._found_inf_per_device(self._torch_optimizer).values():
                found.copy_(result.overflow)
            scale = list(self._scaler._check_scale_growth_tracker("update"))
            cancel_where(lambda: scale, result.lost | self._halted, self._scaler.update)
        if self._saves_statistics(batch):
            self._statistics.restore(batch.empty or failed)
        if self._ema is not None:
            if isinstance(dropped, Tensor):
                cancel_where(lambda: self._averaged, dropped, self._ema.update)
            elif not dropped:
                self._ema.update()

    def _saves_statistics(self, batch: Batch) -> bool:
        """Return whether buffers may be restored: a forward pass that is not finite spoils running statistics."""
        return batch.empty or self._recipe.on_nonfinite == "skip" or self._late
