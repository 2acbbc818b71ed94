"""The random mix of two branches that gives Shake-Shake its name."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from senet.models.mix_function import MixFunction
from senet.utils.choices import check_choice

__all__ = ["Backward", "ShakeShakeMix"]

Backward = Literal["shake", "even"]


class ShakeShakeMix(nn.Module):
    """Mix two maps with random coefficients for each image; in evaluation, return the mean (Gastaldi 2017, section 1).

    In training the output is `alpha y1 + (1 - alpha) y2`, and the gradients are `beta g` and `(1 - beta) g`. Alpha is
    drawn for each image from the uniform distribution over [0, 1).

    Args:
        out_channels: channels of the maps.
        backward: "shake", beta is drawn independently from the same distribution; or "even", beta is 1/2.
    """

    def __init__(self, out_channels: int, backward: Backward = "shake") -> None:
        super().__init__()
        check_choice("backward", backward, Backward)
        self.out_channels = out_channels
        self.backward = backward

    def forward(self, y1: Float[Tensor, "N C H W"], y2: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Mix two maps (N, C, H, W) into one (N, C, H, W)."""
        return _mix(self, y1, y2)


def _mix(module: ShakeShakeMix, y1: Tensor, y2: Tensor) -> Tensor:
    """Mix two maps; a leaf of torch.fx that takes the module, so that a trace respects `train()` and `eval()`."""
    if not module.training:
        return (y1 + y2) * 0.5
    alpha, beta = _draw(y1, module.backward)
    return MixFunction.apply(y1, y2, alpha, beta)  # type: ignore[no-any-return]


torch.fx.wrap("_mix")


def _draw(y: Tensor, backward: str) -> tuple[Tensor, Tensor]:
    """Return alpha and beta, (N, 1, 1, 1) each, in y's dtype.

    Both are drawn in forward, in one call, so that a unit recomputed in backward draws the same values and no compiler
    reorders draws. They are drawn in float32, so that a seed gives the same values for every dtype of y.
    """
    count = 1 if backward == "even" else 2
    drawn = torch.rand((count, len(y), 1, 1, 1), dtype=torch.float32, device=y.device).to(y.dtype)
    return drawn[0], torch.full_like(drawn[0], 0.5) if backward == "even" else drawn[1]
