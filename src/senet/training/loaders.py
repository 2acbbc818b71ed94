"""The loaders of a run: training and validation batches, each process with its share."""

import os

from senet.data import ImageData, Loader, open_loader
from senet.data.loading.device_batches import batch_device
from senet.recipes.recipe import Recipe
from senet.runs.reporting import Reporter
from senet.tasks import get_task
from senet.training.distributed.data_parallel import check_batch_size
from senet.training.distributed.processes import Processes

__all__ = ["open_loaders"]


def open_loaders(
    splits: tuple[ImageData, ImageData], recipe: Recipe, processes: Processes, reporter: Reporter, skip_bad: bool
) -> tuple[Loader, Loader]:
    """Return the loaders of the training and the validation data.

    Args:
        splits: training and validation data.
        recipe: of the run.
        processes: that share each batch; the workers and the memory of a machine are divided among its processes.
        reporter: shows the progress of decoding, and where the data are kept.
        skip_bad: skip unreadable images, and count them.

    Raises:
        DataError: an image cannot be read.
        ValueError: a batch has fewer images than there are processes.
    """
    local, preprocessing = processes.local_world_size, get_task(recipe.task).preprocessing(recipe.preprocessing)
    workers = recipe.workers if recipe.workers >= 0 else min(8, max(1, _cores() // local))
    # An evaluation has the batch of a part of a step: a whole batch may not fit into memory.
    batches = (recipe.batch, max(-(-recipe.batch // recipe.accumulate), processes.world_size))
    training, validation = (
        open_loader(
            images,
            preprocessing,
            augmentation,
            batch=min(batch, len(images)),
            seed=recipe.seed,
            workers=workers,
            skip_bad=skip_bad,
            memory_limit=int(recipe.memory * 2**30 / local),
            balanced=augmentation is not None and recipe.sampling == "balanced",
            rank=processes.rank,
            world_size=processes.world_size,
            device=batch_device(processes.device),
            progress=reporter.progress,
        )
        for images, augmentation, batch in zip(splits, (recipe.augmentation, None), batches, strict=True)
    )
    for split, loader in (("training", training), ("validation", validation)):
        if loader.location:
            reporter.note(f"{split} data: {loader.location}")
    check_batch_size(training.batch, processes.world_size)
    return training, validation


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
