"""The network that a recipe trains, in the one place that builds it."""

from typing import Any

import torch

from senet.models import create_model
from senet.recipes.recipe import Recipe

__all__ = ["create_network"]

# Options that read weights, and how.
_WEIGHTS = ("weights", "backbone_weights", "missing", "head", "entry")


def create_network(name: str, recipe: Recipe, *, num_classes: int | None = None, meta: bool = False) -> Any:
    """Build a network with the options of a recipe.

    Args:
        name: the name of the network, see `senet.create_model`.
        recipe: its table `network` has the options; without `in_channels` there, the network has as many input channels
            as the recipe's `mean` has values.
        num_classes: the number of classes, unless the recipe sets it; None is the network's own number.
        meta: build it on the meta device, without memory and without reading weights.

    Raises:
        ValueError, TypeError: see `senet.create_model`.
    """
    options = {"in_channels": len(recipe.mean), "num_classes": num_classes, **recipe.network}
    if not meta:
        return create_model(name, **options)
    with torch.device("meta"):
        return create_model(name, **{key: value for key, value in options.items() if key not in _WEIGHTS})
