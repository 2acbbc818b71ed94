"""The search of a learning rate: the trainer's steps on a copy, and what the curve says."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import senet
from senet.data import open_loader
from senet.recipes import load_recipe
from senet.training import LRCurve, find_lr, trainer
from senet.utils.lr_figure import draw_lr_curve
from tests.helpers import assert_close
from tests.training.runs import digits

RECIPE = replace(load_recipe("digits"), batch=8, base_batch_size=4, workers=0)


def test_steps_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    set_lr = trainer.set_lr

    def noted(*args: Any) -> float:
        used.append(set_lr(*args))
        return used[-1]

    monkeypatch.setattr(trainer, "set_lr", noted)
    torch.manual_seed(0)
    model = senet.create_model("se_resnet20", num_classes=3)
    before, data = copy.deepcopy(model), digits()
    found = find_lr(model, data, RECIPE, steps=20)
    for key, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_allclose(found.lrs, (0.1 * np.logspace(-4, 2, 20))[: len(found.lrs)])
    np.testing.assert_allclose(used[: len(found.lrs)], 2 * found.lrs)  # scaled by the batch
    loader = open_loader(data[0], RECIPE.preprocessing, RECIPE.augmentation, batch=8, seed=0, workers=0)
    pixels, labels = next(iter(loader.epoch(0)))
    mean, std = (255 * torch.tensor(value)[:, None, None] for value in (RECIPE.mean, RECIPE.std))
    loss = F.cross_entropy(before.train()((pixels - mean) / std), labels)
    assert_close(torch.tensor(found.losses[0]), loss.detach().double(), 1e-5)


def test_the_search_ends_where_the_loss_diverges() -> None:
    found = find_lr("se_resnet20", digits(), replace(RECIPE, lr=1e6), steps=40)
    assert found.diverged
    assert len(found.lrs) < 40
    assert np.isfinite(found.losses).all()


def curve(losses: Any) -> LRCurve:
    return LRCurve(np.logspace(-4, 2, len(losses)), np.asarray(losses, dtype=float), 0.1, False)


def test_the_middle_of_the_fall_is_suggested() -> None:
    at = np.linspace(-4, 2, 121)
    fall = 2 / (1 + np.exp(4 * (at + 1))) + np.maximum(0, at - 0.5) ** 2
    assert np.log10(curve(fall).suggestion) == pytest.approx(-1, abs=0.06)
    assert np.log10(curve(fall).lowest) == pytest.approx(0.6, abs=0.25)
    noise = np.random.default_rng(0).standard_normal((20, 121))
    for one in noise:
        assert np.log10(curve(fall + 0.3 * one).suggestion) == pytest.approx(-1, abs=0.35)
        assert curve(1 + 0.3 * one + np.maximum(0, at + 1) ** 2).suggestion is None
    assert curve(np.arange(30.0)).suggestion is None
    assert curve(fall).smoothed[60] == pytest.approx(fall[56:65].mean())


def test_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="steps must be 20 or more, got 19"):
        find_lr("se_resnet20", digits(), RECIPE, steps=19)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="runs in one process: start it without torchrun"):
        find_lr("se_resnet20", digits(), RECIPE)


def test_figure(tmp_path: Path) -> None:
    found = curve([2.0] * 10 + [1.0] * 10 + [50.0])
    lines = (found.lrs, found.losses, found.smoothed, found.level)
    draw_lr_curve(*lines, tmp_path / "lr.png", "a & b", suggestion=None, recipe_lr=0.1)
    with Image.open(tmp_path / "lr.png") as image:
        assert image.size[0] > 900
