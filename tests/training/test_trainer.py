import copy
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from senet.data.augmentation import seed_of
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.batch_norm_utils import batch_norms
from senet.nn.inserted_se import find_inserted_se
from senet.runs import Silent
from senet.training import Trainer, train_epoch
from senet.training.devices import pick_device
from senet.utils.errors import DataError, TrainingError
from tests.helpers import assert_close
from tests.images import corrupt_jpeg, picture
from tests.training.small import (
    changed,
    epoch_of,
    small_data,
    small_loader,
    small_network,
    small_recipe,
    small_trainer,
    steps,
    values,
)

EPOCH = epoch_of()
UNEVEN = [0] * 7 + [1] * 4 + [2]


def batches(trainer: Trainer, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Normalized images in float64, by hand, and labels."""
    recipe = trainer.recipe
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (recipe.mean, recipe.std))
    found = list(trainer.training.epoch(len(trainer.epochs)))[:count]
    return [((pixels.double() / 255 - mean) / std, labels) for pixels, labels in found]


def assert_same_weights(model: nn.Module, expected: nn.Module, relative: float) -> None:
    for (name, value), other in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        if value.is_floating_point():
            scale = max(float(other.abs().max()), 1e-3)
            error = float((value.double() - other.double()).abs().max()) / scale
            assert error <= relative, f"{name}: {error:.3g}"
        else:
            assert torch.equal(value, other), name


def losses_of(trainer: Trainer, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The mean loss of the epoch's first batch, of a float64 twin of the network that no step has changed."""
    model = copy.deepcopy(trainer.model).double().train()
    images, labels = batches(trainer, 1)[0]
    return loss(model(images), labels).item()


# --- A step is a step of SGD


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {"momentum": 0.5, "weight_decay": 0.05, "decay_all": False},
        {"weight_decay": 0.05, "se_lr_factor": 4.0, "base_batch_size": 8},
    ],
    ids=str,
)
def test_steps_are_those_of_the_equations(options: dict[str, Any]) -> None:
    """Three steps in float64: g + decay * w; v = momentum * v + g; w - lr * (v, or Nesterov's g + momentum * v)."""
    trainer = small_trainer(**options)
    recipe, twin = trainer.recipe, copy.deepcopy(trainer.model).double().train()
    se = {id(p) for found in find_inserted_se(twin) for p in found.se.parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    lr = 0.1 * (4 / 8 if "base_batch_size" in options else 1)
    for images, labels in batches(trainer):
        gradients = torch.autograd.grad(F.cross_entropy(twin(images), labels), list(twin.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(twin.named_parameters(), gradients, strict=True):
                if recipe.decay_all or weight.ndim > 1:
                    gradient = gradient + recipe.weight_decay * weight
                velocity[name] = recipe.momentum * velocity[name] + gradient
                step = gradient + recipe.momentum * velocity[name] if recipe.nesterov else velocity[name]
                weight -= lr * (4.0 if "se_lr_factor" in options and id(weight) in se else 1.0) * step
    steps(trainer)
    assert trainer.state.lr == pytest.approx(lr)
    assert_same_weights(trainer.model, twin, 2e-5)
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}


def test_adamw_is_pytorchs() -> None:
    trainer = small_trainer(optimizer="adamw", lr=0.01, weight_decay=0.1)
    before, twin = values(trainer.model), copy.deepcopy(trainer.model).double().train()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1)
    for images, labels in batches(trainer):
        optimizer.zero_grad()
        F.cross_entropy(twin(images), labels).backward()
        optimizer.step()
    steps(trainer)
    # Entry by entry they can differ: where a gradient is about zero, Adam steps by its sign.
    for (name, weight), exact in zip(trainer.model.named_parameters(), twin.parameters(), strict=True):
        moved = float((exact.detach() - before[name]).norm())
        assert float((weight.detach() - exact.detach()).norm()) < 0.02 * moved, name


def test_lamb_steps_by_the_size_of_each_layer() -> None:
    """Arxiv 1904.00962, algorithm 2: the first step of a decayed layer is lr times its norm, whatever its gradient."""
    trainer = small_trainer(optimizer="lamb", lr=0.01, weight_decay=0.1)
    before = values(trainer.model)
    steps(trainer, 1)
    for name, weight in trainer.model.named_parameters():
        if weight.ndim > 1:
            step = float((weight.detach() - before[name]).norm())
            assert step == pytest.approx(0.01 * float(before[name].norm()), rel=1e-3), name


def test_counts_of_an_epoch() -> None:
    trainer = small_trainer(lr=0.0)
    twin = copy.deepcopy(trainer.model).double().train()
    losses, wrong = [], 0
    for images, labels in batches(trainer):
        logits = twin(images)
        losses.append(F.cross_entropy(logits, labels).item())
        wrong += int((logits.argmax(1) != labels).sum())
    steps(trainer)
    assert (trainer.state.step, trainer.steps, trainer.state.images, trainer.state.left_out) == (3, 3, 12, 0)
    assert trainer.state.loss == pytest.approx(float(np.mean(losses)), rel=1e-5)
    assert trainer.training_values["train_error"] == pytest.approx(100 * wrong / 12)
    trainer.epochs.append(EPOCH)
    trainer.start_epoch()
    assert (trainer.state.step, trainer.steps, trainer.state.images, *trainer.training_values.values()) == (
        0,
        3,
        0,
        0,
        0,
    )


def test_the_plateau_lowers_the_learning_rate_of_its_epoch() -> None:
    trainer = small_trainer(epochs=9, lr=0.4, schedule="plateau", patience=1, drop_factor=0.5, warmup=1.0)
    seen = []
    for error in (50.0, 40.0, 41.0, 40.0, 39.0, 39.0, 39.0, 39.0, 39.0):
        trainer.begin()
        steps(trainer, 2)
        seen.append(trainer.state.lr)
        trainer.epochs.append(epoch_of(top1_error=error))
        trainer.start_epoch()
    # The second epoch without a lower error is the fourth, and then the seventh.
    assert seen == pytest.approx([0.04, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1])


# --- A batch in parts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.2, "class_weights": "balanced"},
        {"mixup": 0.4, "cutmix": 1.0, "class_weights": "balanced", "label_smoothing": 0.1},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"precision": "bf16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_make_the_same_step(options: dict[str, Any], parts: int) -> None:
    """Batch norms are frozen: their statistics are each part's own. Three parts of four images are of 2, 1 and 1."""
    trainers = []
    for accumulate in (1, parts):
        trainers.append(
            small_trainer(data=small_data(UNEVEN), accumulate=accumulate, freeze_bn_epochs=2, momentum=0.9, **options)
        )
        steps(trainers[-1])
    whole, split = trainers
    coarse = "precision" in options
    assert split.state.loss == pytest.approx(whole.state.loss, rel=1e-3 if coarse else 1e-5)
    assert split.state.counts == whole.state.counts
    if coarse:
        exact = small_trainer(data=small_data(UNEVEN), freeze_bn_epochs=2, momentum=0.9)
        steps(exact)
        assert distance(split.model, exact.model) < 2 * distance(whole.model, exact.model)
    else:
        assert_same_weights(split.model, whole.model, 1e-3 if "optimizer" in options else 1e-5)


def distance(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Of all weights together."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return float(torch.stack([(a - b).detach().double().square().sum() for a, b in pairs]).sum().sqrt())


def test_statistics_are_each_parts_own() -> None:
    trainer = small_trainer(accumulate=2, lr=0.0)
    twin = copy.deepcopy(trainer.model).double().train()
    steps(trainer, 1)
    images, _ = batches(trainer, 1)[0]
    with torch.no_grad():
        for part in images.split(2):
            twin(part)
    assert_same_weights(trainer.model, twin, 1e-5)


# --- What is trained, and what is frozen


def test_only_se_is_trained_if_the_recipe_says_so() -> None:
    trainer = small_trainer(train_only="se", momentum=0.9, weight_decay=0.1)
    before = values(trainer.model)
    steps(trainer)
    parameters = {name for name, _ in trainer.model.named_parameters() if ".se." in name}
    assert len(parameters) == 8
    assert changed(before, trainer.model) == parameters
    # The gradients of what is frozen are not even made.
    assert {name for name, p in trainer.model.named_parameters() if p.grad is not None} == parameters


def test_se_learns_at_its_own_rate() -> None:
    runs = {}
    for factor in (1.0, 0.0, 3.0):
        trainer = small_trainer(se_lr_factor=factor)
        before = values(trainer.model)
        steps(trainer, 1)
        runs[factor] = {name: p.detach() - before[name] for name, p in trainer.model.named_parameters()}
    for name, step in runs[1.0].items():
        is_se = ".se." in name
        assert_close(runs[3.0][name], step * (3 if is_se else 1), 2e-3)  # differences of float32 weights
        assert torch.equal(runs[0.0][name], torch.zeros_like(step) if is_se else step)


def test_batch_norms_are_frozen_for_the_last_epochs() -> None:
    trainer = small_trainer(epochs=3, freeze_bn_epochs=2, momentum=0.9, weight_decay=0.01)
    model = trainer.model
    own = {
        f"{n}.{k}" for n, m in model.named_modules() if m in batch_norms(model) for k in m.state_dict() if "." not in k
    }
    assert len(own) == 6 * 5
    for epoch in range(3):
        trainer.begin()
        before = values(model)
        steps(trainer)
        moved = changed(before, model)
        assert moved == (set(before) if epoch == 0 else set(before) - own), epoch
        trainer.epochs.append(EPOCH)
        trainer.start_epoch()
    # SE within a batch norm's module is in training.
    assert all(m.se.training and not m.training for m in model.modules() if isinstance(m, SEBatchNorm))


def test_frozen_batch_norms_take_their_statistics() -> None:
    trainer = small_trainer(freeze_bn_epochs=2, lr=0.0)
    for bn in batch_norms(trainer.model):
        nn.init.normal_(bn.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(bn.running_var, 0.5, 2)  # type: ignore[arg-type]
    steps(trainer, 1)
    images, labels = batches(trainer, 1)[0]
    expected = F.cross_entropy(copy.deepcopy(trainer.model).double().eval()(images), labels)
    assert trainer.state.loss == pytest.approx(expected.item(), rel=1e-5)


# --- The loss


def test_balanced_class_weights_are_scikit_learns() -> None:
    trainer = small_trainer(data=small_data(UNEVEN), class_weights="balanced")
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=np.array(UNEVEN)))
    expected = losses_of(trainer, lambda logits, labels: F.cross_entropy(logits, labels, weights))
    steps(trainer, 1)
    assert trainer.state.loss == pytest.approx(expected, rel=1e-5)
    plain = small_trainer(data=small_data(UNEVEN))
    steps(plain, 1)
    assert abs(plain.state.loss - expected) > 1e-3


@pytest.mark.parametrize("balanced", [False, True])
def test_label_smoothing_is_pytorchs(balanced: bool) -> None:
    weights = torch.tensor([12 / (3 * n) for n in (7, 4, 1)], dtype=torch.float64) if balanced else None
    trainer = small_trainer(
        data=small_data(UNEVEN), label_smoothing=0.3, class_weights="balanced" if balanced else "none"
    )
    expected = losses_of(trainer, lambda logits, labels: F.cross_entropy(logits, labels, weights, label_smoothing=0.3))
    by_hand = losses_of(trainer, lambda logits, _: -0.1 * F.log_softmax(logits, 1).sum(1).mean())
    steps(trainer, 1)
    assert trainer.state.loss == pytest.approx(expected, rel=1e-5)
    if not balanced:  # 0.7 of the loss of the label, and 0.3 / 3 of each class's
        plain = small_trainer(data=small_data(UNEVEN))
        steps(plain, 1)
        assert trainer.state.loss == pytest.approx(0.7 * plain.state.loss + by_hand, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_class_without_training_images_has_a_weight_all_the_same(smoothing: float) -> None:
    """That of a class with one image: smoothed labels have some of it."""
    data = small_data([0, 1, 0] * 4)
    trainer = small_trainer(data=data, class_weights="balanced", label_smoothing=smoothing)
    weights = torch.tensor([12 / (3 * n) for n in (8, 4, 1)], dtype=torch.float64)
    expected = losses_of(trainer, lambda x, y: F.cross_entropy(x, y, weights, label_smoothing=smoothing))
    steps(trainer, 1)
    assert trainer.state.loss == pytest.approx(expected, rel=1e-5)
    steps(trainer, 1)
    assert math.isfinite(trainer.state.loss)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_mixed_images_are_what_is_trained_on(balanced: bool, accumulate: int) -> None:
    """In float64 by hand; labels are smoothed once, and each class of a mixed target has its own weight."""
    trainer = small_trainer(
        data=small_data(UNEVEN),
        mixup=0.4,
        label_smoothing=0.3,
        seed=3,
        freeze_bn_epochs=2,
        accumulate=accumulate,
        class_weights="balanced" if balanced else "none",
    )
    twin = copy.deepcopy(trainer.model).double().eval()  # with batch norms frozen it is in evaluation
    seen: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    steps(trainer, 1)
    images, labels = batches(trainer, 1)[0]
    mixed, other = torch.cat(seen).double(), images.flip(0)
    # mixed = share * image + (1 - share) * the image from the other end; one share for the batch.
    share = float(((mixed - other) * (images - other)).sum() / (images - other).square().sum())
    assert 0 < share < 1
    assert_close(mixed, share * images + (1 - share) * other, 1e-5)
    one_hot = torch.eye(3, dtype=torch.float64)[labels]
    targets = 0.7 * (share * one_hot + (1 - share) * one_hot.flip(0)) + 0.3 / 3
    weights = torch.tensor([12 / (3 * n) if balanced else 1 for n in (7, 4, 1)], dtype=torch.float64)
    losses = -(weights * targets * twin(mixed).log_softmax(1)).sum(1)
    assert trainer.state.loss == pytest.approx(losses.mean().item(), rel=1e-5)


# --- Averages


def test_the_average_is_timms_formula() -> None:
    """Of each step's weights and statistics: decay min(ema, 1 - s^(-2/3)), s the steps; none at the first."""
    trainer = small_trainer(ema=0.5)
    assert trainer.ema is not None
    steps_done, average = 0, {key: value.double() for key, value in values(trainer.model).items()}
    for _ in range(2):
        for pixels, labels in trainer.training.epoch(len(trainer.epochs)):
            trainer.train_step(pixels, labels)
            steps_done += 1
            decay = min(0.5, 1 - steps_done ** (-2 / 3))
            for key, value in values(trainer.model).items():
                average[key] = decay * average[key] + (1 - decay) * value.double()
        trainer.epochs.append(EPOCH)
        trainer.start_epoch()
    assert decay == 0.5
    for key, value in trainer.evaluated.state_dict().items():
        if value.is_floating_point():
            assert_close(value.double(), average[key], 1e-6)
            assert not torch.equal(value, trainer.model.state_dict()[key]), key
        else:
            assert torch.equal(value, trainer.model.state_dict()[key])


def test_without_averages_the_network_itself_is_evaluated() -> None:
    trainer = small_trainer()
    assert trainer.evaluated is trainer.model


# --- Precision


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_low_precision_trains_float32_weights(precision: str, dtype: torch.dtype) -> None:
    full, low = small_trainer(momentum=0.9), small_trainer(momentum=0.9, precision=precision)
    seen: list[torch.dtype] = []
    low.model.conv1.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    start = values(full.model)
    for trainer in (full, low):
        steps(trainer)
    assert seen == [dtype] * 3
    assert low.state.loss == pytest.approx(full.state.loss, rel=0.02)
    for (name, weight), exact in zip(low.model.named_parameters(), full.model.parameters(), strict=True):
        assert weight.dtype == torch.float32
        moved = float((exact.detach() - start[name]).norm())
        assert 0 < float((weight.detach() - exact.detach()).norm()) < 0.2 * moved + 1e-4, name


def overflow(trainer: Trainer, scale: float) -> None:
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": scale})


def test_half_precision_finds_its_scale() -> None:
    trainer = small_trainer(precision="fp16", ema=0.9, on_nonfinite="stop", momentum=0.9)
    overflow(trainer, 2.0**40)
    before = values(trainer.model)
    parameters = {name for name, _ in trainer.model.named_parameters()}
    steps(trainer, 1)
    assert not changed(before, trainer.model) & parameters
    assert changed(before, trainer.evaluated) == set()
    # It is no fault of the network, and is not counted as one.
    assert (trainer.state.step, trainer.state.images, trainer.state.left_out) == (1, 4, 0)
    assert trainer.scaler.get_scale() == 2.0**39
    overflow(trainer, 1024.0)
    steps(trainer, 1)
    assert parameters <= changed(before, trainer.model)
    assert trainer.scaler.get_scale() == 1024.0


def test_half_precision_is_unscaled_before_the_step() -> None:
    trainers = [small_trainer(precision="fp16") for _ in range(2)]
    for trainer, scale in zip(trainers, (256.0, 1024.0), strict=True):
        overflow(trainer, scale)
        steps(trainer)
    assert_same_weights(trainers[0].model, trainers[1].model, 5e-3)


# --- What is not finite


def spoil_loss(trainer: Trainer, at: int) -> None:
    """The network's output is nan at a step; its statistics are then spoiled as well."""

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        return (args[0] * float("nan"),) if trainer.state.step == at else None

    trainer.model.register_forward_pre_hook(hook)


def spoil_gradient(trainer: Trainer, at: int) -> None:
    """A gradient is infinite at a step, and the loss as it should be."""
    trainer.model.fc.weight.register_hook(lambda g: g * math.inf if trainer.state.step == at else g)


SPOIL = pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(spoil_loss, "the loss is nan"), (spoil_gradient, "the norm of the gradient is (nan|inf)")],
)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"optimizer": "adamw"}], ids=str)
def test_stops_at_what_is_not_finite_and_says_what(
    spoil: Callable[[Trainer, int], None], what: str, options: dict[str, Any]
) -> None:
    trainer = small_trainer(**options)
    trainer.epochs.append(EPOCH)
    spoil(trainer, 1)
    steps(trainer, 1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(
        TrainingError,
        match=rf"{what} at step 2 of epoch 2, with learning rate 0.1: try a lower lr, .*on_nonfinite=skip, which",
    ):
        steps(trainer, 1)
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


@SPOIL
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_left_out_leaves_everything_as_it_was(
    spoil: Callable[[Trainer, int], None], accumulate: int
) -> None:
    trainer = small_trainer(on_nonfinite="skip", momentum=0.9, ema=0.9, accumulate=accumulate)
    spoil(trainer, 1)
    steps(trainer, 1)
    before, average = values(trainer.model), values(trainer.evaluated)
    momenta = copy.deepcopy(trainer.optimizer.state_dict()["state"])
    counted = (trainer.state.images, dict(trainer.state.counts), trainer.state.loss_sum)
    steps(trainer, 1)
    assert changed(before, trainer.model) == set()
    assert changed(average, trainer.evaluated) == set()
    for key, state in trainer.optimizer.state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], momenta[key]["momentum_buffer"])
    assert (trainer.state.step, trainer.state.left_out) == (2, 1)
    assert counted == (trainer.state.images, dict(trainer.state.counts), trainer.state.loss_sum)
    steps(trainer, 1)
    assert (trainer.state.step, trainer.state.left_out, trainer.state.images) == (3, 1, 8)
    assert changed(before, trainer.model) == set(before)
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


