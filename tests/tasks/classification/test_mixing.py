from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup
from torch import Tensor

from senet.tasks.classification.mixing import Mixing
from tests.helpers import assert_close
from tests.training.small import small_recipe

KINDS: dict[str, dict[str, float]] = {
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1},
}
KIND = pytest.mark.parametrize("kind", KINDS)


def batch(images: int) -> tuple[Tensor, Tensor]:
    return torch.randn(images, 3, 9, 9), torch.randint(5, (images,))


def mix(kind: str, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return Mixing(small_recipe(**KINDS[kind]), 5)(images.clone(), labels, seed)


@KIND
@pytest.mark.parametrize("seed", [0, 1, 2, 2**32 + 3, 2**63 - 1])
def test_mixing_is_timms(kind: str, seed: int) -> None:
    images, labels = batch(6)
    options = KINDS[kind]
    timms = Mixup(
        options.get("mixup", 0.0),
        options.get("cutmix", 0.0),
        label_smoothing=options.get("label_smoothing", 0.0),
        num_classes=5,
    )
    mixed, targets = mix(kind, images, labels, seed)
    np.random.seed(seed % 2**32)
    expected, expected_targets = timms(images.clone(), labels)
    assert torch.equal(mixed, expected)
    assert torch.equal(targets, expected_targets)


def test_mixup_is_its_equation() -> None:
    """Arxiv 1710.09412: lambda of one image and 1 - lambda of another, of pixels and of targets alike."""
    images, labels = batch(4)
    labels = torch.tensor([0, 1, 2, 3])
    mixed, targets = mix("mixup", images, labels, 7)
    share = float(targets[0, 0])
    assert 0 < share < 1
    assert_close(mixed, share * images + (1 - share) * images.flip(0), 1e-6)
    one_hot = torch.eye(5)[labels]
    assert_close(targets, share * one_hot + (1 - share) * one_hot.flip(0), 1e-6)


def test_cutmix_is_its_equation() -> None:
    """Arxiv 1905.04899: a rectangle of another image, and targets by area."""
    labels = torch.tensor([0, 1, 2, 3])
    seen = set()
    for seed in range(20):
        images, _ = batch(4)
        mixed, targets = mix("cutmix", images, labels, seed)
        own, other = (mixed == images).all(1), (mixed == images.flip(0)).all(1)
        assert bool((own ^ other).all())
        rows, columns = other[0].any(1), other[0].any(0)
        assert torch.equal(other, (rows[:, None] & columns).expand_as(other))
        assert float(targets[0, 3]) == pytest.approx(float(other[0].float().mean()), abs=1e-6)
        seen.add(int(other[0].sum()))
    assert len(seen) > 5


@KIND
@pytest.mark.parametrize("images", [1, 2, 5, 8])
def test_targets_are_shares(kind: str, images: int) -> None:
    pixels, labels = batch(images)
    for seed in range(10):
        _, targets = mix(kind, pixels, labels, seed)
        assert targets.shape == (images, 5)
        assert_close(targets.sum(1), torch.ones(images), 1e-6)
        assert float(targets.min()) >= 0


def test_an_odd_image_stays_as_it_is() -> None:
    images, labels = batch(5)
    mixed, targets = mix("both", images, labels, 3)
    even, even_targets = mix("both", images[:4], labels[:4], 3)
    assert torch.equal(mixed, torch.cat((even, images[4:])))
    # Smoothed by 0.1 over five classes, as PyTorch's cross entropy has it.
    alone = torch.full((5,), 0.02)
    alone[labels[4]] = 0.92
    assert_close(targets, torch.cat((even_targets, alone[None])), 1e-6)


def test_smoothed_targets_are_pytorchs_label_smoothing() -> None:
    _, labels = batch(1)
    logits = torch.randn(1, 5)
    _, targets = mix("both", torch.zeros(1, 3, 9, 9), labels, 0)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    assert_close(loss, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1), 1e-6)


def test_both_are_drawn_about_as_often() -> None:
    images, labels = batch(2)
    mixed = [mix("both", images, labels, seed)[0] for seed in range(60)]
    cut = sum(bool(((m == images) | (m == images.flip(0))).all()) for m in mixed)
    assert 15 < cut < 45


@KIND
def test_a_seed_says_everything_and_numpys_own_numbers_stay(kind: str) -> None:
    images, labels = batch(6)
    outcomes = []
    for before in (1, 2):
        np.random.seed(before)
        state: Any = np.random.get_state()
        outcomes.append(mix(kind, images, labels, 5))
        after: Any = np.random.get_state()
        assert all(np.array_equal(one, other) for one, other in zip(state, after, strict=True))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert not torch.equal(outcomes[0][0], mix(kind, images, labels, 6)[0])


def test_numpys_numbers_stay_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        np.random.rand()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Mixup, "__call__", fail)
    before: Any = np.random.get_state()
    with pytest.raises(RuntimeError, match="out of memory"):
        mix("mixup", *batch(2), 0)
    after: Any = np.random.get_state()
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
