"""What a step makes of a batch of the loader: images, targets and weights on the device.

Each of several processes has its share of the batch. Its loss is a sum over the share, divided by the images (or their
weights) of the whole batch, so that the gradients of all processes add up to the gradient of the joint batch.
"""

import torch
from torch import Tensor

from senet.data import Loader
from senet.recipes.recipe import Recipe
from senet.training.device_step import Batch
from senet.training.distributed.processes import Processes
from senet.training.mixing import Mixing

__all__ = ["StepInputs"]


class StepInputs:
    """Prepare the batches of a recipe.

    Args:
        recipe: with mixing, class weights and parts.
        training: the loader, which normalizes.
        processes: that share each batch.
        device: on which steps compute.
        dtype: of images, logits and losses.
        reads_each_step: the result of each step is read before the next one, so that the host may wait for the device.

    Attributes:
        weights: (classes,), of the loss of each class; None weights all equally.
        mixing: mixup or CutMix; None if the recipe has neither.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        training: Loader,
        processes: Processes,
        device: torch.device,
        dtype: torch.dtype,
        reads_each_step: bool,
    ) -> None:
        self._recipe, self._training, self._processes = recipe, training, processes
        self._device, self._dtype, self._reads_each_step = device, dtype, reads_each_step
        self._scale = training.preprocessing.scale(device)  # a CUDA graph of a step reads it
        classes = len(training.data.classes)
        self.mixing = Mixing(recipe, classes) if recipe.mixup or recipe.cutmix else None
        self.weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            counts = torch.bincount(training.labels, minlength=classes).clamp(min=1)
            self._host_weights = (training.images / (len(counts) * counts)).to(dtype)
            self.weights = self._host_weights.to(device)

    @property
    def _weights_images(self) -> bool:
        """Whether losses are divided by the weight of the images, not by their number."""
        return self.weights is not None and self.mixing is None

    def pixels(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return pixels (N, C, H, W) and labels (N,), from these or from crops (N, 4) of data on the device."""
        if len(inputs) == 1 and self._training.on_device is not None:
            return self._training.on_device.batch(inputs[0])
        pixels, labels = inputs
        return pixels, labels

    def black_images(self, count: int) -> Tensor:
        """Return pixels (count, C, H, W) of 0, in the size of the recipe's images."""
        shape = self._training.preprocessing
        return torch.zeros(count, len(shape.mean), *shape.size, dtype=torch.uint8)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return images (N, C, H, W) on the device."""
        return self._training.preprocessing.normalize(pixels, self._scale).to(self._dtype)

    def prepare(self, pixels: Tensor, labels: Tensor, seed: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images and targets of the loss, and the classes by which errors are counted.

        Args:
            pixels: (N, C, H, W), 0 to 255. If N is 0, black images without weight take their place, for batch norms
                that are not synchronized.
            labels: (N,).
            seed: of mixing.
            parts: in which the batch goes through the network.

        Returns:
            (N, C, H, W), (N,) or (N, classes), and (N,).
        """
        empty = not len(labels)
        if empty:
            pixels, labels = self.black_images(2 * parts), torch.zeros(2 * parts, dtype=torch.long)
        classes = labels.to(self._device, non_blocking=True)
        images = self.normalized(pixels.to(self._device, non_blocking=True))
        targets = classes
        if self.mixing is not None:
            images, targets = self.mixing(images, classes, seed)
        if empty and self._recipe.sync_bn:
            images, targets, classes = images[:0], targets[:0], classes[:0]
        return images, targets, classes

    def own_batch(self, images: Tensor, targets: Tensor, classes: Tensor) -> Batch:
        """Return the batch of a single process, from what `prepare` returned; nothing waits for the device."""
        divisor: int | Tensor = len(classes)
        if self.weights is not None and self._weights_images:
            divisor = self.weights[classes].sum()
        return Batch(
            images=images,
            targets=targets,
            classes=classes,
            divisor=divisor,
            parts=min(self._recipe.accumulate, len(classes)),
            empty=False,
        )

    def joint_batch(self, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Batch, int] | None:
        """Return this process's share of a batch, and the number of images of the whole batch; None if it has none."""
        sizes, weight = self._batch_sizes(labels)
        count = sum(sizes)
        if not count:
            return None
        parts = min(self._recipe.accumulate, *(size for size in sizes if size), count)
        images, targets, classes = self.prepare(pixels, labels, seed, parts)
        batch = Batch(
            images=images,
            targets=targets,
            classes=classes,
            divisor=weight if self._weights_images else count,
            parts=parts,
            empty=not len(labels),
        )
        return batch, count

    def _batch_sizes(self, labels: Tensor) -> tuple[list[int], float | Tensor]:
        """Return how many images of the batch each process has, and the weight of the whole batch."""
        if self.weights is None:
            return self._processes.batch_sizes(len(labels), 0.0)
        if self._reads_each_step or (labels.device.type == "cpu" and self._device.type != "cpu"):
            return self._processes.batch_sizes(len(labels), float(self._host_weights[labels.cpu()].sum()))
        weight = self.weights[labels].sum()
        self._processes.sum_in_place(weight)
        return self._processes.batch_sizes(len(labels), 0.0)[0], weight