@SPOIL
def test_half_precision_stops_when_no_scale_is_left(spoil: Callable[[Trainer, int], None]) -> None:
    trainer = small_trainer(precision="fp16")
    overflow(trainer, 1.0)
    spoil(trainer, 0)
    with pytest.raises(TrainingError, match=r"(the loss is nan|gradient is (nan|inf), at the scale 1.0) at step 1"):
        steps(trainer, 1)


def test_an_epoch_of_which_no_step_was_finite_is_an_error() -> None:
    trainer = small_trainer(on_nonfinite="skip")
    trainer.model.fc.weight.register_hook(lambda g: g * math.inf)
    with pytest.raises(TrainingError, match="no step of epoch 1 had a finite loss and gradient: try a lower lr"):
        train_epoch(trainer, Silent())
    assert trainer.state.left_out == 3


# --- Random numbers


@pytest.mark.parametrize("options", [{}, {"mixup": 0.3}], ids=str)
def test_what_is_drawn_depends_on_seed_epoch_and_step_alone(options: dict[str, Any]) -> None:
    def outcome(seed: int, epoch: int, step: int, before: int) -> Tensor:
        trainer = small_trainer(
            small_network(drop_rate=0.5, drop_path_rate=0.5), epochs=9, seed=seed, lr=0.1, **options
        )
        torch.manual_seed(before)
        torch.rand(before)
        trainer.epochs += [EPOCH] * epoch
        trainer.state.step = step
        pixels, labels = next(iter(trainer.training.epoch(0)))  # the same whatever is asked for
        trainer.train_step(pixels, labels)
        return trainer.model.fc.weight.detach()

    with_dropout = [outcome(5, epoch, step, 1) for epoch in (0, 1) for step in (0, 1)]
    assert all(torch.equal(first, outcome(5, n // 2, n % 2, 7)) for n, first in enumerate(with_dropout))
    assert len({tuple(weight.flatten().tolist()) for weight in (*with_dropout, outcome(6, 0, 0, 1))}) == 5


def test_a_trainer_resumes_from_its_state_in_the_middle_of_an_epoch() -> None:
    options: dict[str, Any] = {"momentum": 0.9, "ema": 0.9, "mixup": 0.2, "optimizer": "adamw", "lr": 0.01}

    def fresh(seed: int) -> Trainer:
        return small_trainer(small_network(drop_rate=0.5, seed=seed), **options)

    whole, first, second = fresh(0), fresh(0), fresh(1)
    steps(whole)
    steps(first, 2)
    torch.rand(5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second)
    for one, other in ((whole.model, second.model), (whole.evaluated, second.evaluated)):
        assert changed(values(one), other) == set()
    counts = [(one.state.step, one.state.images, one.state.loss_sum) for one in (second, whole)]
    assert counts[0] == counts[1]


# --- torch.compile, devices


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("default")
def test_compiled_network_trains_the_same() -> None:
    trainers = [small_trainer(compile=compiled, momentum=0.9, freeze_bn_epochs=1) for compiled in (False, True)]
    for trainer in trainers:
        for _ in range(2):  # the second with frozen batch norms
            trainer.begin()
            steps(trainer)
            trainer.epochs.append(EPOCH)
            trainer.start_epoch()
    eager, compiled = (trainer.model for trainer in trainers)
    assert list(eager.state_dict()) == list(compiled.state_dict())
    assert_same_weights(compiled, eager, 1e-3)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Which devices PyTorch finds, the CPU aside."""
    there: set[str] = set()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    return there  # type: ignore[return-value]


def test_devices(devices: set[str]) -> None:
    assert pick_device(small_recipe()) == torch.device("cpu")
    for wanted in ("cuda", "mps"):
        with pytest.raises(
            ValueError, match=f"device '{wanted}' is not available to PyTorch: use device=auto, or one of cpu"
        ):
            pick_device(small_recipe(device=wanted))
    devices.add("mps")
    assert pick_device(small_recipe()) == torch.device("mps")
    assert pick_device(small_recipe(device="cpu")) == torch.device("cpu")
    devices.add("cuda")
    assert pick_device(small_recipe()) == torch.device("cuda")
    assert pick_device(small_recipe(device="mps")) == torch.device("mps")


# --- An epoch


class Steps(Silent):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def step(self, *call: Any) -> None:
        self.calls.append(call)


def test_an_epoch_reports_each_step() -> None:
    trainer, reporter, after = small_trainer(epochs=5), Steps(), []
    trainer.epochs.append(EPOCH)
    train_epoch(trainer, reporter, lambda: after.append(trainer.state.step))
    assert [call[:4] for call in reporter.calls] == [(2, 1, 3, 4), (2, 2, 3, 8), (2, 3, 3, 12)]
    assert reporter.calls[-1][4:] == (trainer.training_values,)
    assert after == [1, 2, 3]
    assert {"data", "forward", "backward", "optimizer", "reporting"} <= set(trainer.stopwatch.seconds)


def test_an_epoch_continues_at_its_step() -> None:
    trainer, reporter = small_trainer(), Steps()
    steps(trainer, 1)
    train_epoch(trainer, reporter)
    assert [call[1] for call in reporter.calls] == [2, 3]
    assert trainer.state.images == 12


class Unreadable:
    """Images of which some cannot be read."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad

    def read(self, index: int) -> Any:
        return io.BytesIO(corrupt_jpeg()) if index in self.bad else picture(index, 8, 8)

    def name(self, index: int) -> str:
        return f"picture {index}"


def test_steps_without_images_are_counted_and_change_nothing() -> None:
    recipe = small_recipe(batch=1, mixup=0.2)
    data = replace_source(Unreadable(set(range(12)) - {5, 6}))
    loader = replace(small_loader(recipe), data=data, memory=None, skip_bad=True)
    trainer = Trainer(small_network(), recipe, loader)
    train_epoch(trainer, Silent())
    assert (trainer.state.step, trainer.state.images, len(loader.skipped)) == (12, 2, 10)
    assert math.isfinite(trainer.state.loss)


def test_no_image_can_be_read() -> None:
    recipe = small_recipe()
    loader = replace(small_loader(recipe), data=replace_source(Unreadable(set(range(12)))), memory=None, skip_bad=True)
    trainer = Trainer(small_network(), recipe, loader)
    before = values(trainer.model)
    with pytest.raises(DataError, match="pictures has no readable image"):
        train_epoch(trainer, Silent())
    assert changed(before, trainer.model) == set()


def replace_source(source: Any) -> Any:
    data = small_data()
    data.source = source
    return data


def test_a_step_seeds_its_own_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` looks for devices of every kind, at every step."""
    recipe = small_recipe()
    trainer = Trainer(small_network(), recipe, small_loader(recipe, small_data(UNEVEN)))
    trainer.begin()
    monkeypatch.delattr(torch, "manual_seed")
    for step, inputs in enumerate(trainer.batches()):
        trainer.train_step(*inputs)
        assert torch.default_generator.initial_seed() == seed_of(recipe.seed, 0, step, 1)
    assert trainer.state.step == len(trainer.training)
