import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from senet.insertion.insert import insert
from senet.models import create_model
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.batch_norm_utils import batch_norms
from senet.nn.inserted_se import find_inserted_se
from senet.recipes import Recipe
from senet.training import lr_factor, make_optimizer
from senet.training.optimizers import (
    is_capturable,
    load_state,
    plateau_factor,
    portable_state,
    select_parameters,
    set_lr,
)
from tests.helpers import assert_close
from tests.training.small import small_network, small_recipe


def factors(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    return [lr_factor(recipe, step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]


def test_one_cycle_by_hand() -> None:
    recipe = Recipe(epochs=4, batch=1, lr=5.0, schedule="one_cycle", warmup=1.0)
    assert factors(recipe, 2) == pytest.approx([1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_cosine_by_hand() -> None:
    # A rise over two steps, then half a cosine over six: angles of 0, 30, ... 150 degrees.
    recipe = Recipe(epochs=4, batch=1, lr=5.0, schedule="cosine", warmup=1.0)
    root = math.sqrt(3) / 2
    fall = [(1 + cosine) / 2 for cosine in (1, root, 0.5, 0, -0.5, -root)]
    assert factors(recipe, 2) == pytest.approx([1 / 3, 2 / 3, *fall])


def test_cosine_without_warmup_is_pytorchs() -> None:
    recipe = small_recipe(epochs=5, schedule="cosine")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    for factor in factors(recipe, 3):
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_steps_by_hand() -> None:
    recipe = small_recipe(epochs=5, schedule="step", milestones=[2, 3], drop_factor=0.2, warmup=0.5)
    assert factors(recipe, 2) == pytest.approx([0.1, 1, 1, 1, 0.2, 0.2, 0.04, 0.04, 0.04, 0.04])


def test_steps_are_pytorchs() -> None:
    recipe = small_recipe(epochs=9, milestones=[3, 5, 5, 8], drop_factor=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4 * drop for drop in recipe.milestones], gamma=0.3)
    for factor in factors(recipe, 4):
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


@settings(deadline=None)
@given(st.sampled_from(["one_cycle", "cosine"]), st.integers(1, 20), st.integers(1, 9), st.floats(0.01, 0.99))
def test_schedules_rise_to_the_peak_and_fall(schedule: str, epochs: int, per_epoch: int, share: float) -> None:
    recipe = small_recipe(epochs=epochs, schedule=schedule, warmup=share * epochs)
    seen = factors(recipe, per_epoch)
    assert all(0 < factor <= 1 for factor in seen)
    rising = [one < other for one, other in pairwise(seen)]
    assert rising == sorted(rising, reverse=True)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30).map(float), max_size=40),
    st.integers(0, 5),
    st.floats(0.05, 0.95),
)
def test_plateau_is_counted_by_hand(errors: list[float], patience: int, drop_factor: float) -> None:
    recipe = small_recipe(schedule="plateau", patience=patience, drop_factor=drop_factor)
    least, still, expected = math.inf, 0, 1.0
    for error in errors:
        still = 0 if error < least else still + 1
        least = min(least, error)
        if still > patience:
            expected, still = expected * drop_factor, 0
    assert plateau_factor(recipe, errors) == pytest.approx(expected, rel=1e-9)


def test_plateau_takes_the_least_gain_for_one() -> None:
    """PyTorch's own threshold would take a gain of one image in 50,000 for none."""
    recipe = small_recipe(schedule="plateau", patience=0)
    errors = [25.0 - 0.002 * epoch for epoch in range(50)]
    assert plateau_factor(recipe, errors) == 1.0
    plain = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = ReduceLROnPlateau(plain, patience=0)
    for error in errors:
        schedule.step(error)
    assert plain.param_groups[0]["lr"] < 0.5


@pytest.mark.parametrize("schedule", ["step", "one_cycle", "cosine", "plateau"])
def test_iterations_are_the_steps_of_epochs(schedule: str) -> None:
    of_epochs = small_recipe(schedule=schedule, epochs=4, milestones=[2], warmup=1)
    of_steps = replace(of_epochs, epochs=0, iterations=12, milestones=[6], warmup=3)
    assert factors(of_epochs, 3) == [lr_factor(of_steps, step, 5) for step in range(12)]


