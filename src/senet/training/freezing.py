"""What a recipe trains of a network in an epoch, and what it freezes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from senet.nn.batch_norm_utils import batch_norms
from senet.nn.held_statistics import norms_with_statistics
from senet.recipes.recipe import Recipe

__all__ = ["begin_epoch", "restoring_requires_grad"]


def begin_epoch(model: nn.Module, recipe: Recipe, trained: Sequence[nn.Parameter], epoch: int) -> None:
    """Set training mode, and freeze what the recipe freezes in an epoch.

    Args:
        model: changed in place.
        recipe: with `train_only` and `freeze_bn_epochs`.
        trained: parameters that the recipe trains, see `select_parameters`.
        epoch: from 0.
    """
    model.train()
    freezes_norms = recipe.freeze_bn_epochs > 0 and epoch >= recipe.epochs - recipe.freeze_bn_epochs
    norms = list(batch_norms(model))
    frozen = {id(p) for norm in norms for p in norm.parameters(recurse=False)} if freezes_norms else set()
    trainable = {id(parameter) for parameter in trained} - frozen
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trainable)
    held = norms_with_statistics(model) if recipe.train_only == "se" else norms if freezes_norms else ()
    for norm in held:
        norm.training = False  # of this module only: an SE block in it stays in training mode


@contextmanager
def restoring_requires_grad(model: nn.Module) -> Iterator[None]:
    """Restore what of a network requires gradients, after a block that freezes parameters."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
