"""What the paper calls the SE blocks of a network: SE_4_6 is the sixth of stage 4."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from senet.costs.cost import cost

__all__ = ["labels_of", "stages_of"]


def stages_of(model: nn.Module, input_size: Sequence[int]) -> dict[str, int | None]:
    """The stage of each SE module, by its name, as `senet.cost` counts stages; empty where that cannot run the network.

    Args:
        model: the network.
        input_size: (C, *spatial) of its images.
    """
    try:
        found = cost(model, tuple(input_size), activations=False)
    except Exception:  # a network that looks at values, or of operations that cannot run without them
        return {}
    return {name: block.stage for block in found.blocks for name in block.sites}


def labels_of(names: Sequence[str], stages: dict[str, int | None]) -> list[str]:
    """Labels of SE modules: stage and place in the stage, from 1; the module's name where the stage is not known.

    Args:
        names: in the order in which they run.
        stages: by name.
    """
    places: Counter[int] = Counter()
    labels = []
    for name in names:
        stage = stages.get(name)
        if stage is None:
            labels.append(name)
            continue
        places[stage] += 1
        labels.append(f"SE_{stage}_{places[stage]}")
    return labels
