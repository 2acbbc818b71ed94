"""Estimate the cost of a plan's runs: parameters, multiply-adds, and time from a few timed steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from senet.costs.cost import cost
from senet.data import ImageData, Loader, open_loader, open_splits
from senet.data.loading.device_batches import batch_device
from senet.evaluation.logits import input_like
from senet.recipes.network import create_network
from senet.recipes.recipe import Recipe
from senet.study.plan.plan import Plan
from senet.study.plan.study import StudyArm
from senet.tasks import Task, get_task
from senet.training import Trainer
from senet.training.devices import pick_device
from senet.utils.modes import evaluating, seeded

__all__ = ["ArmEstimate", "estimate_arms"]

# Timed steps after an untimed one, which compiles and allocates; fewer if they take longer than _SECONDS.
_STEPS = 5
_SECONDS = 4.0


@dataclass(frozen=True)
class ArmEstimate:
    """The cost of a run.

    Attributes:
        arm: the arm of the run.
        params: parameters of the network.
        macs: multiply-adds of `Task.trunk` for one image of the recipe's size.
        epochs: number of epochs of a run.
        step: seconds for a training step, median of the timed steps; None without timing.
        seconds: seconds for a whole run: decoding all images once, all steps, and evaluation after each epoch, without
            starting the process. None without timing.
    """

    arm: StudyArm
    params: int
    macs: int
    epochs: int
    step: float | None = None
    seconds: float | None = None


def estimate_arms(plan: Plan, *, threads: int, timed: bool = True) -> Iterator[ArmEstimate]:
    """Count each arm's network, and time steps of its recipe on the plan's data.

    Args:
        plan: the plan; its data are opened.
        threads: PyTorch's threads, as many as a run will have.
        timed: whether to time steps. Otherwise no image is read.

    Yields:
        The estimate of each arm, in the plan's order.

    Raises:
        ValueError, TypeError, DataError: see `senet.train`.
    """
    opened = open_splits(plan.data, plan.val_data, plan.val_fraction)
    with _threads(threads):
        for run in plan.runs[: len(plan.study.arms)]:
            recipe = plan.recipe_of(run)
            task = get_task(recipe.task)
            splits = task.data(opened[0]), task.data(opened[1])
            channels = recipe.network.get("in_channels", len(recipe.mean))
            model = create_network(run.arm.network, recipe, num_classes=len(splits[0].classes), meta=True)
            size = task.preprocessing(recipe.preprocessing).size
            yield ArmEstimate(
                arm=run.arm,
                params=sum(parameter.numel() for parameter in model.parameters()),
                macs=cost(task.trunk(model), (channels, *size), activations=False).macs,
                epochs=recipe.passes(_steps(recipe, splits[0])),
                **(_time(run.arm.network, recipe, splits, plan.skip_bad) if timed else {}),
            )


def _steps(recipe: Recipe, training: ImageData) -> int:
    """Return the steps of an epoch, whose batches are full."""
    return max(1, len(training) // recipe.batch)


def _time(network: str, recipe: Recipe, splits: tuple[ImageData, ImageData], skip_bad: bool) -> dict[str, float]:
    """Return `step` and `seconds` of an `ArmEstimate`."""
    device, task = pick_device(recipe), get_task(recipe.task)
    batches, start = [], 0.0
    for images, augmentation in zip(splits, (recipe.augmentation, None), strict=True):
        batch = min(recipe.batch, len(images))
        count = min(len(images), batch * (_STEPS + 1 if augmentation else 1))
        # A stream is read from its start, and needs no time before the first step: it is not decoded up front.
        stream = hasattr(images.source, "streams")
        some = images if stream else images.subset(np.random.default_rng(0).permutation(len(images))[:count])
        since = time.perf_counter()
        loader = open_loader(
            some,
            task.preprocessing(recipe.preprocessing),
            augmentation,
            batch=batch,
            seed=recipe.seed,
            workers=max(recipe.workers, 0),
            skip_bad=skip_bad,
            memory_limit=int(recipe.memory * 2**30),
            device=batch_device(device),
        )
        start += (time.perf_counter() - since) * (1.0 if stream else len(images) / count)
        batches.append(loader)
    training, validation = batches
    steps, evaluations = _steps(recipe, splits[0]), -(-len(splits[1]) // validation.batch)
    with seeded(recipe.seed, device):
        model = create_network(network, recipe, num_classes=len(splits[0].classes))
        task.prepare(model, recipe)
        model = model.to(device).to(memory_format=torch.channels_last)
        trainer = Trainer(model, recipe, training)
        trainer.begin()
        times = _step_times(trainer)
        trainer.release()
        since = time.perf_counter()
        with torch.no_grad(), evaluating(model):
            _infer(model, task, validation)
        evaluation = time.perf_counter() - since
    step = median(times)
    whole = recipe.steps(steps) * step + recipe.passes(steps) * evaluations * evaluation
    return {"step": step, "seconds": start + whole}


def _infer(model: nn.Module, task: Task, loader: Loader) -> None:
    """Run a network on the first batch of a loader, and wait for the device."""
    pixels, targets = next(iter(loader.epoch()))
    like = input_like(model)
    images = loader.preprocessing.normalize(pixels.to(like.device)).to(like.dtype)
    for rows, part in task.split(pixels, targets):
        task.run(model, images[rows], part, targets[rows])
    if like.is_cuda:
        torch.cuda.synchronize(like.device)


def _step_times(trainer: Any) -> list[float]:
    """Return the seconds for each step with reading its images, without the first unless it is the only one."""
    times: list[float] = []
    since = time.perf_counter()
    for inputs in trainer.batches():
        if len(inputs[0]):
            trainer.train_step(*inputs)
            trainer.read()  # waits for the device
        now = time.perf_counter()
        times.append(now - since)
        since = now
        if len(times) > 1 and sum(times[1:]) > _SECONDS:
            break
    return times[1:] or times


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set PyTorch's threads within a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
