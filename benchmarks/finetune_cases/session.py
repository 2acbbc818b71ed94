"""What all runs of a process share: images on the device, pretrained networks, and the recipe."""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import senet
from finetune_cases.arms import ARMS, Arm, Job
from senet.data import open_loader
from senet.data.augmentation import draw
from senet.data.loading.device_batches import keep_on_device
from senet.recipes.recipe import Recipe
from senet.training.optimizers import lr_factor

__all__ = ["GROUPS", "Session", "Settings", "schedule"]

# The groups of parameters: with learning rates of their own, or a weight decay of their own.
GROUPS = ("weights", "norms", "biases", "se weights", "se biases")
# Fraction of each schedule in which the learning rate rises.
_WARMUP = 0.2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the script that decide what a run computes.

    Attributes:
        data, val: specs of training and validation images.
        weights: files with pretrained weights, by name of the network.
        device: "cpu" or "cuda".
        batch: images per step.
        graphs: whether steps run in CUDA graphs.
        fused: how batch norms with SE are computed, see `senet.set_fused`.
        most_val: the most validation images, at equal distances in the data set; 0 is all.
    """

    data: str
    val: str
    weights: dict[str, str]
    device: str = "cpu"
    batch: int = 128
    graphs: bool = True
    fused: str = "auto"
    most_val: int = 0


def schedule(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe with a number of epochs, and a warm-up in proportion."""
    return replace(recipe, epochs=epochs, warmup=_WARMUP * epochs)


@dataclass
class Session:
    """Images, networks and recipe.

    Attributes:
        settings: of the script.
        recipe: `cifar-short` with the mean and deviation of the pretrained networks.
        training: training images on the device.
        images, labels: (V, C, H, W) and (V,), normalized validation images on the device, and their classes.
        scale: mean and deviation on the device, which graphs read.
    """

    settings: Settings
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        device = self.device = torch.device(self.settings.device)
        self._plain: dict[str, nn.Module] = {}
        cfg: Any = self.plain(next(iter(self.settings.weights))).pretrained_cfg
        self.recipe = replace(
            senet.load_recipe("cifar-short"),
            batch=self.settings.batch,
            mean=list(cfg["mean"]),
            std=list(cfg["std"]),
        )
        preprocessing, augmentation = self.recipe.preprocessing, self.recipe.augmentation
        loaders = [
            open_loader(senet.open_data(spec), preprocessing, augmentation, batch=self.recipe.batch)
            for spec, augmentation in ((self.settings.data, augmentation), (self.settings.val, None))
        ]
        held = [
            keep_on_device(*_decoded(loader.memory), preprocessing, one, device)
            for loader, one in zip(loaders, (augmentation, None), strict=True)
        ]
        assert held[0] is not None
        assert held[1] is not None
        self.training, validation = held[0], held[1]
        self.scale = preprocessing.scale(device)
        every = len(validation.labels) // self.settings.most_val if self.settings.most_val else 1
        self.images = preprocessing.normalize(validation.pixels[::every].permute(0, 3, 1, 2), self.scale)
        self.labels = validation.labels[::every]

    def plain(self, network: str) -> nn.Module:
        """Return the pretrained network, on the CPU; not to be changed."""
        if network not in self._plain:
            model = senet.create_model(network)
            senet.load_weights(model, Path(self.settings.weights[network]))
            self._plain[network] = model
        return self._plain[network]

    def initial(self, network: str, arm: Arm, seed: int) -> nn.Module:
        """Return a pretrained network with an arm's SE, on the CPU."""
        model = copy.deepcopy(self.plain(network))
        if arm.se != "none":
            torch.manual_seed(seed)
            senet.insert(model, reduction=arm.reduction, init=arm.se)
        return model

    def phases(self, job: Job) -> list[tuple[str, int]]:
        """Return what is trained, "all" or "se", and for how many steps, in order."""
        first = min(math.ceil(ARMS[job.arm].se_first * job.epochs), job.epochs - 1)
        steps = job.images // self.recipe.batch
        return [(mode, count * steps) for mode, count in (("se", first), ("all", job.epochs - first)) if count]

    def rates(self, job: Job) -> Tensor:
        """Return the learning rates (steps, groups) of a run."""
        arm = ARMS[job.arm]
        rows: list[tuple[float, ...]] = []
        steps, total = job.images // self.recipe.batch, sum(count for _, count in self.phases(job))
        for mode, count in self.phases(job):
            recipe = schedule(self.recipe, count // steps)
            for step in range(count):
                lr = arm.lr * lr_factor(recipe, step, steps)
                rise = min(1.0, (len(rows) + 1) / (arm.se_warmup * total)) if arm.se_warmup else 1.0
                others = (lr, lr * arm.norm_lr, lr) if mode == "all" else (0.0, 0.0, 0.0)
                rows.append((*others, lr * arm.se_lr * rise, lr * arm.se_lr * rise))
        return torch.tensor(rows, dtype=torch.float64)

    def crops(self, job: Job) -> Tensor:
        """Return the random numbers (steps, batch, 4) of a run, as `DeviceData.upload` orders them.

        The images are those that `senet.train` has with this seed in a data set of this size.
        """
        available, batch = len(self.training.labels), self.recipe.batch
        if job.images > available:
            raise ValueError(
                f"the study needs {job.images:,} training images, and {self.settings.data} has {available:,}"
            )
        steps, found = job.images // batch, []
        for epoch in range(job.epochs):
            draws = draw(self.recipe.augmentation, job.seed, epoch, job.images)
            order = draws.order[: steps * batch]
            indices = order * (available // job.images)
            columns = (indices[:, None], draws.offsets[order], draws.flips[order][:, None].long())
            found.append(torch.cat(columns, dim=1).view(steps, batch, 4))
        return torch.cat(found)


def _decoded(memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    if memory is None:
        raise ValueError("the images do not fit in memory, as this study requires")
    return memory
