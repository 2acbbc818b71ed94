"""Networks that return a list of feature maps, as timm's `features_only`."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import nn

from senet.utils.errors import shown

__all__ = ["features_of"]


def features_of(model: nn.Module, out_indices: int | Sequence[int] | None) -> nn.Module:
    """Return a network that outputs the feature maps of another network, and shares its modules.

    Args:
        model: a network with timm's `feature_info`: of the catalogue, or of timm.
        out_indices: indices of the maps: 0 is the first, -1 the last; an integer n selects the last n; None all.

    Returns:
        timm's `FeatureGetterNet` for a network of timm, otherwise its `FeatureListNet`.

    Raises:
        TypeError: an index is not an integer.
        ValueError: an index is out of range, or the network has no `feature_info`.
    """
    from timm.models import FeatureListNet
    from timm.models._features import FeatureGetterNet

    info: Any = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(
            f"features_only=True: a {type(model).__name__} has no `feature_info`, the list of its maps; hook into its "
            f"modules, or use timm's network of this kind"
        )
    last = len(info) - 1
    wanted = range(last + 1) if out_indices is None else out_indices
    wanted = range(-wanted, 0) if isinstance(wanted, int) else wanted  # the last n, as in timm
    if not isinstance(wanted, Sequence) or not all(isinstance(index, Integral) for index in wanted):
        raise TypeError(f"out_indices must be an integer or a sequence of integers, got {shown(out_indices)}")
    if not wanted or not all(-last - 1 <= index <= last for index in wanted):
        raise ValueError(f"out_indices must be among 0 to {last}, or negative from the last, got {out_indices}")
    indices = tuple(index % (last + 1) for index in wanted)
    # FeatureGetterNet calls `forward_intermediates`; FeatureListNet runs the children one after another.
    kind = FeatureGetterNet if hasattr(model, "forward_intermediates") else FeatureListNet
    return kind(model, out_indices=indices)  # type: ignore[no-any-return]
