"""The backbone of a detector: a network's feature maps and a feature pyramid."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from senet.models.features import features_of

if TYPE_CHECKING:
    from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

__all__ = ["Backbone", "Stage", "stages_of"]


@dataclass(frozen=True)
class Stage:
    """The last feature map of a stride.

    Attributes:
        index: of the map in `feature_info`.
        module: name of the module that returns the map.
        channels: of the map.
        stride: of the map, in pixels of the image.
    """

    index: int
    module: str
    channels: int
    stride: int


def stages_of(network: nn.Module, name: str) -> list[Stage]:
    """Return the last feature map of each stride of a network, the largest map first.

    Args:
        network: with timm's `feature_info`.
        name: of the network, for the message.

    Raises:
        ValueError: the network has no `feature_info`.
    """
    info: Any = getattr(network, "feature_info", None)
    if not info:
        raise ValueError(
            f"{name!r} has no `feature_info`, the list of its feature maps, which a detector requires; use a network "
            f"of the catalogue or of timm"
        )
    rows = [
        Stage(index, str(row["module"]), int(row["num_chs"]), int(row["reduction"])) for index, row in enumerate(info)
    ]
    return list({row.stride: row for row in rows}.values())


class Backbone(nn.Module):
    """A network without its head, and a feature pyramid (Lin et al. 2017, arXiv 1612.03144) on its deepest maps.

    Keys are `body.*`, as in the network, and `fpn.*`, as in torchvision's `BackboneWithFPN`.

    Args:
        network: with `feature_info`; it must not be used elsewhere.
        stages: all stages of the network.
        count: the most maps that the pyramid takes. They are the deepest, and their strides double.
        out_channels: channels of the pyramid's maps.
        extra: the block that adds smaller maps to the pyramid.
    """

    def __init__(
        self, network: nn.Module, stages: list[Stage], count: int, out_channels: int, extra: ExtraFPNBlock
    ) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        maps = _deepest(stages, count)
        reset: Any = getattr(network, "reset_classifier", lambda _: None)
        reset(0)  # some of timm's networks keep their head
        self.out_channels = out_channels
        self.strides = [stage.stride for stage in maps]
        self.body = features_of(network, [stage.index for stage in maps])
        # timm's FeatureGetterNet has the network as its child `model`.
        inside = "model." if isinstance(getattr(self.body, "model", None), nn.Module) else ""
        self.stage_names = [f"{inside}{stage.module}" for stage in stages]
        self.fpn = FeaturePyramidNetwork([stage.channels for stage in maps], out_channels, extra)

    def forward(self, x: Float[Tensor, "N C H W"]) -> dict[str, Tensor]:
        """Map normalized images (N, C, H, W) to the maps of the pyramid (N, out_channels, h, w), the largest first."""
        maps = self.body(x)
        return self.fpn(OrderedDict((str(index), one) for index, one in enumerate(maps)))  # type: ignore[no-any-return]


def _deepest(stages: list[Stage], count: int) -> list[Stage]:
    """Return at most `count` of the deepest stages, as long as strides double, the largest map first."""
    maps = [stages[-1]]
    for stage in reversed(stages[:-1]):
        if len(maps) == count or stage.stride * 2 != maps[0].stride:
            break
        maps.insert(0, stage)
    return maps
