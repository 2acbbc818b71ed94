"""Images a second of the trainer of `senet train`, on 32x32 images that are made here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import senet
from senet.benchmark import clock_for, interleave, ratio
from senet.data import ImageData, open_loader
from senet.data.loading.device_batches import batch_device
from senet.recipes import Recipe, load_recipe
from senet.runs import Silent
from senet.training import Trainer, train_epoch
from senet.utils.notices import listening
from senet.utils.progress import Progress

__all__ = ["trainer_speed"]

NETWORKS = ("resnet20", "se_resnet20")
GRAPHS = ("auto", "off")


@dataclass
class _Pixels:
    """Images of random pixels, as a source of `ImageData`."""

    images: NDArray[np.uint8]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        return f"random image {index}"


def trainer_speed(device: str, small: bool, seconds: float, progress: Progress) -> dict[str, Any]:
    """The trainer with and without SE, each with CUDA graphs where possible ("auto") and without ("off").

    A measurement is an epoch of the trainer: batches with crops and mirrored images, normalization, forward, backward,
    checks for NaN, optimizer, and the metrics at the end. Evaluation and checkpoints are excluded.
    """
    batch, steps = (4, 2) if small else (128, 50)
    data = _data(batch * steps)
    names, sides, recipe = [], [], None
    length: dict[str, Any] = {"rounds": 1, "warm_up": 1} if small else {"seconds": seconds}
    notices: list[str] = []  # such as why a step runs without a CUDA graph
    with listening(notices.append):
        for graph in GRAPHS:
            for network in NETWORKS:
                recipe = _recipe(batch, graph, device)
                names.append((network, graph))
                sides.append(_epoch(network, data, recipe, device))
        times = interleave(sides, clock_for(device), progress=progress, **length)
    found = []
    for index, (network, graph) in enumerate(names):
        spread = ratio(times.seconds[:, index], times.seconds[:, names.index((NETWORKS[0], graph))])
        speeds = batch * steps / times.seconds[:, index]
        low, median, high = np.quantile(speeds, [0.25, 0.5, 0.75]).tolist()
        found.append(
            {
                "name": network,
                "cuda_graph": graph,
                "images_per_second": median,
                "quartiles": [low, high],
                "twin": vars(spread) | {"conclusive": spread.conclusive, "name": NETWORKS[0]},
            }
        )
    return {
        "batch": batch,
        "images": batch * steps,
        "precision": recipe.precision if recipe else "",
        "rounds": len(times.seconds),
        "steady": times.steady,
        "notices": notices,
        "sides": found,
    }


def _data(count: int) -> ImageData:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return ImageData("random", _Pixels(images), generator.integers(0, 10, count), [str(label) for label in range(10)])


def _recipe(batch: int, graph: str, device: str) -> Recipe:
    # The learning rate is next to nothing: random labels would teach the network oddly.
    settings = [f"batch={batch}", "lr=1e-6", "precision=bf16", f"device={device}", f"cuda_graph={graph}"]
    return load_recipe("cifar-short", settings)


def _epoch(network: str, data: ImageData, recipe: Recipe, device: str) -> Callable[[], None]:
    torch.manual_seed(0)
    loader = open_loader(
        data,
        recipe.preprocessing,
        recipe.augmentation,
        batch=recipe.batch,
        device=batch_device(torch.device(device)),
    )
    model = senet.create_model(network, num_classes=len(data.classes))
    model.to(device).to(memory_format=torch.channels_last)
    trainer = Trainer(model, recipe, loader)

    def epoch() -> None:
        train_epoch(trainer, Silent())
        trainer.start_epoch()

    return epoch
