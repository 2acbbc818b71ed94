"""What a step makes of a batch of the loader: images, targets and weights on the device.

Each of several processes has its share of the batch. Its loss is a sum over the share, divided by the images (or their
weights) of the whole batch, so that the gradients of all processes add up to the gradient of the joint batch.
"""

import torch
from torch import Tensor

from senet.data import Loader
from senet.recipes.recipe import Recipe
from senet.tasks import Objective
from senet.training.device_step import Batch
from senet.training.distributed.processes import Processes

__all__ = ["StepInputs"]


class StepInputs:
    """Prepare the batches of a recipe.

    Args:
        recipe: with parts and batch norms.
        training: the loader, which normalizes.
        processes: that share each batch.
        objective: of the task; makes the targets, and may weight images.
        device: on which steps compute.
        dtype: of images, logits and losses.
        reads_each_step: the result of each step is read before the next one, so that the host may wait for the device.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        training: Loader,
        processes: Processes,
        objective: Objective,
        device: torch.device,
        dtype: torch.dtype,
        reads_each_step: bool,
    ) -> None:
        self._recipe, self._training, self._processes = recipe, training, processes
        self._device, self._dtype, self._reads_each_step = device, dtype, reads_each_step
        self._scale = training.preprocessing.scale(device)  # a CUDA graph of a step reads it
        self._objective = objective

    def pixels(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return pixels (N, C, H, W) and labels (N,), from these or from crops (N, 4) of data on the device."""
        if len(inputs) == 1 and self._training.on_device is not None:
            return self._training.on_device.batch(inputs[0])
        pixels, labels = inputs
        return pixels, labels

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return images (N, C, H, W) on the device."""
        return self._training.preprocessing.normalize(pixels, self._scale).to(self._dtype)

    def prepare(self, pixels: Tensor, labels: Tensor, seed: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images and targets of the loss, and the labels by which errors are counted.

        Args:
            pixels: (N, C, H, W), 0 to 255. If N is 0, black images without weight take their place, for batch norms
                that are not synchronized.
            labels: (N, ...).
            seed: of the joint batch.
            parts: in which the batch goes through the network.

        Returns:
            (N, C, H, W), (N, ...) and (N, ...).
        """
        empty = not len(labels)
        if empty:
            pixels, labels = self._training.blank(2 * parts)
        labels = labels.to(self._device, non_blocking=True)
        images = self.normalized(pixels.to(self._device, non_blocking=True))
        images, targets = self._objective.targets(images, labels, seed)
        if empty and self._recipe.sync_bn:
            images, targets, labels = images[:0], targets[:0], labels[:0]
        return images, targets, labels

    def own_batch(self, images: Tensor, targets: Tensor, labels: Tensor) -> Batch:
        """Return the batch of a single process, from what `prepare` returned; nothing waits for the device."""
        divisor = self._objective.weight(labels) if self._objective.weighs else len(labels)
        return Batch(
            images=images,
            targets=targets,
            labels=labels,
            divisor=divisor,
            parts=min(self._recipe.accumulate, len(labels)),
            empty=False,
        )

    def joint_batch(self, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Batch, int] | None:
        """Return this process's share of a batch, and the number of images of the whole batch; None if it has none."""
        sizes, weight = self._batch_sizes(labels)
        count = sum(sizes)
        if not count:
            return None
        parts = min(self._recipe.accumulate, *(size for size in sizes if size), count)
        images, targets, own = self.prepare(pixels, labels, seed, parts)
        batch = Batch(
            images=images,
            targets=targets,
            labels=own,
            divisor=weight if self._objective.weighs else count,
            parts=parts,
            empty=not len(labels),
        )
        return batch, count

    def _batch_sizes(self, labels: Tensor) -> tuple[list[int], float | Tensor]:
        """Return how many images of the batch each process has, and the weight of the whole batch."""
        if not self._objective.weighs:
            return self._processes.batch_sizes(len(labels), 0.0)
        if self._reads_each_step or (labels.device.type == "cpu" and self._device.type != "cpu"):
            return self._processes.batch_sizes(len(labels), float(self._objective.weight(labels.cpu())))
        weight = self._objective.weight(labels)
        self._processes.sum_in_place(weight)
        return self._processes.batch_sizes(len(labels), 0.0)[0], weight
