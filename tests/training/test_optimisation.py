import pytest
import torch

from senet.models import create_model
from senet.training import Recipe, load_recipe, lr_factor, make_optimiser


def rates(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    """The learning rate of every step, as the optimiser has it."""
    optimiser, schedule = make_optimiser(torch.nn.Linear(1, 1), recipe, steps_per_epoch)
    seen = []
    for _ in range(recipe.epochs * steps_per_epoch):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_cifar_is_he_et_als() -> None:
    """Arxiv 1512.03385, section 4.2, in epochs of 391 steps: 0.1, a tenth after 32k and 48k of 64k steps."""
    seen = rates(load_recipe("cifar"), 10)
    assert seen == pytest.approx([0.1] * 820 + [0.01] * 410 + [0.001] * 410)
    assert pytest.approx(32_000, rel=0.01) == 82 * 391
    assert pytest.approx(48_000, rel=0.01) == 123 * 391
    assert pytest.approx(64_000, rel=0.01) == 164 * 391
    deep = rates(load_recipe("cifar", ["warmup=1"]), 10)
    assert deep == pytest.approx([0.01] * 10 + [0.1] * 810 + [0.01] * 410 + [0.001] * 410)


@pytest.mark.parametrize("name", ["cifar-short", "digits"])
def test_one_cycle_rises_and_falls_linearly(name: str) -> None:
    recipe = load_recipe(name)
    seen = torch.tensor(rates(recipe, 20), dtype=torch.float64)
    peak = int(seen.argmax())
    assert peak == int(recipe.warmup * 20)
    assert float(seen.max()) == pytest.approx(recipe.lr)
    rise, fall = seen[: peak + 1].diff(), seen[peak:].diff()
    assert torch.allclose(rise, rise[:1].expand_as(rise))
    assert torch.allclose(fall, fall[:1].expand_as(fall))
    assert 0 < float(seen[0]) <= recipe.lr / (recipe.warmup * 20)
    assert 0 < float(seen[-1]) < recipe.lr / 50


def test_factor_of_a_step() -> None:
    recipe = Recipe(epochs=4, batch=1, lr=5.0, schedule="one_cycle", warmup=1.0)
    assert [lr_factor(recipe, step, 2) for step in range(8)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )


@pytest.mark.parametrize("decay_all", [True, False])
def test_weight_decay_groups(decay_all: bool) -> None:
    model = create_model("se_resnet20")
    recipe = Recipe(epochs=1, batch=1, lr=0.1, weight_decay=0.01, momentum=0.8, nesterov=True, decay_all=decay_all)
    optimiser, _ = make_optimiser(model, recipe, 1)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_weight = parameter.ndim > 1
        assert is_weight == (not (name.endswith("bias") or "bn" in name.split(".")[-2])), name
        assert decay[id(parameter)] == (0.01 if decay_all or is_weight else 0.0), name
    assert all(group["momentum"] == 0.8 and group["nesterov"] for group in optimiser.param_groups)
