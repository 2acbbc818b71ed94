"""Steps in CUDA graphs, by a stand-in that repeats operations: the bits of steps without, or a line that says why."""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.data.loading.device_batches import keep_on_device
from senet.insertion.insert import insert
from senet.nn.block import SqueezeExcitation
from senet.nn.fused import fused_by
from senet.runs import Silent
from senet.training import Trainer, loop, train_epoch
from senet.training import trainer as trainer_module
from senet.training.distributed.processes import Processes
from senet.training.stopwatch import Stopwatch
from senet.utils.errors import TrainingError
from senet.utils.notices import listening
from tests.graph_tape import TapeGraphs
from tests.training.runs import assert_same, run
from tests.training.small import differing, epoch_of, small_data, small_loader, small_network, small_recipe, state_of

CASES: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "average": {"ema": 0.9, "momentum": 0.9},
    "parts": {"accumulate": 2, "momentum": 0.9},
    "mixed": {"mixup": 0.3, "cutmix": 0.5, "label_smoothing": 0.1},
    "smoothing": {"label_smoothing": 0.1, "schedule": "one_cycle", "warmup": 1.5},
    "class weights": {"class_weights": "balanced", "schedule": "cosine", "warmup": 0.5},
    "plateau": {"schedule": "plateau", "patience": 0, "drop_factor": 0.5},
    "bf16": {"precision": "bf16", "momentum": 0.9},
    "fp16": {"precision": "fp16", "momentum": 0.9, "ema": 0.9},
    "frozen batch norms": {"freeze_bn_epochs": 1, "ema": 0.5},
    "se": {"train_only": "se", "se_lr_factor": 3.0},
    "everything": {
        "optimizer": "adamw",
        "lr": 0.01,
        "precision": "bf16",
        "accumulate": 2,
        "ema": 0.9,
        "mixup": 0.2,
        "schedule": "step",
        "milestones": [1, 2],
        "freeze_bn_epochs": 1,
        "on_nonfinite": "skip",
    },
}
LABELS = [n % 3 if n % 5 else 0 for n in range(22)]


class Dropping(nn.Module):
    """A network with dropout behind."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop = small_network(units=(1,), channels=(8,), widths=(8,)), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Any:
        return self.drop(self.body(x))


@pytest.fixture(autouse=True)
def unfused() -> Iterator[None]:
    """Batch norm with SE is computed by separate operations, which it is anyway where operations are recorded."""
    before = fused_by("cpu")
    senet.set_fused("off")
    yield
    senet.set_fused(before)


@pytest.fixture(autouse=True)
def by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are read by their number alone, and not after a time."""
    monkeypatch.setattr(trainer_module, "_SECONDS", math.inf)


def trainer_of(
    tape: TapeGraphs | None,
    *,
    cuda_graph: str = "auto",
    every: int = 3,
    on_device: bool = False,
    device: str = "cpu",
    **options: Any,
) -> Trainer:
    """A trainer of 3 epochs of 5 steps."""
    recipe = small_recipe(**{"epochs": 3, "cuda_graph": cuda_graph, "crop": "pad", "flip": True, **options})
    loader = small_loader(recipe, small_data(LABELS))
    if on_device:
        assert loader.memory is not None
        loader.on_device = keep_on_device(
            *loader.memory, recipe.preprocessing, recipe.augmentation, torch.device(device)
        )
    torch.manual_seed(5)
    return Trainer(Dropping().to(device), recipe, loader, read_every=every, graphs=tape)


def epochs(trainer: Trainer, count: int) -> None:
    """Train so many epochs, with errors of evaluation that stop falling."""
    for _ in range(count):
        number = len(trainer.epochs)
        train_epoch(trainer, Silent())
        known = {
            **trainer.training_values,
            "top1_error": 50.0 - min(number, 1),
        }
        trainer.epochs.append(epoch_of(**known))
        trainer.start_epoch()


