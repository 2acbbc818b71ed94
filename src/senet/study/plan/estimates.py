"""Estimate the cost of a plan's runs: parameters, multiply-adds, and time from a few timed steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from senet.recipes.network import create_network
from senet.study.plan.plan import Plan
from senet.study.plan.study import StudyArm

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
        macs: multiply-adds for one image of the recipe's size.
        step: seconds for a training step, median of the timed steps; None without timing.
        seconds: seconds for a whole run: decoding all images once, all steps, and evaluation after each epoch, without
            starting the process. None without timing.
    """

    arm: StudyArm
    params: int
    macs: int
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
    from senet.costs.cost import cost
    from senet.data import open_splits

    splits = open_splits(plan.data, plan.val_data, plan.val_fraction)
    classes = len(splits[0].classes)
    with _threads(threads):
        for run in plan.runs[: len(plan.study.arms)]:
            recipe = plan.recipe_of(run)
            channels = recipe.network.get("in_channels", len(recipe.mean))
            found = cost(
                create_network(run.arm.network, recipe, num_classes=classes, meta=True),
                (channels, *recipe.preprocessing.size),
                activations=False,
            )
            step, seconds = _time(run.arm.network, recipe, splits, plan.skip_bad) if timed else (None, None)
            yield ArmEstimate(run.arm, found.params, found.macs, step, seconds)


def _time(network: str, recipe: Any, splits: Any, skip_bad: bool) -> tuple[float, float]:
    """Return the seconds for a step, and for a whole run."""
    import torch

    from senet.data import open_loader
    from senet.data.loading.device_batches import batch_device
    from senet.evaluation import network_logits
    from senet.training import Trainer
    from senet.training.devices import pick_device
    from senet.utils.modes import evaluating, seeded

    device = pick_device(recipe)
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
            recipe.preprocessing,
            augmentation,
            batch=batch,
            seed=recipe.seed,
            workers=max(recipe.workers, 0),
            skip_bad=skip_bad,
            memory_limit=int(recipe.memory * 2**30),
            device=batch_device(device),
        )
        start += (time.perf_counter() - since) * (1.0 if stream else len(images) / count)
        batches.append((loader, -(-len(images) // batch)))
    (training, steps), (validation, evaluations) = batches
    with seeded(recipe.seed, device):
        model = create_network(network, recipe, num_classes=len(splits[0].classes))
        model = model.to(device).to(memory_format=torch.channels_last)
        trainer = Trainer(model, recipe, training)
        trainer.begin()
        times = _step_times(trainer)
        trainer.release()
        since = time.perf_counter()
        with torch.no_grad(), evaluating(model):
            network_logits(model, validation.preprocessing, next(iter(validation.epoch()))[0])
        evaluation = time.perf_counter() - since
    step = median(times)
    return step, start + recipe.epochs * (steps * step + evaluations * evaluation)


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
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
