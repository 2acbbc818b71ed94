"""A mask of the network's input, or of its encoding, is the network's output; other gates are attention."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from senet.insertion.sites import explain
from tests.insertion.traced.test_structures import Of, Residual, conv

IMAGE = torch.randn(1, 3, 16, 16)


def found(model: nn.Module) -> tuple[list[str], dict[str, str]]:
    finding = explain(model.eval(), example=IMAGE)
    return [site.name for site in finding.sites], {e.name: e.reason for e in finding.excluded}


@pytest.mark.parametrize("gate", [torch.sigmoid, lambda x: x.softmax(1)], ids=["sigmoid", "softmax"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_units_that_make_a_mask_of_the_image_have_sites(gate: Callable[[Tensor], Tensor], channels: int) -> None:
    parts = {"body": nn.Sequential(conv(3, 8), Residual(), Residual()), "last": nn.Conv2d(8, channels, 1)}
    names, excluded = found(Of(lambda m, x: gate(m.last(m.body(x))) * x, **parts))
    assert names == ["body.1.norm", "body.2.norm"]
    assert excluded["last"] == "head: no layer comes after it"


def test_the_units_that_make_masks_of_an_encoding_have_sites() -> None:
    """Conv-TasNet: a mask for each of two sources, and a decoder of one layer."""

    def forward(m: Any, x: Tensor) -> Tensor:
        code = m.encoder(x)
        masks = m.last(m.body(code)).sigmoid().unflatten(1, (2, 8))
        return m.decoder((masks * code.unsqueeze(1)).flatten(0, 1)).unflatten(0, (-1, 2))  # type: ignore[no-any-return]

    coders = {"encoder": nn.Conv2d(3, 8, 4, 2, bias=False), "decoder": nn.ConvTranspose2d(8, 3, 4, 2, bias=False)}
    body = nn.Sequential(conv(8, 8, 1), Residual(), Residual())
    names, excluded = found(Of(forward, **coders, body=body, last=nn.Conv2d(8, 16, 1)))
    assert names == ["body.1.norm", "body.2.norm"]
    assert set(excluded) == {"encoder", "body.0", "last", "decoder"}


def test_blocks_that_make_a_mask_have_sites() -> None:
    body = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 8), nn.Conv2d(8, 1, 1))
    assert found(Of(lambda m, x: m.body(x).sigmoid() * x, body=body))[0] == ["body.1.2", "body.2.2"]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_gate_within_the_network_is_attention(where: str) -> None:
    """After the stem, between units, and before the classifier."""
    body = nn.Sequential(Residual(), Residual(), nn.Conv2d(8, 1, 1))
    parts: dict[str, nn.Module] = {"one": Residual(), "two": Residual()}
    gate = Of(lambda m, x: m.body(x).sigmoid() * x, body=body)
    order = list(parts.items())
    order.insert({"first": 0, "middle": 1, "last": 2}[where], ("gate", gate))
    names, excluded = found(nn.Sequential(OrderedDict([("stem", conv(3, 8)), *order, ("head", nn.Conv2d(8, 2, 1))])))
    assert names == ["one.norm", "two.norm"]
    assert excluded["gate"] == "attention: its output only gates other maps"