def with_and_without(case: str, device: str, graphs: Callable[[], TapeGraphs | None]) -> tuple[list[str], int]:
    """Train without a graph, and with graphs that make the batches too: what differs, and how many captures."""
    lines = list[str]()
    plain = trainer_of(graphs(), cuda_graph="off", device=device, **CASES[case])
    graphed = trainer_of(graphs(), device=device, on_device=True, **CASES[case])
    with listening(lines.append):
        for trainer in (plain, graphed):
            epochs(trainer, 3)
    step = graphed._graph
    assert step is not None
    assert step._captured is not None, lines
    return lines + differing(state_of(plain), state_of(graphed), ".seconds"), step._captured.captures


def check_on_gpu() -> None:
    """Raise for the cases that differ."""
    found = {case: with_and_without(case, "cuda", lambda: None) for case in CASES}
    wrong = {case: (different, captures) for case, (different, captures) in found.items() if different or not captures}
    assert not wrong, wrong


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_change_no_bit(case: str) -> None:
    tapes = [TapeGraphs(), TapeGraphs()]
    different, captures = with_and_without(case, "cpu", iter(tapes).__next__)
    assert not different
    # One step makes the optimizer's state, three warm up; and again where batch norms are frozen.
    frozen = CASES[case].get("freeze_bn_epochs", 0)
    assert [graph.replays for graph in tapes[1].graphs] == ([6, 2] if frozen else [11])
    assert captures == len(tapes[1].graphs)
    assert not tapes[0].graphs


def test_batches_are_made_within_the_graph_where_the_data_are_on_the_device() -> None:
    for options, shapes in ((CASES["sgd"], [(4, 4)]), (CASES["mixed"], [(4, 3, 8, 8), (4,)])):
        plain, tape = trainer_of(TapeGraphs(), cuda_graph="off", **options), TapeGraphs()
        graphed = trainer_of(tape, on_device=True, **options)
        assert [tuple(tensor.shape) for tensor in next(graphed.batches())] == shapes
        for trainer in (plain, graphed):
            epochs(trainer, 2)
        assert not differing(state_of(plain), state_of(graphed), ".seconds")
        assert [graph.replays for graph in tape.graphs] == [6]


def test_what_is_kept_on_the_device_makes_the_steps_of_numbers_on_the_host() -> None:
    """Learning rates and counts of an optimizer."""
    on_device = trainer_of(TapeGraphs(), cuda_graph="off", momentum=0.9, schedule="cosine")
    on_host = trainer_of(None, momentum=0.9, schedule="cosine")
    for trainer in (on_device, on_host):
        epochs(trainer, 2)
    assert not differing(state_of(on_device), state_of(on_host), ".seconds")


@pytest.mark.parametrize("case", ["sgd", "everything", "fp16"])
def test_runs_that_are_resumed_within_an_epoch_change_no_bit(case: str) -> None:
    whole, tape = trainer_of(TapeGraphs(), **CASES[case]), TapeGraphs()
    epochs(whole, 3)
    first = trainer_of(tape, **CASES[case])
    epochs(first, 1)
    first.begin()
    for pixels, labels in list(first.training.epoch(1))[:3]:
        first.train_step(pixels, labels)
    saved = copy.deepcopy(first.state_dict())
    rates = [group["lr"] for group in saved["optimizer"]["param_groups"]]
    assert all(type(rate) is float for rate in rates)
    second = trainer_of(tape, **CASES[case])
    second.load_state_dict(saved)
    assert all(isinstance(group["lr"], Tensor) for group in second.optimizer.param_groups)
    replays = sum(graph.replays for graph in tape.graphs)
    epochs(second, 2)
    assert sum(graph.replays for graph in tape.graphs) > replays
    assert not differing(state_of(whole), state_of(second), ".seconds")