@pytest.mark.parametrize("schedule", ["step", "cosine", "one_cycle"])
def test_other_schedules_know_no_plateau(schedule: str) -> None:
    assert plateau_factor(small_recipe(schedule=schedule, warmup=1, patience=0), [1.0] * 9) == 1.0


@pytest.mark.parametrize(
    ("batch", "base_batch_size", "expected"), [(256, 0, 0.6), (256, 1024, 0.15), (2048, 1024, 1.2)]
)
def test_the_linear_rule(batch: int, base_batch_size: int, expected: float) -> None:
    recipe = small_recipe(lr=0.6, batch=batch, base_batch_size=base_batch_size, se_lr_factor=5.0)
    optimizer = make_optimizer(small_network(), recipe)
    assert set_lr(optimizer, recipe, 0.1, recipe.batch) == pytest.approx(0.1 * expected)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {
        round(0.1 * expected, 9),
        round(0.5 * expected, 9),
    }


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_weight_decay_groups(decay_all: bool, optimizer: str) -> None:
    model = create_model("se_resnet20")
    recipe = Recipe(epochs=1, batch=1, lr=0.1, weight_decay=0.01, optimizer=optimizer, decay_all=decay_all)
    groups = make_optimizer(model, recipe).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_weight = parameter.ndim > 1
        assert is_weight == (not (name.endswith("bias") or "bn" in name.split(".")[-2])), name
        assert decay[id(parameter)] == (0.01 if decay_all or is_weight else 0.0), name


def test_options_of_sgd_and_of_timms() -> None:
    sgd = make_optimizer(small_network(), small_recipe(momentum=0.8, nesterov=True))
    assert type(sgd) is torch.optim.SGD
    assert all(
        (group["momentum"], group["nesterov"], group["dampening"]) == (0.8, True, 0) for group in sgd.param_groups
    )
    assert type(make_optimizer(small_network(), small_recipe(optimizer="adamw"))) is torch.optim.AdamW
    assert type(make_optimizer(small_network(), small_recipe(optimizer="lamb"))).__name__ == "Lamb"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("adahessian", "needs second derivatives, which are not computed"),
        ("fusedadam", "is not available"),
        ("sgdw", "is not available .*[Nn]esterov"),
    ],
)
def test_optimizers_that_are_not_available(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"optimizer '{name}' {why}.*: use another one of timm's, or sgd"):
        make_optimizer(small_network(), small_recipe(optimizer=name))


@pytest.mark.parametrize("schedule", ["plateau", "one_cycle", "cosine"])
def test_drops_are_for_steps_alone(schedule: str) -> None:
    """A recipe that starts from another one has that one's milestones."""
    recipes = [small_recipe(epochs=4, warmup=1.0, schedule=schedule, milestones=milestones) for milestones in ([], [2])]
    factors = [[lr_factor(recipe, step, 3) for step in range(12)] for recipe in recipes]
    assert factors[0] == factors[1]


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity", "conv3x3"])
def test_se_has_its_own_learning_rate(placement: str) -> None:
    model = insert(small_network(se=False), placement, reduction=4)
    se = {id(p) for found in find_inserted_se(model) for p in found.se.parameters()}
    assert len(se) == 8  # two units, two layers each, with biases
    recipe = small_recipe(lr=0.2, se_lr_factor=3.0)
    optimizer = make_optimizer(model, recipe)
    set_lr(optimizer, recipe, 0.5, recipe.batch)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == pytest.approx(0.3 if id(parameter) in se else 0.1)


def test_what_is_frozen_is_not_trained() -> None:
    model = small_network()
    model.conv1.requires_grad_(False)
    next(iter(find_inserted_se(model))).se.fc1.requires_grad_(False)
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    for recipe in (small_recipe(), small_recipe(train_only="se")):
        chosen = {id(parameter) for parameter in select_parameters(model, recipe)}
        held = {id(p) for group in make_optimizer(model, recipe).param_groups for p in group["params"]}
        assert chosen == held
        assert not chosen & frozen
    assert len(chosen) == 6


