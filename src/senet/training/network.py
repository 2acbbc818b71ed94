"""The network of a run: built by name or checked, and prepared for the recipe's images and the data's classes."""

from typing import Any

import torch
from torch import nn

from senet.data import ImageData
from senet.data.class_names import warn_of_order
from senet.recipes.network import create_network
from senet.recipes.recipe import Recipe
from senet.tasks import get_task
from senet.utils.errors import DataError

__all__ = ["in_order_of_network", "network_for"]


def network_for(network: str | nn.Module, training: ImageData, recipe: Recipe) -> Any:
    """Return the network to train, with the recipe's preprocessing in its `pretrained_cfg`.

    Args:
        network: a name, which is built with the recipe's network options; or a network of senet.
        training: training data, whose classes the network must have.
        recipe: of the run.

    Raises:
        ValueError: the network cannot be trained, or does not fit the recipe.
        DataError: the data have another number of classes.
    """
    model: Any
    if isinstance(network, str):
        get_task(recipe.task).check_network(network)
        model = create_network(network, recipe, num_classes=len(training.classes))
    elif recipe.network:
        raise ValueError(f"the options {sorted(recipe.network)} build a network by name, and one was given built")
    else:
        model = network
    if not isinstance(getattr(model, "architecture", None), dict):
        raise ValueError(f"a {type(model).__name__} cannot be trained here: no logits, or not one of senet's networks")
    get_task(recipe.task).check_network(str(model.architecture.get("name", type(model).__name__)))
    if not any(p.requires_grad and p.dtype == torch.float32 for p in model.parameters()):
        raise ValueError("nothing can be trained: no parameter is float32 and requires a gradient; try model.float()")
    if model.num_classes != len(training.classes):
        raise DataError(
            f"{training.spec} has {len(training.classes)} classes and the network {model.num_classes}; "
            f"leave num_classes out to have as many"
        )
    if model.in_channels != len(recipe.mean):
        raise ValueError(
            f"the network takes {model.in_channels} channels, and the recipe's mean has {len(recipe.mean)} values: set "
            f"mean and std to as many, or leave in_channels out"
        )
    recipe.preprocessing.check_std()
    model.pretrained_cfg.pop("resize", None)
    model.pretrained_cfg |= recipe.preprocessing.as_cfg()
    return model


def in_order_of_network(model: Any, splits: tuple[ImageData, ImageData], recipe: Recipe) -> tuple[ImageData, ImageData]:
    """Return the data with their class indices in the order of the network's class names, if both have the same."""
    names, known = model.pretrained_cfg.get("label_names"), splits[0].classes
    if names is not None and sorted(names) == sorted(known) and len(set(names)) == len(names):
        return splits[0].with_classes(names), splits[1].with_classes(names)
    keeps_classifier = recipe.train_only == "se" and recipe.network.get("weights") and model.num_classes == len(known)
    if names is None and keeps_classifier:
        warn_of_order(known, splits[0].spec)
    return splits
