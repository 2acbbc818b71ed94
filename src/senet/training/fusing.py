"""Fuse the SE of other libraries' networks while they train."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from senet.fusion import fuse, is_fused, unfuse
from senet.nn.fused.backends import enabled
from senet.recipes.recipe import Recipe
from senet.tasks import get_task

__all__ = ["fusing"]


@contextmanager
def fusing(model: nn.Module, recipe: Recipe) -> Iterator[None]:
    """Fuse SE that a network has of its own within a block, see `senet.fuse`, and restore its classes afterwards.

    Args:
        model: the network to train, which runs on the recipe's images; one that is fused stays as it is.
        recipe: with `fused`. A compiled network and one whose batch norms are frozen fuse nothing.
    """
    model = get_task(recipe.task).trunk(model)
    if recipe.fused == "off" or recipe.compile or recipe.train_only == "se" or not enabled() or is_fused(model):
        yield
        return
    like = next(model.parameters())
    fuse(model, torch.empty(2, len(recipe.mean), *recipe.preprocessing.size, dtype=like.dtype, device="meta"))
    try:
        yield
    finally:
        unfuse(model)
