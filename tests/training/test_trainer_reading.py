"""Steps whose results are read together: the same bits and the same errors as with a look at each."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from senet.insertion.insert import insert
from senet.nn.block import SqueezeExcitation
from senet.runs import Silent
from senet.training import Trainer, train_epoch
from senet.training import trainer as trainer_module
from senet.utils.errors import TrainingError
from tests.helpers import noting
from tests.slow import fast_if
from tests.training.small import (
    changed,
    differing,
    small_data,
    small_loader,
    small_network,
    small_recipe,
    state_of,
    steps,
    values,
)

UNEVEN = [n % 3 if n % 5 else 0 for n in range(40)]
# Ten steps: of these the loss is nan, and of these the gradient.
NAN_LOSS, NAN_GRADIENT = (2, 6), (3, 7)
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "sgd without momentum": {},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "fused adamw": {"optimizer": "adamw", "lr": 0.01},
    "lamb": {"optimizer": "lamb", "lr": 0.01},
    "lion": {"optimizer": "lion", "lr": 0.001},
    "counts in Python": {"optimizer": "adan", "lr": 0.01},
    "average": {"ema": 0.9, "momentum": 0.9},
    "parts, mixed": {"accumulate": 2, "mixup": 0.3, "cutmix": 0.5, "label_smoothing": 0.1},
    "class weights": {"class_weights": "balanced", "schedule": "cosine", "warmup": 0.5},
    "bf16": {"precision": "bf16", "momentum": 0.9},
    "fp16": {"precision": "fp16", "momentum": 0.9, "ema": 0.9},
    "fp16 lamb": {"precision": "fp16", "optimizer": "lamb", "lr": 0.01},
    "frozen": {"train_only": "se", "momentum": 0.9},
}
# Cases in which the optimizer counts its steps on the host, on a CPU.
COUNTING = ("adamw", "lamb", "fp16 lamb", "counts in Python")


def reading(every: int, case: str = "sgd", **options: Any) -> Trainer:
    """A trainer of 10 steps an epoch, which reads every so many."""
    recipe = small_recipe(**CASES[case] | options)
    trainer = Trainer(small_network(), recipe, small_loader(recipe, small_data(UNEVEN)), read_every=every)
    if case == "fused adamw":
        groups = [
            {k: v for k, v in g.items() if k in ("params", "lr", "weight_decay", "lr_factor")}
            for g in trainer.optimizer.param_groups
        ]
        trainer.optimizer = torch.optim.AdamW(groups, fused=True)
        trainer._step.optimizer = type(trainer._step.optimizer)(trainer.optimizer)
    trainer.begin()
    return trainer


@pytest.fixture(autouse=True)
def by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are read by their number alone, and not after a time."""
    monkeypatch.setattr(trainer_module, "_SECONDS", math.inf)


def spoil(trainer: Trainer, losses: tuple[int, ...] = NAN_LOSS, gradients: tuple[int, ...] = NAN_GRADIENT) -> None:
    """Some steps are not finite."""

    def loss(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        return (args[0] * float("nan"),) if trainer.state.step in losses else None

    trainer.model.register_forward_pre_hook(loss)
    weight = next(p for p in reversed(list(trainer.model.parameters())) if p.requires_grad)
    weight.register_hook(lambda g: g * math.inf if trainer.state.step in gradients else g)


def finish(trainer: Trainer, count: int = 10) -> None:
    """Make the steps of the first epoch from where the trainer is, and read them."""
    steps(trainer, count)
    trainer.read()


@pytest.mark.parametrize("case", CASES)
@fast_if(lambda case: case not in ("sgd without momentum", "fused adamw", "lion", "fp16 lamb", "class weights"))
def test_reading_rarely_changes_no_bit(case: str) -> None:
    """Ten steps of which four are left out, with all that makes up the state of training."""
    found = []
    for every in (1, 3, 1000):
        trainer = reading(every, case, on_nonfinite="skip")
        spoil(trainer)
        steps(trainer, 10)
        found.append(state_of(trainer))
        bad = 4 if trainer.recipe.precision != "fp16" else 2  # of infinite gradients, half precision makes no fault
        assert (trainer.state.step, trainer.state.left_out, trainer.state.images) == (10, bad, 4 * (10 - bad))
    assert not differing(found[0], found[1])
    assert not differing(found[0], found[2])


class NoWaiting(TorchDispatchMode):
    """Fails at operations for which a host waits for a GPU: values that it reads, and shapes that depend on values."""

    READS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "bincount")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = [t for t in args[1] if t is not None] if name in ("index", "index_put", "index_put_") else []
        masks = [t for t in indices if t.dtype in (torch.bool, torch.uint8)]
        if masks or name.lstrip("_") in {read.lstrip("_") for read in self.READS}:
            raise AssertionError(f"the host waits for {name}")
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("on_nonfinite", ["skip", "stop"])
@pytest.mark.parametrize("case", [case for case in CASES if case not in COUNTING])
@fast_if(lambda case, on_nonfinite: on_nonfinite == "skip" or case == "sgd")
def test_no_step_waits_for_the_device(case: str, on_nonfinite: str) -> None:
    """On a CPU, with operations that would wait for a GPU; the first step may, as the optimizer's state is made."""
    trainer = reading(1000, case, on_nonfinite=on_nonfinite)
    batches = list(trainer.training.epoch(0))
    trainer.train_step(*batches[0])
    spoil(trainer)
    with NoWaiting():
        for pixels, labels in batches[1:6]:
            trainer.train_step(pixels, labels)
    assert trainer.state.images == 4
    if on_nonfinite == "skip":
        trainer.read()
        assert (trainer.state.step, trainer.state.left_out) == (6, 1 if trainer.recipe.precision == "fp16" else 2)