@pytest.mark.parametrize("case", ["sgd", "adamw", "average", "fp16"])
@pytest.mark.parametrize("on_nonfinite", ["skip", "stop"])
def test_steps_that_are_not_finite_are_cancelled_within_the_graph(case: str, on_nonfinite: str) -> None:
    """The 8th and the 9th step of the run, which are replays, are not finite; the host reads every four steps."""
    found: list[dict[str, Any]] = []
    messages = []
    for cuda_graph in ("off", "auto"):
        tape = TapeGraphs()
        trainer = trainer_of(tape, cuda_graph=cuda_graph, every=4, **CASES[case] | {"on_nonfinite": on_nonfinite})
        epochs(trainer, 1)
        trainer.begin()
        weight = next(trainer.model.parameters()).data
        try:
            for number, (pixels, labels) in enumerate(trainer.training.epoch(1)):
                before = weight.clone()
                if number in (2, 3):
                    weight.fill_(math.nan)
                try:
                    trainer.train_step(pixels, labels)
                finally:
                    if number in (2, 3):
                        weight.copy_(before)
            trainer.read()
        except TrainingError as error:
            messages.append(str(error))
        found.append(state_of(trainer))
        assert trainer.state.step == (5 if on_nonfinite == "skip" else 3)
        assert trainer.state.left_out == (2 if on_nonfinite == "skip" else 0)
        assert (cuda_graph == "off") == (not tape.graphs)
    assert not differing(found[0], found[1], ".seconds")
    assert len(messages) == (0 if on_nonfinite == "skip" else 2)
    assert all("the loss is nan at step 3 of epoch 2" in message for message in messages)
    assert len(set(messages)) <= 1


def wait_in_forward(trainer: Trainer) -> None:
    trainer.model.register_forward_hook(lambda module, args, output: print(bool(output.sum() > 0)))


def wait_in_optimizer(trainer: Trainer) -> None:
    """Between the gradient scaler's unscaling and its update."""
    weight = next(trainer.model.parameters())
    trainer.optimizer.register_step_pre_hook(lambda *_: print(bool(weight.sum() > 0)))


@pytest.mark.parametrize("wait", [wait_in_forward, wait_in_optimizer])
@pytest.mark.parametrize("case", ["sgd", "everything", "fp16"])
def test_a_capture_that_fails_leaves_the_run_intact_and_says_why_in_a_line(
    case: str, wait: Callable[[Trainer], None]
) -> None:
    plain, tape = trainer_of(TapeGraphs(), cuda_graph="off", **CASES[case]), TapeGraphs()
    graphed, lines = trainer_of(tape, **CASES[case]), list[str]()
    wait(graphed)
    with listening(lines.append):
        for trainer in (plain, graphed):
            epochs(trainer, 3)
    assert not differing(state_of(plain), state_of(graphed), ".seconds")
    assert not tape.graphs
    assert len(lines) == 1
    assert lines[0].startswith("cuda_graph: steps run without a CUDA graph: operation not permitted when stream is")
    assert "\n" not in lines[0]


OBSTACLES = [
    ("optimizer", {"optimizer": "lamb"}, "the optimizer 'lamb' reads its learning rate on the host"),
    ("profile", {}, "the profile waits for the GPU after each kind of work"),
    ("processes", {}, "several processes train together"),
]


