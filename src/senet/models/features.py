"""Maps instead of logits: a network whose output is a list of maps, as timm's `features_only` has it."""

from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["features_of"]


def features_of(model: nn.Module, out_indices: int | Sequence[int] | None) -> nn.Module:
    """Return a network that gives maps of another, whose modules it takes.

    Args:
        model: with `feature_info` as timm has it: a network of the catalogue, or one of timm's.
        out_indices: which maps: 0 is the first, and -1 the last; a number takes the last so many; None takes all.

    Returns:
        timm's `FeatureGetterNet` of a network of timm's, otherwise its `FeatureListNet`.

    Raises:
        ValueError: there are no such maps, or the network does not say where its maps are.
    """
    from timm.models import FeatureListNet
    from timm.models._features import FeatureGetterNet

    info: Any = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(
            f"features_only=True: a {type(model).__name__} does not say where its maps are (`feature_info`); hook into "
            f"its modules, or take timm's network of this kind"
        )
    last = len(info) - 1
    wanted = range(last + 1) if out_indices is None else out_indices
    wanted = range(-wanted, 0) if isinstance(wanted, int) else wanted  # the last so many, as in timm
    if not wanted or not all(-last - 1 <= index <= last for index in wanted):
        raise ValueError(f"out_indices must be among 0 to {last}, or negative from the last, got {out_indices}")
    indices = tuple(index % (last + 1) for index in wanted)
    # timm's own way of a network that gives its maps itself; the other takes a network apart by its children.
    kind = FeatureGetterNet if hasattr(model, "forward_intermediates") else FeatureListNet
    return kind(model, out_indices=indices)  # type: ignore[no-any-return]
