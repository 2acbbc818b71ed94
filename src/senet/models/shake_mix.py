"""The random mix of two branches that gives Shake-Shake its name."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from senet.utils.choices import check_choice

__all__ = ["Backward", "ShakeShakeMix"]

Backward = Literal["shake", "even"]


class ShakeShakeMix(nn.Module):
    """Two maps mixed at random, an image at a time; in evaluation their mean (Gastaldi 2017, section 1).

    In training the output is `alpha y1 + (1 - alpha) y2`, and the gradients are `beta g` and `(1 - beta) g`, with an
    alpha for each image from the uniform distribution over [0, 1), and a beta of its own.

    Args:
        out_channels: of the maps.
        backward: "shake", beta is drawn as alpha is, apart from it; or "even", beta is 1/2.
    """

    def __init__(self, out_channels: int, backward: str = "shake") -> None:
        super().__init__()
        check_choice("backward", backward, Backward)
        self.out_channels = out_channels
        self.backward = backward

    def forward(self, y1: Float[Tensor, "N C H W"], y2: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """(N, C, H, W) twice -> (N, C, H, W)."""
        return _mix(self, y1, y2)


def _mix(module: ShakeShakeMix, y1: Tensor, y2: Tensor) -> Tensor:
    """Return a leaf for torch.fx that takes the module: a trace then follows `train()` and `eval()`."""
    if not module.training:
        return (y1 + y2) * 0.5
    alpha, beta = _draw(y1, module.backward)
    return _Mix.apply(y1, y2, alpha, beta)  # type: ignore[no-any-return]


torch.fx.wrap("_mix")


def _draw(y: Tensor, backward: str) -> tuple[Tensor, Tensor]:
    """Alpha and beta, (N, 1, 1, 1) each, of y's dtype.

    Both are drawn in forward, in one call: a unit that is recomputed in backward then draws the same values, and no
    compiler can reorder draws. In float32, so that a seed gives the same values for every dtype of y.
    """
    count = 1 if backward == "even" else 2
    drawn = torch.rand((count, len(y), 1, 1, 1), dtype=torch.float32, device=y.device).to(y.dtype)
    return drawn[0], torch.full_like(drawn[0], 0.5) if backward == "even" else drawn[1]


class _Mix(torch.autograd.Function):
    """`alpha y1 + (1 - alpha) y2`, with gradients as if beta were alpha."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y1: Tensor, y2: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        return torch.lerp(y2, y1, alpha)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return beta * gradients[0], (1 - beta) * gradients[0], None, None
