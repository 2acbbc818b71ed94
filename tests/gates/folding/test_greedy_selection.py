import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.gates.diagnosis.ablation import Predictions, ablate_blocks, predict_with_overrides
from senet.gates.folding import greedy_selection
from senet.gates.folding.fold import fold_gates
from senet.gates.folding.fold_plan import FoldPlan
from senet.gates.folding.greedy_selection import plan_fold
from senet.graph.se_modules import find_se, watch_gates
from senet.utils.errors import DataError, GatesError

FIRST, SECOND, LAST = "bn1.se", "bn2.se", "bn3.se"


class Small(nn.Module):
    """Three layers with SE: the first gates hardly vary, and only the second gates separate the classes."""

    def __init__(self) -> None:
        super().__init__()
        for n, (inputs, outputs) in enumerate(((2, 4), (4, 4), (4, 4)), 1):
            self.add_module(f"conv{n}", nn.Conv2d(inputs, outputs, 1, bias=False))
            self.add_module(f"bn{n}", SEBatchNorm(outputs, se=SqueezeExcitation(outputs, 1), dim=2))
        self.fc = nn.Linear(4, 3)
        nn.init.normal_(self.bn1.se.fc2.weight, std=1e-6)
        nn.init.normal_(self.bn2.se.fc2.weight, std=8)
        nn.init.normal_(self.bn3.se.fc2.weight, std=0.3)
        nn.init.normal_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        with torch.no_grad():  # no class is the answer for all
            self.fc.bias.sub_(self.eval()(some_images(500)).median(0).values)

    def forward(self, x: Tensor) -> Tensor:
        for n in (1, 2, 3):
            x = torch.relu(self.get_submodule(f"bn{n}")(self.get_submodule(f"conv{n}")(x)))
        return self.fc(x.mean((2, 3)))


def some_images(images: int) -> Tensor:
    return torch.randn(images, 2, 3, 3) + 2 * torch.randn(images, 2, 1, 1)


EXAMPLE = torch.zeros(1, 2, 3, 3)


@torch.no_grad()
def some_data(model: nn.Module, images: int) -> DataLoader[tuple[Tensor, ...]]:
    """Images that the network classifies without an error."""
    x = some_images(images)
    return DataLoader(TensorDataset(x, model(x).argmax(1)), batch_size=256)


@torch.no_grad()
def means(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    seen: dict[str, list[Tensor]] = {}
    units = find_se(model)
    handles = [watch_gates(unit, seen.setdefault(unit.name, []).append) for unit in units]
    for x, _ in loader:
        model(x)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(gates).double().mean(0) for name, gates in seen.items()}


def test_plan_of_a_known_network() -> None:
    model = Small().eval()
    loader = some_data(model, 600)
    gates = means(model, loader)
    found = plan_fold(model, loader, gates, max_drop=1.0, example=EXAMPLE)
    assert isinstance(found, FoldPlan)
    assert found.blocks[0] == FIRST
    assert SECOND not in found.blocks
    assert found.images == 600
    assert found.error == 0
    assert found.steps[0].error.value == 0
    assert 0 < found.steps[0].error.high < 1
    assert not found.steps[0].certain
    (kept,) = (block for block in found.kept if block.name == SECOND)
    assert kept.error is not None
    assert kept.error.value > 5
    assert kept.images is None  # the change itself is above the budget
    assert "become wrong" in kept.reason
    # The plan agrees with the folded network.
    folded = fold_gates(model, gates, blocks=found.blocks, example=EXAMPLE)
    after, _, _ = predict_with_overrides(folded, loader, {}, {})
    assert 100 * after.wrong1.mean() == pytest.approx(found.change.value)
    assert found.params - found.saved_params == senet.cost(folded, (2, 3, 3)).params
    assert found.macs - found.saved_macs == senet.cost(folded, (2, 3, 3)).macs
    # It is deterministic, and can be written as JSON.
    assert plan_fold(model, loader, gates, max_drop=1.0, example=EXAMPLE) == found
    read = json.loads(json.dumps(found.as_dict()))
    assert read["blocks"] == list(found.blocks)
    assert read["steps"][0]["error"] == asdict(found.steps[0].error)
    assert read["summary"] == found.summary
    assert f"{len(found.blocks)} of 3 blocks fold: " in found.summary


