"""Differences between a rewritten network and its original are errors, wherever the network returns or keeps maps."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import senet
from senet.deployment.rewriting import Forms, rewrite
from senet.deployment.rewriting.checking import check_same

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
    "function": lambda _, y, z: (lambda: y, z.relu()),
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


class ActiveDropout(nn.Dropout):
    """Monte Carlo dropout: random in evaluation, too."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.p, training=True)


class OwnDropout(nn.Dropout):
    """A subclass that changes nothing."""


def test_dropout_of_another_forward_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), ActiveDropout(), OwnDropout()).double().eval()
    new = senet.deploy(model, X)
    assert [row.action for row in new.report.rows] == ["folded", "removed"]
    assert not torch.equal(new(X), new(X))


class Boxes(nn.Module):
    """Boxes in pixels and small scores in one tensor, whose last layers are called through a list."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.boxes, self.scores, self.bn, self.dim = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), dim
        self.layers = [self.scores]

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.boxes(x).sigmoid() * 640, (self.bn(self.layers[0](x)) - 9).sigmoid()], 1)
        return y.transpose(1, self.dim)


@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_difference_in_small_channels_is_found(dim: int, dtype: torch.dtype) -> None:
    model = Boxes(dim).eval()
    nn.init.constant_(model.bn.running_mean, 1)
    with pytest.raises(ValueError, match="of the largest value in an output or a channel"):
        senet.deploy(model.to(dtype), X.to(dtype))


def cast(x: Tensor) -> Tensor:
    return x.float()


def refuse(x: Tensor) -> Tensor:
    if x.dtype != torch.float32:
        raise TypeError("float32 only")
    return x


class OfFloat32(nn.Module):
    """Its code runs in float32 alone; part of its output may come from a layer that is called through a list.

    Args:
        take: code that casts or refuses its input.
        part: of the output; 0 calls the layer itself.
        shift: added and subtracted again, which rounds to the precision of the code.
    """

    def __init__(self, take: Callable[[Tensor], Tensor], part: float, shift: float = 0.0) -> None:
        super().__init__()
        self.conv, self.bn, self.take, self.part = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), take, part
        self.shift = shift
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        self.convs = [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        x = self.take(x)
        conv = self.convs[0] if self.part else self.conv
        return x[:, :1, 2:, 2:] + (self.part or 1) * self.bn(conv(x)) + self.shift - self.shift


@pytest.mark.parametrize("take", [cast, refuse])
def test_code_of_one_precision_is_compared_as_strictly(take: Callable[[Tensor], Tensor]) -> None:
    assert senet.deploy(OfFloat32(take, 0).eval(), X.float()).report.of("folded")
    with pytest.raises(ValueError, match="the result would differ by"):
        senet.deploy(OfFloat32(take, 1e-2).eval(), X.float())


def test_code_that_casts_is_compared_in_float64() -> None:
    """In float32, rounding to 3e-5 would hide a difference of 2e-4."""
    model = OfFloat32(cast, 0, shift=500).eval()
    other = copy.deepcopy(model)
    other.bn.bias.data += 2e-4
    check_same(model, copy.deepcopy(model), X.float())
    with pytest.raises(ValueError, match="the result would differ by"):
        check_same(model, other, X.float())


def test_a_single_logit_near_zero_is_no_difference() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        model[1].bias[::2] -= model(X.float())[0, ::2]  # logits that are rounding errors for the first image
    assert senet.deploy(model, X[:1].float()).report.of("folded")


def test_a_fold_that_overflows_half_precision_is_left() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    nn.init.constant_(model[1].running_var, 1e-7)
    nn.init.constant_(model[1].weight, 5e3)
    new = senet.deploy(model.half().eval(), (1e-4 * X).half())
    assert "would exceed the range of float16" in new.report.of("left")[0].detail
    assert new((1e-4 * X).half()).isfinite().all()


class Overwriting(nn.Module):
    """SE whose input is changed in place after it ran."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.conv, self.se, self.last = nn.Conv2d(3, 8, 3), senet.SqueezeExcitation(8, 2), nn.Conv2d(8, 4, 1)
        if bias:  # gates of exactly 1
            nn.init.zeros_(self.se.fc2.weight)
            nn.init.constant_(self.se.fc2.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        z = self.se(y)
        y.mul_(3)
        return self.last(z) + y.mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [0, 60])
def test_se_whose_input_changes_in_place_keeps_it(bias: float) -> None:
    model = Overwriting(bias).double().eval()
    new, _ = rewrite(model, X, Forms(weights="next"))
    torch.testing.assert_close(new(X), model(X))


class NearZero(nn.Module):
    """A sum near zero of two channels, in which opposite changes of both weights cancel out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, affine=False)
        nn.init.ones_(self.conv.weight)
        self.bn.running_mean.copy_(torch.tensor([0.3, 1.6999]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).sum(1, keepdim=True)  # type: ignore[no-any-return]


def test_a_change_of_weights_that_cancels_out_does_not_decide() -> None:
    """The first of several random changes of the weights is of that kind, and shows no rounding at all."""
    first, second = torch.randint(0, 2, (2,), generator=torch.Generator().manual_seed(0))
    assert first != second
    assert senet.deploy(NearZero().eval(), torch.ones(1, 1, 4, 4)).report.of("folded")


NAN: dict[str, Callable[[Net, Tensor, Tensor], Any]] = {
    "alone": lambda _, y, z: z * torch.nan,
    "one of two": lambda _, y, z: (z, z.sum((2, 3)) * torch.nan),
}


@pytest.mark.parametrize("case", NAN)
def test_an_output_of_nan_only_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match="Net cannot be rewritten: an output has NaN only.*load other weights"):
        senet.deploy(Net(NAN[case]).eval(), X.float())


def test_a_network_that_amplifies_rounding_is_refused_for_that() -> None:
    model = Net(lambda _, y, z: (1e7 * z).sin()).eval()
    with pytest.raises(ValueError, match="a unit in the last place of its weights changes its result by"):
        senet.deploy(model, X.float())