@pytest.mark.parametrize(("what", "options", "reason"), OBSTACLES)
def test_what_prevents_a_graph_is_said_in_a_line(
    what: str, options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "profile":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if what == "processes":
        monkeypatch.setattr(Processes, "is_distributed", True)
    recipe, lines = small_recipe(**options), list[str]()
    with listening(lines.append):
        Trainer(small_network(), recipe, small_loader(recipe), Stopwatch(what == "profile"), graphs=TapeGraphs())
    assert lines == [f"cuda_graph: steps run without a CUDA graph: {reason}"]


@pytest.mark.parametrize("options", [{}, {"cuda_graph": "off"}, {"optimizer": "lamb"}])
def test_nothing_is_said_where_graphs_are_off_or_there_is_no_gpu(options: dict[str, Any]) -> None:
    recipe, lines = small_recipe(**options), list[str]()
    with listening(lines.append):
        trainer = Trainer(small_network(), recipe, small_loader(recipe))
        epochs(trainer, 1)
    assert lines == []
    assert all(type(group["lr"]) is float for group in trainer.optimizer.param_groups)


def test_smaller_batches_have_a_graph_of_their_own_and_rare_sizes_none() -> None:
    """Where images cannot be read, a batch has fewer."""
    tape, lines = TapeGraphs(), list[str]()
    plain, graphed = trainer_of(TapeGraphs(), cuda_graph="off"), trainer_of(tape)
    sizes = [4] * 5 + [3] * 5 + [2, 4, 1, 5, 6, 4, 3, 2]
    with listening(lines.append):
        for trainer in (plain, graphed):
            trainer.begin()
            pixels, labels = next(trainer.training.epoch(0))
            for size in sizes:
                trainer.train_step(pixels.repeat(2, 1, 1, 1)[:size], labels.repeat(2)[:size])
    assert not differing(state_of(plain), state_of(graphed), ".seconds")
    assert [graph.replays for graph in tape.graphs] == [3, 3]
    assert lines == ["CUDA graphs: more than 4 input shapes; further shapes run without a graph"]


@pytest.mark.slow
def test_compiled_networks_are_captured(monkeypatch: pytest.MonkeyPatch, traced: None) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend="aot_eager"))
    plain, tape, lines = trainer_of(TapeGraphs(), cuda_graph="off", compile=True), TapeGraphs(), list[str]()
    graphed = trainer_of(tape, compile=True)
    with listening(lines.append):
        for trainer in (plain, graphed):
            epochs(trainer, 2)
    assert not differing(state_of(plain), state_of(graphed), ".seconds")
    assert not lines
    assert [graph.replays for graph in tape.graphs] == [6]


def test_a_whole_run_with_graphs_changes_no_bit_and_releases_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_curves: None
) -> None:
    """With drop path, evaluations between the epochs, and the averaged network saved."""
    tapes = {"off": TapeGraphs(), "auto": TapeGraphs()}
    for choice, tape in tapes.items():
        monkeypatch.setattr(loop, "Trainer", partial(Trainer, read_every=2, graphs=tape))
        run(tmp_path / choice, f"cuda_graph={choice}", "ema=0.9")
    assert_same(tmp_path / "auto", tmp_path / "off")
    assert not tapes["off"].graphs
    assert [graph.replays for graph in tapes["auto"].graphs] == [5]
    assert all(graph.released for graph in tapes["auto"].graphs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_steps_change_no_bit_on_a_gpu() -> None:
    """In a process of its own: cuBLAS is deterministic by a variable that is read when CUDA starts."""
    code = (
        "import torch; torch.use_deterministic_algorithms(True);"
        "from tests.training import test_step_graph; test_step_graph.check_on_gpu()"
    )
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "SENET_FUSED": "auto"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_gains_are_not_read_from_the_device_when_steps_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain is a buffer and a Python number, which is read anew after the buffer was written to."""
    recipe = small_recipe(on_nonfinite="skip", ema=0.9, cuda_graph="off")
    model = insert(small_network(se=False), reduction=4, init="identity")
    loader = small_loader(recipe, small_data(LABELS))
    trainer = Trainer(model, recipe, loader, read_every=4, graphs=TapeGraphs())
    assert any(name.endswith("se.gain") for name, _ in model.named_buffers())
    trainer.begin()
    for number, inputs in enumerate(trainer.batches()):
        if number == 4:  # one that makes the optimizer's state, and three that warm up
            monkeypatch.delattr(SqueezeExcitation, "_read_gain")
        trainer.train_step(*inputs)
    assert trainer.state.step == 5