def test_few_images_prove_nothing() -> None:
    model = Small().eval()
    loader = some_data(model, 100)
    found = plan_fold(model, loader, means(model, loader), max_drop=1.0, blocks=[FIRST], example=EXAMPLE)
    assert found.steps == ()
    assert found.blocks == ()
    assert (found.change.value, found.saved_params, found.saved_macs) == (0, 0, 0)
    (kept,) = found.kept
    assert kept.images == 268  # 1.645^2 (1 - 0.01) / 0.01
    assert "(0 become wrong, 0 right), at most +2.63 at 95% confidence: above 1" in kept.reason
    assert "about 268 images are needed to show that it is below" in kept.reason
    assert found.summary.startswith("no block can be folded within 1 points of top-1 error; the network is unchanged")
    assert "100 images are too few to decide for 1 of the kept blocks" in found.summary
    assert "With 100 images the bound is at least 2.63 points: use more images, or --max-drop 2.64" in found.summary


def test_nothing_within_no_budget() -> None:
    model = Small().eval()
    loader = some_data(model, 300)
    found = plan_fold(model, loader, means(model, loader), max_drop=0, example=EXAMPLE)
    assert found.blocks == ()
    assert [block.name for block in found.kept] == [FIRST, SECOND, LAST]


def test_gates_that_cannot_vary_need_no_proof() -> None:
    model = Small().eval()
    nn.init.zeros_(model.bn3.se.fc2.weight)
    nn.init.constant_(model.bn3.se.fc2.bias, 0.7)
    loader = some_data(model, 50)
    gates = means(model, loader)
    found = plan_fold(model, loader, gates, max_drop=0, example=EXAMPLE)
    assert found.blocks == (LAST,)
    assert found.steps[0].certain
    # A value other than the constant needs a bound.
    assert plan_fold(model, loader, gates | {LAST: torch.zeros(4)}, max_drop=0, example=EXAMPLE).blocks == ()


def test_hidden_units_that_nothing_reaches_make_constants() -> None:
    """The last layer only reads units without weights, whose inputs are their biases."""
    model = Small().eval()
    se = model.bn3.se
    with torch.no_grad():
        se.fc1.weight[:2] = 0
        se.fc2.weight[:, 2:] = 0
        se.fc1.bias[:2] = torch.tensor([0.4, -0.3])
    loader = some_data(model, 50)
    gates = means(model, loader)
    assert plan_fold(model, loader, gates, max_drop=0, example=EXAMPLE).blocks == (LAST,)
    with torch.no_grad():
        se.fc1.weight[0, 0] = 0.5
    assert plan_fold(model, loader, means(model, loader), max_drop=0, example=EXAMPLE).blocks == ()


def with_inactive_hidden_units() -> Small:
    """Return a network whose first block has the same gates for every image."""
    model = Small().eval()
    with torch.no_grad():
        model.bn1.se.fc2.weight.normal_(std=1)
        model.bn1.se.fc1.bias.fill_(-1000.0)
    return model


def test_gates_that_are_the_same_for_every_image_need_no_bound() -> None:
    """With 100 images the block folds within any budget, and no logit changes."""
    model = with_inactive_hidden_units()
    loader = some_data(model, 100)
    gates = means(model, loader)
    found = plan_fold(model, loader, gates, max_drop=0, example=EXAMPLE)
    assert found.blocks == (FIRST,)
    (step,) = found.steps
    assert (step.certain, step.unchanged) == (False, True)
    assert (step.error.value, step.error.low, step.error.high) == (0, 0, 0)
    # A block that changes logits but no prediction still needs images.
    (kept,) = (block for block in found.kept if block.name == LAST)
    assert kept.error is not None
    assert kept.error.high >= 2.63
    bounds = {one.name: one.bound for one in ablate_blocks(model, loader, gates)}
    assert bounds[FIRST] == 0
    assert bounds[LAST] == pytest.approx(kept.error.high)
    # A unit that is inactive for 99 images, not by its bias, is not proof; 100 images are.
    with torch.no_grad():
        model.bn1.se.fc1.weight.abs_().neg_()
        model.bn1.se.fc1.bias.zero_()
        model.bn1.weight.zero_()
        model.bn1.bias.fill_(1.0)
    few, more = some_data(model, 99), some_data(model, 100)
    assert plan_fold(model, few, means(model, few), max_drop=0, blocks=[FIRST], example=EXAMPLE).blocks == ()
    assert plan_fold(model, more, means(model, more), max_drop=0, blocks=[FIRST], example=EXAMPLE).blocks == (FIRST,)


