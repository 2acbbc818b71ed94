"""Windows of inserted SE, from the size of training images."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet import SqueezeExcitation, insert, set_window
from senet.insertion.sites import PLACEMENTS
from tests.helpers import assert_close, randomise
from tests.networks import FAMILIES


def windows(model: nn.Module) -> list[Any]:
    return [module.window for module in model.modules() if isinstance(module, SqueezeExcitation)]


def sizes_in_a_run(model: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """The maps of each block, in the order of modules."""
    seen: dict[nn.Module, tuple[int, ...]] = {}
    blocks = [module for module in model.modules() if isinstance(module, SqueezeExcitation)]
    handles = [
        se.register_forward_pre_hook(lambda module, args: seen.update({module: tuple(args[0].shape[2:])}))
        for se in blocks
    ]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return [seen[se] for se in blocks]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", ["ours basic", "ours pre-activation basic"])
def test_are_the_sizes_of_maps_in_training(family: str, placement: str) -> None:
    plain = randomise(FAMILIES[family]()).eval()
    model = insert(copy.deepcopy(plain), placement, init="paper", window=(16, 32))
    assert windows(model) == sizes_in_a_run(model, x := torch.randn(1, 3, 16, 32))
    whole = insert(copy.deepcopy(plain), placement, init="paper")
    assert windows(whole) == [None] * len(windows(model))
    whole.load_state_dict(model.state_dict())
    larger = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        assert torch.equal(model(x), whole(x))
        assert not torch.allclose(model(larger), whole(larger))
        windowed = model(larger)
    # The same, set afterwards, on a network that was trained without; and removed again.
    assert set_window(whole, (16, 32)) is whole
    with torch.no_grad():
        assert torch.equal(whole(larger), windowed)
    assert windows(set_window(whole)) == [None] * len(windows(model))


def test_identity_start_is_exact_on_larger_images() -> None:
    plain = randomise(FAMILIES["ours basic"]()).eval()
    model = insert(copy.deepcopy(plain), window=16)
    x = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
    assert torch.equal(model(x), plain(x))


def test_a_crop_far_from_its_borders_is_the_same_alone() -> None:
    """What windows are for: a block computes in a large image what it computed in a crop."""
    se = randomise(SqueezeExcitation(4, 2, window=9)).double().eval()
    u = torch.randn(1, 4, 30, 40, dtype=torch.float64)
    crop = u[..., 10:19, 20:29]
    assert_close(se(u)[..., 14, 24], se(crop)[..., 4, 4])


class TwoInputs(nn.Module):
    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.one, self.se = conv(3, 8, 3), SqueezeExcitation(8, 2)
        self.unused = SqueezeExcitation(8, 2)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.se(self.one(x)) * scale  # type: ignore[no-any-return]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_example_in_place_of_a_size(axes: int) -> None:
    model = TwoInputs(axes)
    set_window(model, example=(torch.randn(2, 3, *[7, 8, 9][:axes]), torch.ones(())))
    assert windows(model) == [(5, 6, 7)[:axes], None]
    set_window(model, example={"x": torch.randn(2, 3, *[5] * axes), "scale": torch.ones(())})
    assert model.se.window == (3,) * axes


def test_own_blocks_of_one_and_three_axes() -> None:
    signal = nn.Sequential(nn.Conv1d(3, 8, 3), SqueezeExcitation(8, 2))
    volume = nn.Sequential(nn.Conv3d(3, 8, 3), SqueezeExcitation(8, 2))
    assert windows(set_window(signal, 16)) == [(14,)]
    assert windows(set_window(volume, (8, 9, 10))) == [(6, 7, 8)]


def test_options_of_create_model() -> None:
    model = senet.create_model("se_resnet20", window=32)
    assert set(windows(model)) == {(32, 32), (16, 16), (8, 8)}
    with pytest.raises(ValueError, match="window= is an option of SE, but 'resnet20' is plain"):
        senet.create_model("resnet20", window=32)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(3, 4, 1), SqueezeExcitation(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        return self.se(x), self.se(x[..., ::2, ::2])


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (FAMILIES["ours basic"], {"size": 16}, ValueError, "has no SE of senet .*add SE with senet.insert"),
        (lambda: nn.Sequential(SqueezeExcitation(3, 1, squeeze="none")), {}, ValueError, "squeezes over space"),
        (Shared, {"size": 16}, ValueError, "'se' runs on maps of several sizes, 8x8 and 16x16, in one forward pass"),
        (Shared, {"size": (16,)}, ValueError, r"must be 2 lengths of 1 or more, .* got \(16,\)"),
        (Shared, {"size": (16, 0)}, ValueError, r"must be 2 lengths of 1 or more, .* got \(16, 0\)"),
        (Shared, {"size": (16, 8.0)}, TypeError, r"must be integers, such as 224 .* got \(16, 8.0\)"),
        (Shared, {"size": "16"}, TypeError, "must be integers, such as 224"),
        (Shared, {"size": 8, "example": torch.zeros(1, 3, 8, 8)}, ValueError, "size= and example= are both given"),
        (Shared, {"example": torch.zeros(1, 4, 8, 8)}, ValueError, "Shared does not run on example"),
        (Shared, {"example": "x"}, TypeError, "example must be a tensor, a tuple"),
        (
            TwoInputs,
            {"size": 16},
            ValueError,
            r"did not run on an image \(1, 3, 16, 16\) of the training size \(for each of 2 inputs\): .*give example=",
        ),
    ],
)
def test_refused(build: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = build()
    before = windows(model)
    with pytest.raises(error, match=message):
        set_window(model, **options)
    assert windows(model) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": 0}, ValueError, "2 lengths of 1 or more, the size of training images, got 0"),
        ({"window": (8, 8, 8)}, ValueError, "2 lengths of 1 or more"),
        ({"window": 16, "squeeze": "none"}, ValueError, "squeeze=\"none\" has none; use 'avg' or 'max'"),
    ],
)
def test_insert_refuses_and_changes_nothing(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = FAMILIES["ours basic"]()
    before = repr(model)
    with pytest.raises(error, match=message):
        insert(model, **options)
    assert repr(model) == before


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8))

    def forward(self, *, image: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(image * mask[:, None]))
        return out


def test_windows_of_a_network_that_runs_on_an_example_only() -> None:
    example = {"image": torch.rand(1, 3, 16, 24), "mask": torch.ones(1, 16, 24)}
    model = insert(ByKeyword(), at=["a.1", "b.1"], window=(64, 32), example=example)
    assert windows(model) == [(32, 16), (16, 8)]
    with pytest.raises(ValueError, match=r"image \(1, 3, 64, 64\) of the training size: .*; give example=, an input"):
        insert(ByKeyword(), at="a.1", window=64)
