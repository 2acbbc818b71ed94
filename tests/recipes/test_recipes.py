"""The recipes that senet has, against the numbers of the papers that they are from."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

import senet
from senet.data import Augmentation, open_data
from senet.models import create_model
from senet.recipes import Recipe, list_recipes, load_recipe
from senet.training import lr_factor, make_optimizer, train
from senet.training.optimizers import plateau_factor, set_lr
from tests.images import write_classes
from tests.training.small import small_network

STEPS = 5  # of an epoch here
DETECTION = ["coco-2x", "detection-small"]  # run by tests/tasks/detection/test_training.py


def rates(recipe: Recipe, steps: int = STEPS) -> list[float]:
    """The learning rate of every step, as the optimizer has it."""
    optimizer, seen = make_optimizer(small_network(), recipe), []
    for step in range(recipe.epochs * steps):
        set_lr(optimizer, recipe, lr_factor(recipe, step, steps), recipe.batch)
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        seen.append(rate)
    return seen


def decays(recipe: Recipe) -> dict[str, float]:
    model = small_network()
    groups = make_optimizer(model, recipe).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: decay[id(p)] for name, p in model.named_parameters()}


def assert_sgd(recipe: Recipe, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """On every parameter."""
    optimizer = make_optimizer(small_network(), recipe)
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (momentum, nesterov, 0)
    assert set(decays(recipe).values()) == {weight_decay}


def test_there_are() -> None:
    names = ["cifar", "cifar-110", "cifar-short", *DETECTION, "digits", "efficientnet", "fine-tune", "imagenet"]
    assert list_recipes() == [*names, "mobile", "modern", "places365", "senet154", "wrn"]


# --- ImageNet: arXiv 1709.01507, section 6.1


IMAGENETS = pytest.mark.parametrize("name", ["imagenet", "senet154", "mobile", "places365"])


def test_imagenet_is_the_papers() -> None:
    """Batch 1024; 0.6, divided by 10 every 30 epochs, for 100 epochs; momentum 0.9."""
    recipe = load_recipe("imagenet")
    assert (recipe.batch, recipe.epochs, recipe.accumulate) == (1024, 100, 1)
    at = [0.6] * 30 + [0.06] * 30 + [0.006] * 30 + [0.0006] * 10
    assert rates(recipe) == pytest.approx([rate for rate in at for _ in range(STEPS)])
    assert_sgd(recipe, 0.9, False, 1e-4)
    assert (recipe.label_smoothing, recipe.ema, recipe.mixup, recipe.freeze_bn_epochs) == (0, 0, 0, 0)


def test_a_smaller_batch_by_the_linear_rule() -> None:
    """As the recipe's heading says; the authors' release has batch 256."""
    at = rates(load_recipe("imagenet", ["batch=256", "base_batch_size=1024"]))
    assert [at[0], at[30 * STEPS], at[-1]] == pytest.approx([0.15, 0.015, 0.00015])


@IMAGENETS
def test_imagenets_images_are_the_papers(name: str) -> None:
    """Random areas and mirroring; 256, then 224 in evaluation; the mean subtracted from 0 to 255, and no more."""
    recipe = load_recipe(name)
    assert recipe.augmentation == Augmentation("area", True, recipe.padding)
    assert (recipe.preprocessing.resize, recipe.preprocessing.crop) == (256, 224)
    pixels = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    mean = torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)
    assert torch.allclose(recipe.preprocessing.normalize(pixels), pixels - mean, rtol=1e-6, atol=1e-4)


def test_mobile_is_the_papers() -> None:
    """Batch 256; 0.1, divided by 10 when the error stands still, for about 400 epochs."""
    recipe = load_recipe("mobile")
    assert (recipe.batch, recipe.epochs) == (256, 400)
    assert (recipe.schedule, recipe.lr, recipe.drop_factor) == ("plateau", 0.1, 0.1)
    assert_sgd(recipe, 0.9, False, 4e-5)
    assert set(rates(recipe, 1)) == {0.1}  # and falls for no other reason


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_mobiles_plateaus_are_pytorchs(noise: float) -> None:
    recipe = load_recipe("mobile")
    generator = torch.Generator().manual_seed(0)
    drawn = noise * torch.randn(recipe.epochs, generator=generator, dtype=torch.float64)
    errors = [30 + 40 * math.exp(-epoch / 20) + float(drawn[epoch]) for epoch in range(recipe.epochs)]
    errors[100:] = [max(error, errors[99]) for error in errors[100:]]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=20, threshold=0, eps=0)
    seen = []
    for epoch in range(recipe.epochs):
        expected = optimizer.param_groups[0]["lr"]
        seen.append(recipe.lr * plateau_factor(recipe, errors[:epoch]))
        assert seen[-1] == pytest.approx(expected), epoch
        schedule.step(errors[epoch])
    assert seen[99] <= 0.1
    assert seen[-1] < 1e-5
    if not noise:  # the least error is that of the 100th epoch, and 21 epochs follow without a lower one
        assert seen[:121] == [0.1] * 121
        assert seen[121] == pytest.approx(0.01)


def test_senet154_is_the_papers() -> None:
    """Batch 2048, 1.0, smoothed labels; batch norms frozen at the end, and dropout of 0.2."""
    recipe = load_recipe("senet154")
    assert (recipe.batch, recipe.label_smoothing, recipe.freeze_bn_epochs) == (2048, 0.1, 5)
    at = [1.0] * 30 + [0.1] * 30 + [0.01] * 30 + [0.001] * 10
    assert rates(recipe) == pytest.approx([rate for rate in at for _ in range(STEPS)])
    assert_sgd(recipe, 0.9, False, 1e-4)


def test_senet154s_dropout_reaches_the_network() -> None:
    model = create_model("se_resnet18", num_classes=7, **load_recipe("senet154").network)
    kept: list[torch.Tensor] = []
    model.fc.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    with torch.no_grad():
        for mode in (True, False):
            model.train(mode)(torch.randn(32, 3, 64, 64))
    dropped = [float((features == 0).float().mean()) for features in kept]
    # Of 16,384 features, 0.2 with a deviation of 0.003; some are zero before.
    assert 0.15 < dropped[0] - dropped[1] < 0.25


# --- CIFAR: arXiv 1512.03385, section 4.2, and arXiv 1605.07146, section 3


@pytest.mark.parametrize("name", ["cifar", "cifar-110", "wrn"])
def test_cifars_images_are_he_et_als(name: str) -> None:
    """Four pixels on each side, a crop of 32, mirroring; mean and deviation of each channel."""
    recipe = load_recipe(name)
    assert recipe.augmentation == Augmentation("pad", True, 4)
    assert (recipe.preprocessing.resize, recipe.preprocessing.crop) == (32, 32)
    assert recipe.preprocessing.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-4)
    assert recipe.preprocessing.std == pytest.approx((0.247, 0.2435, 0.2616), abs=1e-4)
    assert (recipe.batch, recipe.decay_all) == (128, True)


def test_cifar_is_he_et_als() -> None:
    """0.1, divided by 10 after 32,000 and 48,000 of 64,000 steps; an epoch has 50,000 // 128 = 390."""
    recipe = load_recipe("cifar")
    assert rates(recipe) == pytest.approx([0.1] * 82 * STEPS + [0.01] * 41 * STEPS + [0.001] * 41 * STEPS)
    for steps, epochs in ((32_000, 82), (48_000, 123), (64_000, recipe.epochs)):
        assert epochs * 390 == pytest.approx(steps, rel=0.01)
    assert_sgd(recipe, 0.9, False, 1e-4)