@pytest.mark.parametrize("case", ["sgd", "adamw", "fused adamw", "lamb", "counts in Python", "average"])
@pytest.mark.parametrize("every", [1, 3, 1000])
@pytest.mark.parametrize(("losses", "gradients", "what"), [((5,), (), "loss is nan"), ((7,), (5,), "gradient is")])
@fast_if(lambda case, every: every == 3 or case == "average")
def test_stop_names_the_step_and_nothing_follows_it(
    case: str, every: int, losses: tuple[int, ...], gradients: tuple[int, ...], what: str
) -> None:
    """However late it is read: weights, averages, statistics and the optimizer's tensors are those before the step."""
    trainer = reading(every, case, schedule="cosine")
    spoil(trainer, losses, gradients)
    with pytest.raises(TrainingError, match=rf"{what}.* at step 6 of epoch 1, with learning rate ") as error:
        finish(trainer)
    first = reading(1, case, schedule="cosine")
    steps(first, 5)
    before, after = state_of(first), state_of(trainer)
    spoil(first, losses, gradients)
    with pytest.raises(TrainingError, match=what) as expected:
        steps(first, 1)
    assert str(error.value) == str(expected.value)
    numbers = [key for key in differing(before, after) if not isinstance(before[key], Tensor)]
    tensors = [key for key in differing(before, after) if isinstance(before[key], Tensor)]
    assert after[".step"] == 6
    # With a look at each step, a forward pass that is not finite has spoiled the statistics of a run that has ended.
    assert not [key for key in tensors if every > 1 or ("running" not in key and "batches" not in key)]
    counted = [key for key in numbers if ".lr" not in key and key != ".step"]
    assert not counted or case == "counts in Python"


def test_a_trainer_that_has_stopped_can_make_steps_again() -> None:
    trainer = reading(1000)
    spoil(trainer, (2,), ())
    with pytest.raises(TrainingError, match="at step 3 of epoch 1"):
        finish(trainer, 5)
    before = values(trainer.model)
    steps(trainer, 1)
    assert changed(before, trainer.model) == set(before)


def test_half_precision_that_finds_its_scale_is_no_fault() -> None:
    trainers = [reading(every, "fp16") for every in (1, 1000)]
    for trainer in trainers:
        trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
        steps(trainer, 10)
    one, other = (state_of(trainer) for trainer in trainers)
    assert not differing(one, other)
    assert 1 < one[".scaler.scale"] < 2.0**40


@pytest.mark.parametrize("every", [1, 1000])
def test_a_step_without_a_finite_loss_leaves_the_scale(every: int) -> None:
    """The scale is no remedy for it: the loss is nan before it is scaled."""
    trainer = reading(every, "fp16", on_nonfinite="skip")
    spoil(trainer, (2, 5), ())
    finish(trainer, 2)
    before = trainer.scaler.state_dict()
    finish(trainer, 1)
    assert trainer.state.left_out == 1
    assert trainer.scaler.state_dict() == before
    finish(trainer, 3)
    assert trainer.scaler.state_dict() == before | {"_growth_tracker": 4}


@pytest.mark.parametrize("every", [1, 1000])
def test_half_precision_stops_where_no_scale_is_left(every: int) -> None:
    trainer = reading(every, "fp16")
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0})
    spoil(trainer, (), (2, 3, 4))
    with pytest.raises(TrainingError, match=r"gradient is (nan|inf), at the scale 1.0 at step 4 of epoch 1"):
        finish(trainer)


