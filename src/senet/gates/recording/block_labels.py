"""Label SE blocks as the paper does: SE_4_6 is block 6 of stage 4."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from senet.costs.cost import cost
from senet.tasks import trunk_of

__all__ = ["block_labels", "stages_of"]


def stages_of(model: nn.Module, input_size: Sequence[int]) -> dict[str, int | None]:
    """Return the stage of each SE module by name, as in `senet.cost`; empty if `senet.cost` cannot run the network.

    Args:
        model: the network.
        input_size: (C, *spatial) of the images.
    """
    prefix, part = trunk_of(model)
    try:
        found = cost(part, tuple(input_size), activations=False)
    except Exception:  # any error of a forward pass on the meta device
        return {}
    return {f"{prefix}{name}": block.stage for block in found.blocks for name in block.sites}


def block_labels(names: Sequence[str], stages: dict[str, int | None]) -> list[str]:
    """Return labels of stage and position in the stage from 1, or the module's name if its stage is unknown.

    Args:
        names: names of the SE modules in execution order.
        stages: the stages by name.
    """
    positions: Counter[int] = Counter()
    labels = []
    for name in names:
        stage = stages.get(name)
        if stage is None:
            labels.append(name)
            continue
        positions[stage] += 1
        labels.append(f"SE_{stage}_{positions[stage]}")
    return labels
