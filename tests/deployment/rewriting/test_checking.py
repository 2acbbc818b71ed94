"""Differences between a rewritten network and its original are errors, wherever the network returns or keeps maps."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet

X = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution and a batch norm; `end` returns what it makes of both maps."""

    def __init__(self, end: Callable[["Net", Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        nn.init.uniform_(self.bn.running_var, 0.2, 3)
        self.register_buffer("feature", torch.zeros(1))
        self.end = end

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.end(self, y, self.bn(y))


class Attributes(dict[str, Any]):
    """As the classes of libraries whose keys are attributes."""

    __getattr__ = dict.__getitem__


@dataclass(slots=True)
class Slots:
    feature: Tensor
    y: Tensor


class Result:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __call__(self) -> Any:
        return self.y  # type: ignore[attr-defined]


def kept(model: Net, y: Tensor, z: Tensor) -> Tensor:
    model.feature = y
    return z.relu()


WAYS: dict[str, Callable[[Net, Tensor, Tensor], Any]] = {
    "object with labels": lambda _, y, z: Result(feature=y, label=z.argmax(1)),
    "mapping": lambda _, y, z: Attributes(feature=y, y=z.relu()),
    "slots": lambda _, y, z: Slots(y, z.relu()),
    "nested": lambda _, y, z: SimpleNamespace(a=SimpleNamespace(b=[SimpleNamespace(c=y)]), y=z),
    "buffer": kept,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_map_that_is_not_computed_any_more_is_found(way: str) -> None:
    with pytest.raises(ValueError, match="cannot be rewritten: the result would differ by"):
        senet.deploy(Net(WAYS[way]).double().eval(), X)


class Listed(nn.Module):
    """A convolution that is called through a list, which a copy does not replace."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.bn, self.end = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), end
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        self.convs = [self.conv]

    def forward(self, x: Tensor) -> Any:
        return self.end(self.bn(self.convs[0](x)))


@pytest.mark.parametrize(
    "end",
    [
        lambda y: (y.softmax(1), y.argmax(1)),
        torch.fft.fft2,
        lambda y: y.mean((2, 3)).masked_fill(torch.eye(2, 8) > 0, -torch.inf),
    ],
    ids=["labels", "complex", "infinity"],
)
def test_labels_complex_numbers_and_infinity_hide_no_difference(end: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match="cannot be rewritten: the result would differ by"):
        senet.deploy(Listed(end).double().eval(), X)


def test_labels_and_infinity_of_an_equal_network_are_no_difference() -> None:
    model = Net(lambda _, y, z: (z.relu(), z.argmax(1), z.masked_fill(z > 0, -torch.inf))).double().eval()
    new = senet.deploy(model, X)
    assert any(row.action == "folded" for row in new.report.rows)
    for one, other in zip(new(X), model(X), strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_norm_that_looks_at_other_images_is_left() -> None:
    class OfTheBatch(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if len(x) == 1 else (x - x.mean((0, 2, 3), keepdim=True)) * 2

    model = nn.Sequential(nn.Conv2d(3, 8, 3), OfTheBatch(8)).double().eval()
    new = senet.deploy(model, X[:1])
    torch.testing.assert_close(new(X), model(X))
