"""Check on one image, before the data are read, that a network can be trained on a recipe's images."""

from collections.abc import Iterable

import torch
from torch import nn

from senet.graph.recorder import trace
from senet.nn.batch_norm_utils import batch_norms
from senet.recipes.recipe import Recipe
from senet.tasks import get_task
from senet.training.determinism import explain_refusal
from senet.utils.errors import first_line
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["check_maps", "shapes_of_one_image"]


def check_maps(model: nn.Module, recipe: Recipe, batch: int, processes: int = 1) -> None:
    """Check that the network accepts the images of a step, and that no batch norm gets a single value.

    Args:
        model: the network to train, on its device.
        recipe: of the run.
        batch: images of a step, of all processes together.
        processes: that share it.

    Raises:
        ValueError: images are too small for the network; or each part of a step has one image, and a batch norm has one
            value for its statistics; the message names the sizes and the remedy. Or the network uses an operation that
            has no deterministic implementation, with deterministic=true.
    """
    model = get_task(recipe.task).trunk(model)
    norms = set(batch_norms(model))
    watched = [name for name, module in model.named_modules() if module in norms]
    try:
        shapes = shapes_of_one_image(model, watched, recipe)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        if refused := explain_refusal(error):
            raise ValueError(refused) from error
        height, width = recipe.preprocessing.size
        raise ValueError(
            f"the network does not accept images of {height}x{width}: {first_line(error)}; set crop_size to "
            f"a size that it accepts"
        ) from error
    images = batch // recipe.accumulate // (1 if recipe.sync_bn else processes)
    if images > 1 or recipe.train_only == "se" or recipe.freeze_bn_epochs >= recipe.epochs > 0:
        return
    single = next((name for name, shape in shapes.items() if shape[2:].numel() == 1), None)
    if single is not None:
        shared = f" over {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"batch={batch} in accumulate={recipe.accumulate} parts{shared} is 1 image at a time, and the batch norm "
            f"{single} takes statistics of a map of 1x1: it needs 2 images or more; use a lower accumulate or a larger "
            f"batch (or crop_size, now {recipe.crop_size})"
        )


def shapes_of_one_image(model: nn.Module, modules: Iterable[str], recipe: Recipe) -> dict[str, torch.Size]:
    """Return the shapes of the maps that some modules take when one image of the recipe's size passes the network.

    Args:
        model: the network, which runs in evaluation mode.
        modules: their names; a module that is not called has no entry.
        recipe: of the run.

    Returns:
        (1, C, *spatial) by name.
    """
    like, (height, width) = next(model.parameters()), recipe.preprocessing.size
    image = torch.zeros(1, len(recipe.mean), height, width, dtype=like.dtype, device=like.device)
    run = trace(model, image, tensors="real")
    maps = {name: call.taken for name in modules for call in run.calls_of(name)}
    return {name: torch.Size(value.shape) for name, value in maps.items() if value is not None}
