"""The networks that are quantized: published plain networks, unchanged and fine-tuned with SE; and trained ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import senet
from senet.data import open_loader
from senet.data.preprocessing import Preprocessing

__all__ = ["images_of", "network", "trained"]

# As the study of fine-tuning (benchmarks/finetune.py) chose: SE at identity, with 50 times the learning rate.
REDUCTION, LR, SE_LR_FACTOR = 4, 0.02, 50.0
# Fraction of the epochs in which the learning rate rises.
WARMUP = 0.2
# Images for networks of ImageNet, whose strides leave nothing of 32 pixels; and the learning rate from scratch.
SIDE, SCRATCH_LR = 64, 0.1


def network(name: str, weights: str, data: str, val: str, folder: Path, *, images: int, epochs: int) -> nn.Module:
    """Return a network in evaluation mode: the published plain one, or one with SE that is fine-tuned.

    Args:
        name: of the plain network, or with "se_" before it.
        weights: file with the weights of the plain network.
        data: spec of the training images.
        val: spec of the validation images.
        folder: its subfolder `name` has the network with SE, or gets the run that trains it.
        images: training images, at equal distances in the data set.
        epochs: passes over them.
    """
    done, plain = folder / name / "last.safetensors", name.removeprefix("se_")
    if name == plain or not done.is_file():
        model = senet.create_model(plain)
        senet.load_weights(model, weights)
        if name == plain:
            return model.eval()
        torch.manual_seed(0)
        senet.insert(model, reduction=REDUCTION, init="identity")
        config = _config(model)
        recipe = replace(
            _recipe(epochs),
            lr=LR,
            se_lr_factor=SE_LR_FACTOR,
            mean=list(config["mean"]),
            std=list(config["std"]),
        )
        _train(model, recipe, data, val, folder / name, images)
    return senet.load(done).eval()


def trained(name: str, data: str, val: str, folder: Path, *, images: int, epochs: int) -> nn.Module:
    """Return a network of another library in evaluation mode, trained from random weights.

    Args:
        name: such as "timm/mobilenetv3_small_050".
        data, val, images, epochs: see `network`.
        folder: its subfolder named as the network has the trained one, or gets the run that trains it.
    """
    run = folder / name.rpartition("/")[2]
    done = run / "last.safetensors"
    if not done.is_file():
        torch.manual_seed(0)
        recipe = replace(_recipe(epochs), lr=SCRATCH_LR, resize=SIDE, crop_size=SIDE, padding=SIDE // 8)
        model = senet.create_model(name, num_classes=len(senet.open_data(val, "val").classes))
        _train(model, recipe, data, val, run, images)
    return senet.load(done).eval()


def _recipe(epochs: int) -> senet.Recipe:
    return replace(senet.load_recipe("cifar-short"), epochs=epochs, warmup=WARMUP * epochs)


def _train(model: nn.Module, recipe: senet.Recipe, data: str, val: str, run: Path, images: int) -> None:
    training, validation = senet.open_data(data, "train"), senet.open_data(val, "val")
    training = training.subset(np.arange(0, len(training), max(1, len(training) // images)))
    senet.train(model, (training, validation), recipe, run)


def images_of(model: nn.Module, spec: str, most: int) -> tuple[Tensor, Tensor]:
    """Return normalized validation images (V, C, H, W) for a network, and their classes (V,)."""
    data = senet.open_data(spec, "val")
    if names := _config(model)["label_names"]:
        data = data.with_classes(names)
    data = data.subset(np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).astype(int)))
    preprocessing = Preprocessing.of(_config(model))
    loader = open_loader(data, preprocessing, batch=128)
    batches = list(loader.epoch())
    pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return preprocessing.normalize(pixels).contiguous(), labels


def _config(model: nn.Module) -> dict[str, Any]:
    config: Any = model.pretrained_cfg
    return dict(config)
