"""Heads get no site: a last convolution whose output is activated, resized, added to the image or to other scores."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.insertion.sites import explain
from tests.insertion.traced.test_structures import Of, Residual, conv


def plain(channels: int = 3, *, last: int = 1) -> nn.Sequential:
    """A stem, two blocks and a bare convolution."""
    return nn.Sequential(conv(channels, 8), conv(8, 8), conv(8, 8), nn.Conv2d(8, last, 3, padding=1))


def names(model: nn.Module) -> list[str]:
    return [site.name for site in explain(model.eval(), example=torch.randn(1, 3, 32, 32)).sites]


ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "returned": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: x.softmax(1),
    "clamp": lambda x: x.clamp(0, 1),
    "resize": lambda x: F.interpolate(x, scale_factor=2),
    "scale": lambda x: x * 0.5 + 0.5,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_last_convolution_whose_output_is_mapped_is_a_head(end: str) -> None:
    model = Of(lambda m, x: ENDS[end](m.net(x)), net=plain())
    assert names(model) == ["net.1.2", "net.2.2"]


@pytest.mark.parametrize(
    "forward",
    [lambda m, x: x - m.net(x), lambda m, x: (x + m.net(x)).clamp(0, 1), lambda m, x: m.net(x).add_(x)],
    ids=["minus", "plus", "in place"],
)
def test_a_correction_of_the_image_is_no_residual_unit(forward: Callable[..., Tensor]) -> None:
    assert names(Of(forward, net=plain(last=3))) == ["net.1.2", "net.2.2"]


def test_scores_of_several_heads_are_no_residual_unit() -> None:
    body = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 8))
    heads = {"one": nn.Conv2d(8, 5, 1), "other": nn.Conv2d(8, 5, 3, padding=1)}

    def forward(m: Any, x: Tensor) -> Tensor:
        features = m.body(x)
        return m.one(features) + m.other(features)

    model = Of(forward, body=body, **heads)
    assert names(model) == ["body.1.2", "body.2.2"]


def test_a_refinement_of_scores_is_no_residual_unit() -> None:
    refine = nn.Sequential(conv(2, 8), nn.Conv2d(8, 2, 3, padding=1))

    def forward(m: Any, x: Tensor) -> Tensor:
        scores = m.score(m.body(x))
        return scores + m.refine(scores)

    model = Of(
        forward,
        body=nn.Sequential(conv(3, 8), Residual(), Residual()),
        score=nn.Conv2d(8, 2, 1),
        refine=refine,
    )
    assert names(model) == ["body.1.norm", "body.2.norm"]


class PreActivation(nn.Module):
    """norm, ReLU, convolution: the branch ends in a bare convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.relu(self.norm(x)))


def test_the_last_unit_of_features_is_one_like_those_before_it() -> None:
    model = nn.Sequential(conv(3, 8), PreActivation(), PreActivation())
    assert names(model) == ["1.conv", "2.conv"]