def test_no_se_to_train() -> None:
    for make in (select_parameters, make_optimizer):
        with pytest.raises(
            ValueError, match="train_only is 'se', and the network has no SE that senet inserted; insert some"
        ):
            make(small_network(se=False), small_recipe(train_only="se"))


def test_batch_norms_are_found_with_and_without_se() -> None:
    plain, with_se = batch_norms(small_network(se=False)), batch_norms(small_network())
    assert len(plain) == len(with_se) == 6  # the stem's, two in each unit, and a projection's
    assert not any(isinstance(module, SEBatchNorm) for module in plain)
    assert sum(isinstance(module, SEBatchNorm) for module in with_se) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam", "momentum"])
def test_capturable_optimizers_make_the_same_steps_from_rates_in_tensors(optimizer: str) -> None:
    recipe = small_recipe(optimizer=optimizer, se_lr_factor=3.0)
    states = []
    for capturable in (False, True):
        torch.manual_seed(0)
        model = small_network().double()
        made = make_optimizer(model, recipe, capturable=capturable)
        assert is_capturable(made) == capturable
        assert all(group["fused"] for group in made.param_groups) == (capturable or optimizer == "sgd")
        rates = [group["lr"] for group in made.param_groups]
        for step in range(4):
            assert set_lr(made, recipe, 0.1 * step, 8) == pytest.approx(0.1 * step * recipe.lr)
            for number, parameter in enumerate(model.parameters()):
                random = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            made.step()
        if capturable:
            assert all(group["lr"] is rate for group, rate in zip(made.param_groups, rates, strict=True))
            assert len({id(rate) for rate in rates}) == len(rates) > 1
        states.append(list(model.state_dict().values()))
    for plain, device in zip(*states, strict=True):
        assert_close(device, plain, 1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_consents_to_be_captured(optimizer: str) -> None:
    """While a CUDA graph is captured, PyTorch's Adam raises without this flag, also where it is fused."""
    for capturable in (True, False):
        made = make_optimizer(small_network(), small_recipe(optimizer=optimizer), capturable=capturable)
        assert [group["capturable"] for group in made.param_groups] == [capturable] * len(made.param_groups)


@pytest.mark.parametrize("optimizer", ["lamb", "nadam", "lion"])
def test_optimizers_that_cannot_keep_rates_on_the_device_are_as_before(optimizer: str) -> None:
    made = make_optimizer(small_network(), small_recipe(optimizer=optimizer), capturable=True)
    assert not is_capturable(made)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("to_device", [True, False])
def test_states_load_whether_rates_and_counts_are_on_the_device_or_the_host(optimizer: str, to_device: bool) -> None:
    """As on a CPU and on a GPU: a run may be resumed on another device."""
    recipe = small_recipe(optimizer=optimizer, momentum=0.9)

    def made(capturable: bool) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = small_network().double()
        return model, make_optimizer(model, recipe, capturable=capturable)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        set_lr(optimizer, recipe, 1.0 / (1 + number), 4)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 + number)
        optimizer.step()

    before, resumed = made(not to_device), made(to_device)
    for number in range(3):
        step(*before, number)
    resumed[0].load_state_dict(before[0].state_dict())
    saved = copy.deepcopy(portable_state(before[1]))
    assert all(type(group["lr"]) is float for group in saved["param_groups"])
    load_state(resumed[1], saved)
    assert is_capturable(resumed[1]) == to_device
    assert {bool(group["fused"]) for group in resumed[1].param_groups} == {to_device or optimizer == "sgd"}
    for number in range(3, 6):
        step(*before, number)
        step(*resumed, number)
    for one, other in zip(before[0].state_dict().values(), resumed[0].state_dict().values(), strict=True):
        assert_close(other, one, 1e-12)


def test_states_of_other_groups_are_refused() -> None:
    saved = portable_state(make_optimizer(small_network(), small_recipe()))
    other = make_optimizer(small_network(se=False), small_recipe(decay_all=False))
    saved["param_groups"] = saved["param_groups"] * 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        load_state(other, saved)
