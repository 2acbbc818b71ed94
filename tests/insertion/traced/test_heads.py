"""Heads get no site: a last convolution whose output is activated, resized, added to the image or to other scores."""

from collections.abc import Callable
from itertools import pairwise
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
    "unit length": F.normalize,
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


def test_a_functional_network_that_returns_pooled_features_ends_in_a_unit() -> None:
    layers = {f"conv{n}": nn.Conv2d(8, 8, 3, padding=1) for n in range(4)}

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.conv1(torch.relu(m.conv0(x)))
        x = x + m.conv3(torch.relu(m.conv2(x)))
        return x.mean((2, 3))

    assert names(Of(forward, stem=conv(3, 8), **layers)) == ["conv1", "conv3"]


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


class Stages(nn.Module):
    """A VGG-like backbone with scores of three stages, as in FCN and HED."""

    def __init__(self, fuse: nn.Module | None = None) -> None:
        super().__init__()
        widths = (3, 8, 8, 8)
        self.stages = nn.ModuleList(nn.Sequential(conv(i, o), conv(o, o)) for i, o in pairwise(widths))
        self.scores = nn.ModuleList(nn.Conv2d(o, 2, 1) for o in widths[1:])
        self.fuse = fuse

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        scores = []
        for number, (stage, score) in enumerate(zip(self.stages, self.scores, strict=True)):
            x = stage(F.max_pool2d(x, 2) if number else x)
            scores.append(score(x))
        if self.fuse is None:  # from the smallest to the largest, as in FCN
            total = scores.pop()
            while scores:
                total = F.interpolate(total, scale_factor=2.0) + scores.pop()
            return total
        sides = [F.interpolate(score, size=scores[0].shape[2:]) for score in scores]
        return [side.sigmoid() for side in [*sides, self.fuse(torch.cat(sides, 1))]]


@pytest.mark.parametrize("fuse", [None, nn.Conv2d(6, 2, 1)], ids=["summed", "fused"])
def test_scores_of_several_stages_have_no_site(fuse: nn.Module | None) -> None:
    places = ["stages.0.1.2", "stages.1.0.2", "stages.1.1.2", "stages.2.0.2", "stages.2.1.2"]
    assert names(Stages(fuse)) == places


def test_scores_of_two_depths_that_are_resized_after_their_sum_have_no_site() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.first(x)
        return F.interpolate(m.one(y) + m.other(m.second(y)), scale_factor=2.0)

    body = {"first": nn.Sequential(conv(3, 8), conv(8, 8)), "second": nn.Sequential(conv(8, 8), conv(8, 8))}
    model = Of(forward, **body, one=nn.Conv2d(8, 2, 1), other=nn.Conv2d(8, 2, 1))
    assert names(model) == ["first.1.2", "second.0.2", "second.1.2"]


def test_scores_that_a_later_head_reads_have_no_site() -> None:
    """OpenPose: the layers of a head and its scores are in one sequence."""

    def forward(m: Any, x: Tensor) -> list[Tensor]:
        x = m.body(x)
        first = m.first(x)
        return [first, m.second(torch.cat([x, first], 1))]

    heads = {name: nn.Sequential(conv(i, 8), nn.Conv2d(8, 2, 1)) for name, i in (("first", 8), ("second", 10))}
    model = Of(forward, body=nn.Sequential(conv(3, 8), conv(8, 8)), **heads)
    assert names(model) == ["body.1.2", "first.0.2", "second.0.2"]


def test_a_last_layer_with_a_norm_that_is_added_to_the_input_is_a_head() -> None:
    """The postnet of Tacotron 2 corrects a spectrogram."""
    layers = [conv(3, 8), conv(8, 8), conv(8, 8), conv(8, 8), nn.Sequential(*conv(8, 3)[:2])]
    model = Of(lambda m, x: x + m.net(x), net=nn.Sequential(*layers))
    assert names(model) == ["net.1.2", "net.2.2", "net.3.2"]


def test_a_unit_of_the_stem_has_that_reason() -> None:
    def down(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(m.a(x)) + m.skip(x)

    first = Of(down, a=conv(8, 8, 3, 2), b=nn.Sequential(*conv(8, 8)[:2]), skip=nn.Conv2d(8, 8, 1, 2))
    found = explain(nn.Sequential(conv(3, 8), first, Residual(), Residual(), nn.Conv2d(8, 1, 1)).eval())
    assert [site.name for site in found.sites] == ["2.norm", "3.norm"]
    reasons = {other.name: other.reason for other in found.excluded}
    assert reasons["1"] == "stem: the only unit of its kind, before repeated ones"


class Unit(nn.Module):
    """A residual unit with a projection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(inputs, outputs), *conv(outputs, outputs)[:2])
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


@pytest.mark.parametrize("end", ["returned", "sigmoid", "resize"])
def test_a_last_unit_that_makes_the_image_is_a_head(end: str) -> None:
    model = Of(lambda m, x: ENDS[end](m.net(x)), net=nn.Sequential(conv(3, 8), Unit(8, 8), Unit(8, 8), Unit(8, 3)))
    assert names(model) == ["net.1.body.4", "net.2.body.4"]
    reasons = {other.name: other.reason for other in explain(model, example=torch.randn(1, 3, 32, 32)).excluded}
    assert reasons["net.3"] == "head: no layer comes after it"


def test_a_last_unit_that_is_no_narrower_or_returned_with_others_is_no_head() -> None:
    units = {"one": Unit(8, 8), "two": Unit(8, 8), "last": Unit(8, 4)}
    assert len(names(nn.Sequential(conv(3, 8), Unit(8, 4), Unit(4, 4)))) == 2
    assert len(names(Of(lambda m, x: [x := m.two(m.one(m.stem(x))), m.last(x)], stem=conv(3, 8), **units))) == 3


@pytest.mark.parametrize("way", ["scores", "activated", "normed"])
def test_scores_that_are_concatenated_with_their_maps_are_no_unit(way: str) -> None:
    """The heatmaps of a pose network, which its next stage refines; layers that a norm reads are a unit."""

    def heads(m: Any, x: Tensor) -> Tensor:
        return torch.cat([x, m.one(x), m.other(x)], 1)

    def head(outputs: int) -> nn.Sequential:
        return nn.Sequential(*conv(8, 8), *(conv(8, outputs) if way == "activated" else [nn.Conv2d(8, outputs, 1)]))

    first = Of(heads, one=head(2), other=head(3))
    after = nn.Sequential(*([nn.BatchNorm2d(13), nn.ReLU()] if way == "normed" else []), conv(13, 8))
    model = nn.Sequential(conv(3, 8), Residual(), Residual(), first, after, Residual(), nn.Conv2d(8, 2, 1))
    assert names(model) == ["1.norm", "2.norm", *([] if way == "scores" else ["3"]), "5.norm"]


def test_units_with_an_activation_in_code_are_no_scores() -> None:
    """A pre-activation unit with a projection; its activation is a maximum, as in filter response normalization."""

    class Maximum(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(inputs, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 1)
            self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
            self.floor = nn.Parameter(torch.zeros(inputs, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.maximum(x, self.floor)
            skip = x if self.skip is None else self.skip(y)
            return self.second(torch.maximum(self.first(y), self.floor)) + skip  # type: ignore[no-any-return]

    layers = [Maximum(8, 16), Maximum(16, 16), Maximum(16, 16), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 2, 1)]
    assert names(nn.Sequential(conv(3, 8), *layers)) == ["1.second", "2.second", "3.second"]
