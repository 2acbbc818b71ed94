"""The base class of the networks: pooling, dropout, a classifier, and the methods that users of timm expect."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from senet.utils.errors import not_scriptable, unknown_name
from senet.utils.modes import is_traced

__all__ = ["Classifier", "check_rate", "convolution"]


class Classifier(nn.Module):
    """A network without SE: layers of a subclass, then global average pooling, dropout and a linear layer.

    A subclass builds its layers in the order in which they run, as timm's `FeatureListNet` needs, then calls
    `_add_head`, and implements `forward_features`.

    Args:
        in_channels: channels of the images.

    Raises:
        ValueError: `in_channels` below 1.
    """

    # Name and options of a named network, and timm's description; see `build_plain`.
    architecture: dict[str, Any] | None
    pretrained_cfg: dict[str, Any]
    # For timm's `features_only`, by map: `num_chs`, `reduction` and `module`.
    feature_info: list[dict[str, Any]]
    # Children that hold the units of one stage each; empty where units are direct children.
    stage_names: list[str]

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be 1 or more, got {in_channels}; 3 for RGB images")
        self.architecture = None
        self.pretrained_cfg = {}
        self.in_channels = in_channels
        self.grad_checkpointing = False
        self.stage_names = []

    def _add_stage(self, stage: nn.Module, channels: int, reduction: int) -> None:
        """Add the next stage, named `layer1` and so on, with the channels and total stride of its output."""
        name = f"layer{len(self.stage_names) + 1}"
        self.add_module(name, stage)
        self.stage_names.append(name)
        self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": name})

    def _add_head(self, num_features: int, num_classes: int, drop_rate: float) -> None:
        """Add pooling, dropout and classifier, and apply He initialization to all layers (paper section 6.1)."""
        self.num_features = num_features
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        for module in self.modules():
            # On the meta device PyTorch would import its compiler, which takes most of a second.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Map normalized images (N, in_channels, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F h w"]:
        """Map (N, in_channels, H, W) to (N, num_features, h, w), the last map before pooling."""
        raise NotImplementedError

    def _run_stages(self, x: Tensor) -> Tensor:
        for name in self.stage_names:
            stage = getattr(self, name)
            for part in stage if self._recomputes() else [stage]:
                x = self._run(part, x)
        return x

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(part, x, use_reentrant=False) if self._recomputes() else part(x)  # type: ignore[no-any-return]

    def _recomputes(self) -> bool:
        return self.grad_checkpointing and torch.is_grad_enabled() and not is_traced()

    def forward_head(self, x: Float[Tensor, "N F h w"], pre_logits: bool = False) -> Float[Tensor, "N K"]:
        """Map (N, num_features, h, w) to (N, num_classes); with `pre_logits`, to `fc`'s input (N, num_features)."""
        x = self.head_drop(self.global_pool(x).flatten(1))
        return x if pre_logits else self.fc(x)

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(self)

    def get_classifier(self) -> nn.Module:
        """Return the last layer: a Linear, or an Identity where `num_classes` is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer, on the device and in the dtype of the other layers.

        Args:
            num_classes: number of classes; 0 removes the classifier.
            global_pool: "avg", or None to keep the pooling.

        Raises:
            ValueError: `num_classes` below 0, or another pooling.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
        if global_pool not in (None, "avg"):
            raise ValueError(f"{unknown_name('global_pool', global_pool, ['avg'])} For maps, use forward_features.")
        self.num_classes = num_classes
        # The names of the old classes do not apply to the new outputs.
        self.pretrained_cfg = self.pretrained_cfg | {"num_classes": num_classes, "label_names": None}
        like = next(self.parameters())
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            fc = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            if not fc.weight.is_meta:
                nn.init.kaiming_normal_(fc.weight, nonlinearity="linear")
                nn.init.zeros_(fc.bias)
            self.fc = fc.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each unit in backward instead of saving its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that group parameters by stage (coarse) or unit, as timm's layer-wise learning rates need."""
        return {
            "stem": r"^(?:conv1|bn1)\.",
            "blocks": r"^layer(\d+)" if coarse else [(r"^layer(\d+)\.(\d+)", None), (r"^norm", (99999,))],
        }


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded so that only its stride changes the size of the map."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def check_rate(name: str, rate: float) -> None:
    """Check a rate of dropout or stochastic depth.

    Raises:
        ValueError: the rate is below 0, or 1 or more.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be 0 or more and below 1, got {rate}")
