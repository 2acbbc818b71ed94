"""What the runs of a plan will take: parameters, multiply-adds, and time by a few timed steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from senet.study.plan.arms import StudyArm
from senet.study.plan.plan import Plan

__all__ = ["ArmEstimate", "build_empty", "estimate_arms"]

# Steps that are timed after one that is not, since it compiles and makes memory; fewer where they take long.
_STEPS = 5
_SECONDS = 4.0


@dataclass(frozen=True)
class ArmEstimate:
    """What a run of an arm takes.

    Attributes:
        arm: which.
        params: of its network.
        macs: multiply-adds for one image of the recipe's size.
        step: seconds of a training step, the median of those that were timed; None where they were not.
        seconds: of a whole run: decoding all images once, all steps, and evaluation after each epoch; without the
            start of its process. None where no steps were timed.
    """

    arm: StudyArm
    params: int
    macs: int
    step: float | None = None
    seconds: float | None = None


def build_empty(network: str, recipe: Any, classes: int | None = None) -> Any:
    """A run's network without values: no memory, and no weights read.

    Raises:
        ValueError, TypeError: see `senet.create_model`.
    """
    import torch

    from senet.models import create_model

    options = {
        key: value for key, value in recipe.network.items() if key not in ("weights", "missing", "head", "entry")
    }
    options = {"in_channels": len(recipe.mean), "num_classes": classes, **options}
    with torch.device("meta"):
        return create_model(network, **options)


def estimate_arms(plan: Plan, *, threads: int, timed: bool = True) -> Iterator[ArmEstimate]:
    """Count each arm's network, and time steps of its recipe on the plan's data.

    Args:
        plan: its recipe and data.
        threads: of PyTorch, as a run is to have.
        timed: whether to take steps at all; else the data are opened, and no image is read.

    Raises:
        ValueError, TypeError, DataError: as `senet.train`.
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
                build_empty(run.arm.network, recipe, classes),
                (channels, *recipe.preprocessing.size),
                activations=False,
            )
            step, seconds = _time(run.arm.network, recipe, splits, plan.skip_bad) if timed else (None, None)
            yield ArmEstimate(run.arm, found.params, found.macs, step, seconds)


def _time(network: str, recipe: Any, splits: Any, skip_bad: bool) -> tuple[float, float]:
    """Seconds of a step, and of a whole run."""
    import torch

    from senet.data import open_loader
    from senet.data.loading.device_batches import batch_device
    from senet.evaluation.evaluate import network_logits
    from senet.models import create_model
    from senet.training import Trainer
    from senet.training.devices import pick_device
    from senet.utils.modes import evaluating, seeded

    device = pick_device(recipe)
    batches, start = [], 0.0
    for images, augmentation in zip(splits, (recipe.augmentation, None), strict=True):
        batch = min(recipe.batch, len(images))
        count = min(len(images), batch * (_STEPS + 1 if augmentation else 1))
        # What is a stream is read from its start; and not decoded here, so that it takes no time before the first step.
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
        options = {"num_classes": len(splits[0].classes), "in_channels": len(recipe.mean), **recipe.network}
        model = create_model(network, **options).to(device).to(memory_format=torch.channels_last)
        trainer = Trainer(model, recipe, training)
        trainer.begin()
        laps = _laps(trainer)
        trainer.release()
        since = time.perf_counter()
        with torch.no_grad(), evaluating(model):
            network_logits(model, validation.preprocessing, next(iter(validation.epoch()))[0])
        evaluation = time.perf_counter() - since
    step = median(laps)
    return step, start + recipe.epochs * (steps * step + evaluations * evaluation)


def _laps(trainer: Any) -> list[float]:
    """Seconds of steps, reading of their images included; the first is left out where there is another."""
    laps: list[float] = []
    since = time.perf_counter()
    for inputs in trainer.batches():
        if len(inputs[0]):
            trainer.train_step(*inputs)
            trainer.read()  # waits for the device
        now = time.perf_counter()
        laps.append(now - since)
        since = now
        if len(laps) > 1 and sum(laps[1:]) > _SECONDS:
            break
    return laps[1:] or laps


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
