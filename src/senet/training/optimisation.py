"""The optimiser and the learning rate that a recipe asks for."""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from senet.training.recipe import Recipe

__all__ = ["lr_factor", "make_optimiser"]


def lr_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, as a share of the recipe's.

    Args:
        recipe: with schedule, drops, warmup and epochs, see `Recipe`.
        step: from 0, over the whole run.
        steps_per_epoch: steps of an epoch.
    """
    warmup, total = recipe.warmup * steps_per_epoch, recipe.epochs * steps_per_epoch
    if recipe.schedule == "one_cycle":
        # Never quite 0: the first step and the last are of use, too.
        return min((step + 1) / (warmup + 1), (total - step) / (total - warmup))
    if step < warmup:
        return 0.1
    return float(0.1 ** sum(step >= drop * steps_per_epoch for drop in recipe.drops))


def make_optimiser(
    model: nn.Module, recipe: Recipe, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD over a model's parameters, and the schedule of its learning rate, to be stepped after each step."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        # Batch norms, and the biases of layers and gates, have one axis.
        (decayed if recipe.decay_all or parameter.ndim > 1 else plain).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
    return optimiser, LambdaLR(optimiser, lambda step: lr_factor(recipe, step, steps_per_epoch))
