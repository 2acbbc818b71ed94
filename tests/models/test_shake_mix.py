import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from senet import insert
from senet.models import shake_mix
from senet.models.shake_mix import ShakeShakeMix
from tests.helpers import assert_close

IMAGES = 20_000


def maps(images: int, **options: Any) -> tuple[Tensor, Tensor]:
    y1, y2 = torch.randn(2, images, 3, 4, 5, **options)
    return y1.requires_grad_(), y2.requires_grad_()


def gradients(out: Tensor, g: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, maps, g)


@pytest.mark.parametrize("backward", ["shake", "even"])
def test_forward_takes_alpha_and_backward_beta(backward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.rand(2, 6, 1, 1, 1, dtype=torch.float64)
    alpha, beta = shares
    drawn = []

    def rand(shape: tuple[int, ...], **options: object) -> Tensor:
        drawn.append(shape)
        return shares[: shape[0]]

    monkeypatch.setattr(torch, "rand", rand)
    y1, y2 = maps(6, dtype=torch.float64)
    out = ShakeShakeMix(3, backward)(y1, y2)
    assert_close(out, alpha * y1 + (1 - alpha) * y2)
    g = torch.randn(6, 3, 4, 5, dtype=torch.float64)
    ways = gradients(out, g, y1, y2)
    share = beta if backward == "shake" else torch.full_like(beta, 0.5)
    assert_close(ways[0], share * g)
    assert_close(ways[1], (1 - share) * g)
    assert drawn == [(2 if backward == "shake" else 1, 6, 1, 1, 1)]


@pytest.mark.parametrize("backward", ["shake", "even"])
def test_shares_are_uniform_and_apart_from_each_other(backward: str) -> None:
    """Of ones and zeros the mix is alpha, and the gradient of the first is beta: the same all over an image."""
    y1, y2 = (torch.full((IMAGES, 2, 1, 2), value, requires_grad=True) for value in (1.0, 0.0))
    out = ShakeShakeMix(2, backward)(y1, y2)
    first, second = gradients(out, torch.ones_like(out), y1, y2)
    assert_close(first + second, torch.ones_like(out), 1e-6)
    alpha, beta = (x[:, 0, 0, 0].detach().double() for x in (out, first))
    for values, share in ((out, alpha), (first, beta)):
        assert torch.equal(values.double(), share[:, None, None, None].expand(IMAGES, 2, 1, 2))
    shares = [alpha, beta] if backward == "shake" else [alpha]
    for share in shares:
        assert 0 <= float(share.min()) < 0.001
        assert 0.999 < float(share.max()) <= 1
        # Within five standard errors: the mean, the variance, and the next image's share.
        assert float(share.mean()) == pytest.approx(1 / 2, abs=5 * (1 / 12 / IMAGES) ** 0.5)
        assert float(share.var()) == pytest.approx(1 / 12, abs=5 * (1 / 180 / IMAGES) ** 0.5)
        assert abs(correlation(share[1:], share[:-1])) < 5 / IMAGES**0.5
    if backward == "shake":
        assert abs(correlation(alpha, beta)) < 5 / IMAGES**0.5
    else:
        assert set(beta.tolist()) == {0.5}


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


def test_draws_from_pytorchs_generator_and_only_in_training() -> None:
    mix, (y1, y2) = ShakeShakeMix(3), maps(4)
    torch.manual_seed(3)
    first = mix(y1, y2)
    assert not torch.equal(mix(y1, y2), first)
    torch.manual_seed(3)
    assert torch.equal(mix(y1, y2), first)
    state = torch.get_rng_state()
    assert torch.equal(mix.eval()(y1, y2), (y1 + y2) / 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_has_the_gradient_of_the_mean() -> None:
    y1, y2 = maps(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(ShakeShakeMix(3).eval(), (y1, y2))


def test_one_seed_mixes_alike_in_every_precision() -> None:
    mix, (y1, y2) = ShakeShakeMix(3), maps(4, dtype=torch.float64)
    outs = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        outs.append(mix(y1.to(dtype), y2.to(dtype)))
        assert outs[-1].dtype == dtype
    assert_close(outs[1].double(), outs[0], 1e-6)
    assert_close(outs[2].double(), outs[0], 0.02)


@pytest.mark.parametrize("backward", ["shake", "even"])
def test_gradients_of_gradients_are_mixed_alike(backward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With beta as it is, the gradient of y1 is a linear function of g."""
    beta = torch.rand(2, 1, 1, 1, dtype=torch.float64)
    monkeypatch.setattr(shake_mix, "_draw", lambda y, backward: (beta, beta))
    y1, y2 = maps(2, dtype=torch.float64)
    mix = ShakeShakeMix(3, backward)
    assert torch.autograd.gradcheck(mix, (y1, y2))
    assert torch.autograd.gradgradcheck(mix, (y1, y2))


def test_under_transforms_of_torch_func(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, beta = torch.rand(2, 6, 1, 1, 1, dtype=torch.float64)
    monkeypatch.setattr(shake_mix, "_draw", lambda y, backward: (alpha, beta))
    y1, y2 = (y.detach() for y in maps(6, dtype=torch.float64))
    g = torch.randn_like(y1)
    pulled = torch.func.vjp(ShakeShakeMix(3), y1, y2)
    out, pull = pulled[0], pulled[1]
    assert_close(out, alpha * y1 + (1 - alpha) * y2)
    assert_close(pull(g)[0], beta * g)
    several = torch.func.vmap(pull)(torch.stack((g, 2 * g)))
    assert_close(several[1], torch.stack(((1 - beta) * g, 2 * (1 - beta) * g)))


def test_keeps_the_channels_last_format() -> None:
    y1, y2 = (y.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for y in maps(4))
    for mix in (ShakeShakeMix(3), ShakeShakeMix(3).eval()):
        out = mix(y1, y2)
        for x in (out, *gradients(out, torch.ones_like(out), y1, y2)):
            assert x.is_contiguous(memory_format=torch.channels_last)


def test_se_on_its_output_is_inserted_copied_and_pickled() -> None:
    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = ShakeShakeMix(16)

        def forward(self, y1: Tensor, y2: Tensor) -> Tensor:
            return self.mix(y1, y2)

    plain = Unit()
    unit = insert(copy.deepcopy(plain), at="mix", init="paper", reduction=4)
    y1, y2 = torch.randn(2, 3, 16, 4, 4)
    twins = [unit, copy.deepcopy(unit), pickle.loads(pickle.dumps(unit.mix))]
    for mode in (True, False):
        torch.manual_seed(3)
        mixed = plain.train(mode)(y1, y2)
        for twin in twins:
            torch.manual_seed(3)
            assert_close(twin.train(mode)(y1, y2), unit.mix.standard.se(mixed), 1e-6)


def test_an_unknown_backward_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown backward 'keep'.*shake, even"):
        ShakeShakeMix(3, "keep")


@pytest.mark.parametrize("backward", ["shake", "even"])
def test_compiles_whole_and_draws_the_same(backward: str, traced: None) -> None:
    mix, (y1, y2) = ShakeShakeMix(3, backward), maps(4)
    g = torch.randn_like(y1)
    results = []
    for call in (mix, torch.compile(mix, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(3)
        out = call(y1, y2)
        results.append((out, *gradients(out, g, y1, y2)))
    for eager, compiled in zip(*results, strict=True):
        assert_close(compiled, eager, 1e-6)
