"""Find a learning rate: train a copy of the network while the learning rate grows from step to step.

Smith 2015 (arXiv 1506.01186), section 3.3. The steps are the trainer's, with all settings of the recipe.
"""

import copy
import itertools
import math
import os
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import ImageData, Loader, open_splits
from senet.recipes.recipe import Recipe
from senet.recipes.toml import load_recipe
from senet.runs.reporting import Reporter, Silent
from senet.tasks import get_task
from senet.training.devices import pick_device
from senet.training.distributed.processes import Processes
from senet.training.fusing import fusing
from senet.training.loaders import open_loaders
from senet.training.memory import preparing
from senet.training.network import in_order_of_network, network_for
from senet.training.step_results import Verdict
from senet.training.trainer import Trainer
from senet.utils.errors import DataError, TrainingError
from senet.utils.modes import seeded, tf32_products

__all__ = ["LRCurve", "find_lr"]

# Powers of ten of the recipe's learning rate between which the search runs.
_FROM, _TO = -4.0, 2.0
# Steps over which losses are averaged; the search ends when their mean is this many times the lowest.
_WINDOW, _DIVERGED = 9, 4.0
_LEAST_FALL = 4.0  # standard deviations of such a mean
_LEAST_STEPS = 20


@dataclass(frozen=True)
class LRCurve:
    """The loss of training steps by their learning rate.

    Attributes:
        lrs: (steps,), the recipe's `lr` of each step, which it scales by the batch if it has `base_batch_size`.
        losses: (steps,), before the update of each step.
        recipe_lr: the `lr` that the recipe has.
        diverged: whether the loss became too large or was not finite; otherwise all steps were made.

    Examples:
        >>> import numpy as np
        >>> lrs = np.geomspace(1e-5, 10, 60)
        >>> curve = senet.LRCurve(lrs, 2.3 - 2 / (1 + (0.01 / lrs) ** 2), recipe_lr=0.1, diverged=False)
        >>> f"{curve.suggestion:.2g}"
        '0.011'
    """

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    recipe_lr: float
    diverged: bool

    @property
    def smoothed(self) -> NDArray[np.float64]:
        """(steps,), the mean loss of the 9 steps around each, of fewer at the ends."""
        half = _WINDOW // 2
        return np.array([self.losses[max(0, at - half) : at + half + 1].mean() for at in range(len(self.losses))])

    @property
    def level(self) -> float:
        """The loss before the network learns: the median of the first third of the steps."""
        return float(np.median(self.losses[: -(-len(self.losses) // 3)]))

    @property
    def lowest(self) -> float:
        """The learning rate of the lowest smoothed loss."""
        return float(self.lrs[self.smoothed.argmin()])

    @property
    def suggestion(self) -> float | None:
        """The learning rate at which the smoothed loss has fallen halfway to its minimum; None if it does not fall.

        It falls if the minimum is further below the first third than means of so many losses differ by chance.
        """
        smoothed, level = self.smoothed, self.level
        at, spread = int(smoothed.argmin()), self.losses[: -(-len(self.losses) // 3)].std()
        fall = level - smoothed[at]
        if fall <= _LEAST_FALL * spread / math.sqrt(_WINDOW):
            return None
        above = np.flatnonzero(smoothed[:at] > level - fall / 2)
        return float(self.lrs[above[-1] + 1]) if len(above) else None


def find_lr(
    network: str | nn.Module,
    data: str | tuple[ImageData, ImageData],
    recipe: str | PathLike[str] | Recipe,
    *,
    val_data: str | None = None,
    val_fraction: float | None = None,
    skip_bad: bool = False,
    steps: int = 100,
    reporter: Reporter | None = None,
) -> LRCurve:
    """Train a copy of a network with a learning rate that grows from 1e-4 to 100 times the recipe's.

    The loss stays, falls, and rises where steps are too large. A learning rate in the middle of the fall is a good peak
    for the recipe's schedule. Nothing is written, and the network is unchanged. The curve is that
    of the first steps of this network, data, batch and optimizer: repeat the search when these change.

    Args:
        network: as for `senet.train`.
        data: as for `senet.train`; only training data are used.
        recipe: as for `senet.train`. Its schedule, averaged weights and CUDA graphs are not used.
        val_data: as for `senet.train`.
        val_fraction: as for `senet.train`.
        skip_bad: skip unreadable images.
        steps: number of steps, 20 or more. The search ends before if the loss diverges.
        reporter: shows the progress.

    Returns:
        The losses, the learning rate at which they have fallen halfway, and where they are lowest.

    Raises:
        ValueError: an invalid recipe, network or option; or several processes.
        DataError: data that cannot be used.
        TrainingError: no step had a finite loss, or memory is used up.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
        >>> curve = senet.find_lr("se_resnet20", "photos", recipe, steps=20)
        >>> len(curve.lrs) == len(curve.losses)
        True
    """
    if steps < _LEAST_STEPS:
        raise ValueError(f"steps must be {_LEAST_STEPS} or more, got {steps}")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("the search of a learning rate runs in one process: start it without torchrun")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe = replace(recipe, ema=0.0, on_nonfinite="skip", cuda_graph="off")
    reporter, task, device = reporter or Silent(), get_task(recipe.task), pick_device(recipe)
    with ExitStack() as stack:
        with preparing(recipe):
            opened = open_splits(data, val_data, val_fraction) if isinstance(data, str) else data
            splits = task.data(opened[0]), task.data(opened[1])
            stack.enter_context(seeded(recipe.seed, device))
            stack.enter_context(tf32_products(recipe.tf32))
            copied = network if isinstance(network, str) else copy.deepcopy(network)
            model = network_for(copied, splits[0], recipe)
            splits = in_order_of_network(model, splits, recipe)
            model.to(device).to(memory_format=torch.channels_last)
            stack.enter_context(fusing(model, recipe))
            processes = Processes(device)
            loader = open_loaders(splits, recipe, processes, reporter, skip_bad)[0]
            trainer = _Search(model, recipe, loader, processes=processes, read_every=1)
        return trainer.search(steps, reporter)


class _Search(Trainer):
    """A trainer with a learning rate of its own for each step, whose result it keeps."""

    def search(self, steps: int, reporter: Reporter) -> LRCurve:
        """Make the steps.

        Raises:
            DataError: no image can be read.
            TrainingError: no loss is finite.
        """
        self.begin()
        factors, losses, diverged = np.logspace(_FROM, _TO, steps), [], False
        with closing(_batches(self.training)) as batches:
            for step, inputs in zip(reporter.progress(range(steps), steps, "find lr"), batches, strict=False):
                self._factor = float(factors[step])
                self.train_step(*inputs)
                self.read()
                diverged = not math.isfinite(self._last.loss) or bool(self._last.problem)
                if not diverged:
                    losses.append(self._last.loss)
                    diverged = _rises(losses)
                if diverged:
                    break
        if not losses:
            raise TrainingError(
                f"the loss is not finite in the first step, with learning rate {self.state.lr:.3g}: check the data and "
                f"the initial weights"
            )
        curve = np.array(losses)
        return LRCurve(self.recipe.lr * factors[: len(curve)], curve, self.recipe.lr, diverged)

    def _lr_factor(self) -> float:
        return self._factor

    def read(self) -> Verdict:
        """Keep the result of the last step too."""
        pending, verdict = len(self._pending), super().read()
        if pending:
            self._last = verdict
        return verdict


def _batches(loader: Loader) -> Generator[tuple[Tensor, ...], None, None]:
    """Yield batches without end, epoch after epoch, without those in which no image can be read.

    Raises:
        DataError: an epoch has none.
    """
    for epoch in itertools.count():
        readable = False
        for inputs in loader.epoch(epoch, 0):
            if len(inputs[0]):
                readable = True
                yield inputs
        if not readable:
            raise DataError(f"{loader.data.spec} has no readable image")


def _rises(losses: list[float]) -> bool:
    """Return whether the mean of the last losses is far above the lowest such mean."""
    if len(losses) < _WINDOW:
        return False
    means: Any = np.convolve(losses, np.ones(_WINDOW) / _WINDOW, mode="valid")
    return bool(means[-1] > _DIVERGED * means.min())