def test_cifar_110_begins_at_a_tenth() -> None:
    """0.01 at first, for about 400 steps."""
    recipe = load_recipe("cifar-110")
    assert asdict(recipe) == asdict(load_recipe("cifar")) | {"warmup": 1}
    assert rates(recipe)[: 82 * STEPS] == pytest.approx([0.01] * STEPS + [0.1] * 81 * STEPS)


def test_wrn_is_zagoruykos() -> None:
    """0.1, multiplied by 0.2 after 60, 120 and 160 of 200 epochs; Nesterov's momentum of 0.9, weight decay 5e-4."""
    recipe = load_recipe("wrn")
    at = [0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40
    assert rates(recipe) == pytest.approx([rate for rate in at for _ in range(STEPS)])
    assert_sgd(recipe, 0.9, True, 5e-4)


@pytest.mark.parametrize(
    ("name", "peak", "warmup"), [("cifar-short", 0.4, 2.5), ("modern", 0.4, 2.5), ("digits", 0.1, 3)]
)
def test_one_cycle_rises_and_falls_linearly(name: str, peak: float, warmup: float) -> None:
    recipe = load_recipe(name)
    assert recipe.epochs == 12
    at = torch.tensor(rates(recipe, 20), dtype=torch.float64)
    top = int(warmup * 20)
    # From the step before the first, and to the step after the last, which would be 0.
    rise = peak * torch.arange(1, top + 2, dtype=torch.float64) / (top + 1)
    fall = peak * torch.arange(240 - top, 0, -1, dtype=torch.float64) / (240 - top)
    assert torch.allclose(at, torch.cat((rise, fall[1:])), rtol=1e-12)
    # No batch norm, and no bias.
    assert decays(recipe) == {name: 5e-4 * (p.ndim > 1) for name, p in small_network().named_parameters()}
    assert recipe.nesterov


def test_efficientnet_is_torchvisions() -> None:
    """Batch 1024; up to 0.5 in 5 epochs, then half a cosine to the end of 600; no decay of batch norms and biases."""
    recipe = load_recipe("efficientnet")
    assert (recipe.batch, recipe.epochs, recipe.label_smoothing, recipe.mixup, recipe.cutmix) == (
        1024,
        600,
        0.1,
        0.2,
        1,
    )
    at = rates(recipe)
    assert max(at) == pytest.approx(0.5, rel=1e-3)
    assert at.index(max(at)) == pytest.approx(5 * STEPS, abs=1)
    assert at[(5 + 595 // 2) * STEPS] == pytest.approx(0.25, rel=0.02)
    assert decays(recipe) == {name: 2e-5 * (p.ndim > 1) for name, p in small_network().named_parameters()}


def test_modern_is_cifar_short_and_what_came_later() -> None:
    modern, short = asdict(load_recipe("modern")), asdict(load_recipe("cifar-short"))
    assert {key for key in modern if modern[key] != short[key]} >= {"label_smoothing", "ema"}
    assert (modern["label_smoothing"], modern["ema"]) == (0.1, 0.998)


def test_coco_2x_is_the_papers() -> None:
    """Batch 16; 0.02, divided by 10 after 120,000 and 160,000 of 180,000 steps, 500 steps of warmup (section 5.4)."""
    recipe = load_recipe("coco-2x")
    assert (recipe.batch, recipe.iterations, recipe.epochs) == (16, 180_000, 0)
    factors = [lr_factor(recipe, step, 7_330) for step in (0, 499, 500, 119_999, 120_000, 159_999, 160_000, 179_999)]
    rates = [0.002, 0.002, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
    assert [recipe.lr * factor for factor in factors] == pytest.approx(rates)
    assert_sgd(recipe, 0.9, False, 1e-4)
    assert (recipe.preprocessing.resize, recipe.preprocessing.max_size, recipe.flip) == (800, 1333, True)
    assert (recipe.steps(7_330), recipe.passes(7_330)) == (180_000, 25)


def test_digits_mean_is_that_of_its_images() -> None:
    recipe, data = load_recipe("digits"), open_data("digits", "train")
    pixels = torch.stack([recipe.preprocessing.pixels(data[n][0]) for n in range(len(data))]).double() / 255
    assert recipe.preprocessing.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=5e-3)
    assert recipe.preprocessing.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=5e-3)


# --- Each of them trains


RUNS: dict[str, tuple[str, list[str]]] = {
    "cifar": ("se_resnet20", ["milestones=[1]"]),
    "cifar-110": ("se_resnet20", ["milestones=[]"]),
    "cifar-short": ("se_resnet20", ["warmup=0.5"]),
    "digits": ("se_resnet20", ["warmup=0.5"]),
    "efficientnet": ("timm/mobilenetv3_small_050", ["crop_size=32", "resize=36", "warmup=1"]),
    "fine-tune": ("se_resnet20", ["crop_size=64", "resize=72"]),
    "imagenet": ("se_resnet20", ["crop_size=64", "resize=72", "milestones=[1]"]),
    "mobile": ("se_resnet20", ["crop_size=64", "resize=72", "patience=0"]),
    "modern": ("se_resnet20", ["warmup=0.5"]),
    "places365": ("se_resnet20", ["crop_size=64", "resize=72", "milestones=[1]"]),
    "senet154": ("se_resnet20", ["crop_size=64", "resize=72", "freeze_bn_epochs=1"]),
    "wrn": ("se_resnet20", ["milestones=[1]"]),
}


def test_each_recipe_is_run() -> None:
    assert sorted([*RUNS, *DETECTION]) == list_recipes()


@pytest.mark.usefixtures("quick_curves")
@pytest.mark.parametrize("name", RUNS)
def test_recipe_runs(name: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 4, "dog": 4, "eel": 4})
    network, settings = RUNS[name]
    # The learning rates are for batches of another size.
    recipe = load_recipe(name, ["epochs=2", "batch=4", "workers=0", "lr=0.01", *settings])
    run = train(network, str(tmp_path / "data"), recipe, tmp_path / "run")
    files = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")}
    assert files == {
        *("recipe.toml", "run.json", "checkpoint.pt", "metrics.jsonl", "curves.png"),
        *("last.safetensors", "best.safetensors"),
    }
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines == [epoch.as_row() for epoch in run.epochs]
    for file in ("last", "best"):
        model = senet.load(tmp_path / "run" / f"{file}.safetensors")
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert model.pretrained_cfg["label_names"] == ["cat", "dog", "eel"]
    scores = senet.evaluate(model, str(tmp_path / "data"))
    assert run.best is not None
    assert scores.loss == pytest.approx(run.best.loss, rel=1e-4)


def test_imagenets_recipe_runs_at_its_size(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"cat": 3, "dog": 3})
    recipe = load_recipe("imagenet", ["epochs=1", "batch=4", "workers=0", "base_batch_size=1024"])
    run = train("se_resnet18", str(tmp_path / "data"), recipe, tmp_path / "run", val_fraction=0.34)
    assert run.epochs[0].lr == pytest.approx(0.6 * 4 / 1024)
    model: Any = senet.load(tmp_path / "run" / "last.safetensors")
    assert model.pretrained_cfg["input_size"] == (3, 224, 224)
    image = torch.zeros(1, 3, 224, 224)
    assert F.softmax(model.eval()(image), 1).isfinite().all()
