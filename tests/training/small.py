"""A network, data and recipe so small that a step takes milliseconds."""

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from senet.data import ImageData, Loader, open_loader
from senet.insertion.insert import insert
from senet.models import ResNet, ResNetSpec
from senet.recipes import Recipe
from senet.runs import Epoch
from senet.tasks import get_task
from senet.training import Trainer
from tests.images import picture

SIZE = 8


class Pictures:
    """A source of distinct images."""

    def read(self, index: int) -> Image.Image:
        return picture(index, SIZE, SIZE)

    def name(self, index: int) -> str:
        return f"picture {index}"


def small_data(labels: list[int] | None = None, classes: int = 3) -> ImageData:
    """Images of noise; twelve, of three classes in turn, unless labels are given."""
    labels = [n % classes for n in range(12)] if labels is None else labels
    return ImageData("pictures", Pictures(), np.array(labels, dtype=np.int64), [str(n) for n in range(classes)])


def small_network(se: bool = True, seed: int = 0, **spec: Any) -> ResNet:
    """Two basic units, each with SE in its last batch norm by default."""
    torch.manual_seed(seed)
    numbers = {"units": (1, 1), "channels": (8, 16), "widths": (8, 16), "bottleneck": False, "stem_channels": 8}
    model = ResNet(ResNetSpec(**numbers | {"stem": "conv3", "pool": "none"} | spec), num_classes=3)  # type: ignore[arg-type]
    return insert(model, reduction=4, init="paper") if se else model  # type: ignore[return-value]


def epoch_of(number: int = 1, **values: float) -> Epoch:
    """An epoch with some metrics; the others are placeholders."""
    row = {
        "epoch": number,
        "lr": 0.1,
        "train_loss": 1.0,
        "train_error": 50.0,
        "loss": 1.0,
        "top1_error": 50.0,
        "top5_error": 5.0,
        "seconds": 1.0,
        "images_per_second": 1.0,
    }
    return Epoch.from_row(row | values, get_task("classification"))


def small_recipe(**values: Any) -> Recipe:
    """Plain SGD without weight decay by default."""
    plain: dict[str, Any] = {"epochs": 2, "batch": 4, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "workers": 0}
    return Recipe(**plain | {"resize": SIZE, "crop_size": SIZE} | values)


def small_loader(recipe: Recipe, data: ImageData | None = None) -> Loader:
    """The recipe's training batches."""
    data = small_data() if data is None else data
    return open_loader(data, recipe.preprocessing, recipe.augmentation, batch=recipe.batch, seed=recipe.seed)


def small_trainer(model: ResNet | None = None, data: ImageData | None = None, **values: Any) -> Trainer:
    """A trainer at its first step, of `small_recipe` with these values."""
    recipe = small_recipe(**values)
    trainer = Trainer(small_network() if model is None else model, recipe, small_loader(recipe, data))
    trainer.begin()
    return trainer


def steps(trainer: Trainer, count: int = 3) -> None:
    """The steps of the first epoch from where the trainer is."""
    batches = list(trainer.training.epoch(len(trainer.epochs), trainer.state.step))
    for pixels, labels in batches[:count]:
        trainer.train_step(pixels, labels)


def values(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a network's parameters and buffers."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: torch.nn.Module) -> set[str]:
    """Which of them are not what they were."""
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def state_of(trainer: Trainer) -> dict[str, Any]:
    """A trainer's state, as a flat dict."""
    return _flat(copy.deepcopy(trainer.state_dict()))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}").items()}
    if isinstance(value, list | tuple):
        return _flat(dict(enumerate(value)), prefix)
    return {prefix: value}


def differing(one: dict[str, Any], other: dict[str, Any], ignored: str = "") -> list[str]:
    """Keys of two states whose values differ in a bit, one ignored."""
    assert one.keys() == other.keys()
    pairs = ((key, value, other[key]) for key, value in one.items() if key != ignored)
    return [key for key, a, b in pairs if not (torch.equal(a, b) if isinstance(a, Tensor) else a == b)]