def test_another_value_than_the_gates_own_needs_a_bound() -> None:
    model = with_inactive_hidden_units()
    loader = some_data(model, 100)
    gates = means(model, loader)
    assert plan_fold(model, loader, gates | {FIRST: gates[FIRST] * 0.9}, max_drop=0, example=EXAMPLE).blocks == ()


def test_blocks_that_cannot_be_folded_have_a_reason() -> None:
    model = Small().eval()
    model.bn1.se.requires_grad_(False)
    model.conv3 = model.conv2  # whose rows are not before the last block alone; batch norms are
    model.bn3 = model.bn2
    loader = some_data(model, 400)
    found = plan_fold(model, loader, means(model, loader), max_drop=1.0, example=EXAMPLE)
    assert FIRST in found.blocks
    (kept,) = found.kept
    assert "runs 2 times in a forward pass" in kept.reason
    assert kept.error is None
    assert kept.images is None


def fake(table: Mapping[frozenset[str], int], images: int) -> object:
    """Predictions from a table: how many images become wrong with which blocks folded."""

    def outcome(names: frozenset[str]) -> Predictions:
        wrong = np.zeros(images, bool)
        wrong[: table[names]] = True
        return Predictions(wrong, wrong, np.zeros(images) + table[names], np.zeros(images), 1.0)

    def predict_with_overrides(
        model: nn.Module, loader: object, fixed: Mapping[str, Tensor], left: Mapping[str, Tensor], progress: object
    ):
        base = frozenset(fixed)
        return outcome(frozenset()), outcome(base), {name: outcome(base | {name}) for name in left}

    return predict_with_overrides


def test_measured_again_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Small().eval()
    gates = {unit.name: torch.full((4,), 0.5) for unit in find_se(model)}
    alone = {(): 0, (FIRST,): 3, (SECOND,): 2, (LAST,): 4}
    both = {(FIRST, SECOND): 30, (SECOND, LAST): 5, (FIRST, LAST): 6, (FIRST, SECOND, LAST): 40}
    monkeypatch.setattr(
        greedy_selection,
        "predict_with_overrides",
        fake({frozenset(names): n for names, n in (alone | both).items()}, 10_000),
    )
    found = plan_fold(model, [], gates, max_drop=0.2, example=EXAMPLE)
    # The first alone is within the budget, but not together with the second.
    assert found.blocks == (SECOND, LAST)
    assert [round(step.error.value, 3) for step in found.steps] == [0.02, 0.05]
    assert [step.loss for step in found.steps] == [2, 5]
    assert found.change == found.steps[-1].error
    (kept,) = found.kept
    assert kept.error is not None
    assert kept.error.value == pytest.approx(0.4)
    # More confidence widens the bound; a smaller budget allows fewer blocks.
    assert plan_fold(model, [], gates, max_drop=0.08, example=EXAMPLE).blocks == (SECOND,)
    assert plan_fold(model, [], gates, max_drop=0.08, confidence=0.999, example=EXAMPLE).blocks == ()
    assert plan_fold(model, [], gates, max_drop=1, example=EXAMPLE).blocks == (SECOND, LAST, FIRST)


def test_refusals() -> None:
    model = Small().eval()
    loader = some_data(model, 10)
    gates = means(model, loader)
    for options, message in (
        ({"max_drop": -1}, "max_drop must be 0 to 100 percentage points, such as 0.2, got -1"),
        ({"max_drop": float("nan")}, "max_drop must be"),
        ({"confidence": 95}, "confidence must be between 0.5 and 1, such as 0.95, got 95"),
        ({"blocks": ["bn4.se"]}, "unknown SE module 'bn4.se'; did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_fold(model, loader, gates, example=EXAMPLE, **options)
    with pytest.raises(GatesError, match="Sequential has no SE"):
        plan_fold(nn.Sequential(nn.Conv2d(2, 2, 1)), loader, gates)
    with pytest.raises(DataError, match="no images"):
        plan_fold(model, [], gates, example=EXAMPLE)
