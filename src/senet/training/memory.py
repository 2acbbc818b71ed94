"""Remedies for a run that is out of memory: the same steps in smaller parts, or smaller steps."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from senet.recipes.recipe import Recipe
from senet.utils.errors import TrainingError
from senet.utils.memory_errors import is_out_of_memory, memory_sizes

__all__ = ["explain_memory", "preparing"]


def explain_memory(error: BaseException, recipe: Recipe, processes: int = 1) -> str:
    """Return how a run can use less memory, in one line; "" for any other error.

    Args:
        error: of a step, an evaluation or a data loader.
        recipe: of the run.
        processes: that share each batch.
    """
    if not is_out_of_memory(error):
        return ""
    share = math.ceil(recipe.batch / processes)
    parts = min(2 * recipe.accumulate, share)
    smaller = (
        f"give a smaller batch, and base_batch_size={recipe.base_batch_size or recipe.batch} to lower lr along with it"
    )
    if parts > recipe.accumulate:
        images = math.ceil(share / parts)
        smaller = f"accumulate={parts} makes the same steps with less, in parts of {images} images; or {smaller}"
    elif recipe.accumulate > 1 or share == 1:
        smaller = "a part is one image already; use a smaller crop_size, precision=bf16 or a smaller network"
    return f"out of memory with batch={recipe.batch} and accumulate={recipe.accumulate}: {smaller}{memory_sizes(error)}"


@contextmanager
def preparing(recipe: Recipe) -> Iterator[None]:
    """Before the first step, turn an error that memory is used up into a TrainingError with a remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory before the first step, with batch={recipe.batch} and accumulate={recipe.accumulate}: the "
            f"network, an image and decoded data do not fit; use a smaller network or crop_size, lower "
            f"memory={recipe.memory:g} (GiB of decoded images), or end other programs that use memory; nothing is "
            f"saved{memory_sizes(error)}"
        ) from error
