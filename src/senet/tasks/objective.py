"""The interface of an objective: what a task minimizes in one run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from senet.utils.modes import evaluating

__all__ = ["Objective", "ObjectiveContext", "ObjectiveSettings"]


class ObjectiveSettings(Protocol):
    """The values of a recipe that objectives read, see `senet.Recipe`."""

    @property
    def loss(self) -> str:
        """The loss, see `senet.utils.choices.Loss`."""

    @property
    def label_smoothing(self) -> float:
        """Label smoothing of the cross-entropy loss."""

    @property
    def mixup(self) -> float:
        """Alpha of mixup."""

    @property
    def cutmix(self) -> float:
        """Alpha of CutMix."""

    @property
    def class_weights(self) -> str:
        """How the loss of an image is weighted by its class."""

    @property
    def sampling(self) -> str:
        """How the images of an epoch are drawn."""

    @property
    def crop(self) -> str:
        """The crop in training."""

    @property
    def randaugment(self) -> str:
        """The RandAugment policy."""

    @property
    def resize(self) -> int | list[int]:
        """Size of the shorter side of an image, or height and width to cover."""

    @property
    def max_size(self) -> int:
        """Longest side of an image that is resized as a whole."""

    @property
    def scales(self) -> list[int]:
        """Shorter sides of images in training."""

    @property
    def compile(self) -> bool:
        """Whether the network is compiled."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveContext:
    """What an objective knows of a run.

    Attributes:
        settings: the recipe.
        model: the network.
        classes: number of classes of the data, K.
        labels: (M, ...), labels of the training images, on the host.
        device: on which steps compute.
        dtype: of images, outputs and losses.
    """

    settings: ObjectiveSettings
    model: nn.Module
    classes: int
    labels: Tensor
    device: torch.device
    dtype: torch.dtype


class Objective(ABC):
    """The loss of a run, on the device: nothing waits for it, and a CUDA graph can capture `loss`.

    The loss of a batch is a sum over its images, divided by their number or weight over all processes. The gradients of
    several processes then add up to the gradient of the joint batch.

    Attributes:
        draws_on_host: whether `targets` draws random numbers on the host. A CUDA graph then begins after it.
        weighs: whether the sum is divided by `weight`, and not by the number of images.
        obstacle: why `loss` cannot be captured in a CUDA graph, in a few words; empty if it can.

    Examples:
        >>> from senet.tasks import Objective
        >>> class SquaredError(Objective):
        ...     def loss(self, forward, images, targets, labels):
        ...         return (forward(images) - nn.functional.one_hot(labels, 10)).square().sum(), ()
        >>> images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
        >>> loss, _ = SquaredError().loss(senet.create_model("resnet20"), images, labels, labels)
    """

    draws_on_host: bool = False
    weighs: bool = False
    obstacle: str = ""

    def targets(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the images and targets of the loss; by default the images and labels themselves.

        Args:
            images: (N, C, H, W), normalized, on the device; may be changed in place.
            labels: (N, ...), on the device.
            seed: of the joint batch.
        """
        return images, labels

    def weight(self, labels: Tensor) -> Tensor:
        """Return (), the weight of some images; computed on the device of their labels (N, ...)."""
        raise NotImplementedError(f"{type(self).__name__} has no weights of images")

    @contextmanager
    def probing(self, model: nn.Module) -> Iterator[None]:
        """Set the mode in which `probe` runs a network within a block, in which running statistics do not change."""
        with evaluating(model):
            yield

    def probe(self, forward: Callable[..., Any], images: Tensor) -> Tensor:
        """Return (), a number that depends on the parameters as the loss does.

        Args:
            forward: the network, in the mode of `probing`.
            images: (N, C, H, W).
        """
        return forward(images).sum()  # type: ignore[no-any-return]

    @abstractmethod
    def loss(
        self, forward: Callable[..., Any], images: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the loss of some images.

        Args:
            forward: the network, under autocast where the recipe has it.
            images: (N, C, H, W).
            targets: (N, ...), of `targets`.
            labels: (N, ...).

        Returns:
            (), the sum of the losses; and for each of `Task.counters` its sum over the images, ().
        """