def test_steps_are_read_when_their_number_or_time_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = reading(4), []
    for pixels, labels in trainer.training.epoch(0):
        trainer.train_step(pixels, labels)
        seen.append(trainer.state.images)
    assert seen == [4, 4, 4, 4, 20, 20, 20, 20, 36, 36]  # the first makes the optimizer's state
    monkeypatch.setattr(trainer_module, "_SECONDS", 0.0)
    trainer.train_step(pixels, labels)
    assert trainer.state.images == 44


def test_an_epoch_is_read_before_its_last_step_is_reported() -> None:
    trainer, seen = reading(1000), []

    class Steps(Silent):
        def step(self, epoch: int, step: int, steps: int, images: int, metrics: Mapping[str, float]) -> None:
            seen.append((step, images, metrics["train_loss"]))

    train_epoch(trainer, Steps())
    assert [step for step, *_ in seen] == list(range(1, 11))
    assert seen[-1][1:] == (40, trainer.state.loss)
    whole = reading(1)
    steps(whole, 10)
    assert whole.training_values == trainer.training_values


def test_a_state_is_never_saved_unread() -> None:
    trainer = reading(1000)
    spoil(trainer, (3,), ())
    steps(trainer, 3)
    assert trainer.state_dict()["images"] == 12
    steps(trainer, 3)
    with pytest.raises(TrainingError, match="the loss is nan at step 4 of epoch 1"):
        trainer.state_dict()


@pytest.mark.parametrize("every", [1, 1000])
def test_gains_are_read_once_and_not_at_each_step(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network reads a gain that was written to, which waits for the device; setting it back would write to it."""
    recipe = small_recipe(on_nonfinite="skip", ema=0.9)
    model = insert(small_network(se=False), reduction=4, init="identity")
    trainer = Trainer(model, recipe, small_loader(recipe, small_data(UNEVEN)), read_every=every)
    trainer.begin()
    steps(trainer, 2)
    reads: list[Tensor] = []
    read = SqueezeExcitation._read_gain
    monkeypatch.setattr(SqueezeExcitation, "_read_gain", noting(reads, lambda se, gain: gain, read))
    spoil(trainer, (3,), (4,))
    finish(trainer, 5)
    assert trainer.state.left_out == 2
    # As the kernels of a GPU ask for them, at each step.
    assert [se.gain_value for se in model.modules() if isinstance(se, SqueezeExcitation)] == [2.0, 2.0]
    assert not reads


# --- A GPU that is not there


def on_fake_cuda(model: nn.Module) -> None:
    """Replace parameters and buffers by tensors without memory, which say that they are on a GPU."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    empty = torch.empty(value.shape, device="cuda", dtype=value.dtype)
                    tensors[name] = nn.Parameter(empty) if tensors is module._parameters else empty  # type: ignore[assignment]


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"mixup": 0.3, "cutmix": 0.5, "accumulate": 2, "label_smoothing": 0.1},
        {"optimizer": "lion"},
    ],
    ids=str,
)
@pytest.mark.parametrize("on_nonfinite", ["skip", "stop"])
@fast_if(lambda options, on_nonfinite: on_nonfinite == "skip" or "momentum" in options)
def test_a_step_reads_nothing_of_a_gpu(
    options: dict[str, Any], on_nonfinite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors without values, each of which is on a GPU; gradients are made up, as there is no stream for them."""
    recipe = small_recipe(on_nonfinite=on_nonfinite, cuda_graph="off", **options)
    model, loader = small_network(), small_loader(recipe, small_data(UNEVEN))
    batches, flags = list(loader.epoch()), []

    def backward(self: Tensor) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def fused(parameters: list[Tensor], *rest: Any, **more: Any) -> None:  # of which there is none for such tensors
        flags.append(more["found_inf"])

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(torch, "_fused_sgd_", fused)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_fake_cuda(model)
        trainer = Trainer(model, recipe, loader)
        assert trainer.read_every > 1
        trainer.begin()
        torch.zeros(()).backward()
        trainer._step.optimizer.step(False)  # which makes the optimizer's state
        flags.clear()
        for pixels, labels in batches[:5]:
            trainer.train_step(pixels.to("cuda"), labels.to("cuda"))
        assert (trainer.state.step, trainer.state.images, len(trainer._pending)) == (5, 0, 5)
        assert all(flag.device.type == "cuda" for flag in flags)
        assert bool(flags) == (recipe.optimizer == "sgd")
        with pytest.raises(DataDependentOutputException):
            trainer.read()
