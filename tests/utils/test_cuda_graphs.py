"""Steps in CUDA graphs: replays are the steps, failures change nothing, and nothing that a graph uses is freed."""

import copy
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import senet
from senet.utils.cuda_graphs import CapturedStep
from senet.utils.errors import CaptureError
from senet.utils.notices import listening
from tests.graph_tape import TapeGraphs

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network(name: str = "se_resnet20") -> Any:
    torch.manual_seed(1)
    return senet.create_model(name, num_classes=4)


def small() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 4))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def training(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], Tensor]:
    def step(images: Tensor, labels: Tensor) -> Tensor:
        device = images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(images).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def batches(count: int, *sizes: int, device: str = "cpu", side: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(7)
    for number in range(count):
        size = sizes[number % len(sizes)]
        images = torch.randn(size, 3, side, side, generator=random)
        yield images.to(device), torch.randint(4, (size,), generator=random).to(device)


def run(step: Callable[..., Tensor], data: Iterator[tuple[Tensor, Tensor]]) -> list[float]:
    losses = []
    for number, (images, labels) in enumerate(data):
        torch.manual_seed(number)
        losses.append(float(step(images, labels)))
    return losses


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    tensors = [value.clone() for value in model.state_dict().values()]
    for values in optimizer.state.values():
        tensors += [value.clone() for value in values.values() if isinstance(value, Tensor)]
    return tensors


def assert_same(these: list[Tensor], those: list[Tensor]) -> None:
    assert len(these) == len(those) > 0
    assert all(torch.equal(one, other) for one, other in zip(these, those, strict=True))


def test_replays_are_the_steps_bit_for_bit() -> None:
    # Dropout, batch statistics and momentum, over two shapes whose calls alternate.
    eager, graphed, tape = small(), small(), TapeGraphs()
    one, other = sgd(eager), sgd(graphed)
    captured = CapturedStep(training(graphed, other), networks=[graphed], optimizer=other, backend=tape)
    expected = run(training(eager, one), batches(12, 4, 4, 3))
    assert run(captured, batches(12, 4, 4, 3)) == expected
    assert len(set(expected)) == len(expected)
    assert [graph.replays for graph in tape.graphs] == [5, 1]
    assert tape.warmed == 6
    assert_same(state(graphed, other), state(eager, one))


def test_outputs_are_static_and_inputs_are_not_kept() -> None:
    model, tape = small(), TapeGraphs()
    optimizer = sgd(model)
    captured = CapturedStep(training(model, optimizer), networks=[model], optimizer=optimizer, backend=tape, warmup=1)
    data = list(batches(4, 4))
    assert not captured.is_captured(*data[0])
    captured(*data[0])
    first = captured(*data[1])
    assert captured.is_captured(*data[2])
    value, given = float(first), data[1][0].clone()
    assert captured(*data[2]) is first
    assert float(first) != value
    assert torch.equal(data[1][0], given)


def test_a_capture_is_anew_where_modes_frozen_parameters_or_numbers_change() -> None:
    changes: list[Callable[[nn.Sequential, torch.optim.Optimizer], Any]] = [
        lambda model, _: model[1].eval(),
        lambda model, _: model[0].weight.requires_grad_(False),
        lambda _, optimizer: optimizer.param_groups[0].update(lr=0.01),
        lambda _, optimizer: optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict())),
    ]
    eager, graphed, tape = small(), small(), TapeGraphs()
    one, other = sgd(eager), sgd(graphed)
    captured = CapturedStep(training(graphed, other), networks=[graphed], optimizer=other, backend=tape, warmup=1)
    plain = training(eager, one)
    for change in [lambda *_: None, *changes]:
        change(eager, one)
        change(graphed, other)
        assert run(captured, batches(4, 4)) == run(plain, batches(4, 4))
    assert_same(state(graphed, other), state(eager, one))
    assert [graph.released for graph in tape.graphs] == [True] * 4 + [False]
    assert captured.captures == 5


def test_learning_rates_that_are_tensors_are_read_at_every_replay() -> None:
    eager, graphed, tape = small(), small(), TapeGraphs()
    one, other = sgd(eager), sgd(graphed)
    rate, parameters = torch.tensor(0.05), list(graphed.parameters())

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(graphed(images), labels)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.detach().sub_(gradient * rate)
        return loss.detach()

    run(training(eager, one), batches(1, 4)), run(training(graphed, other), batches(1, 4))
    captured = CapturedStep(step, networks=[graphed], backend=tape, warmup=1)
    losses = []
    for number, batch in enumerate(batches(5, 4)):
        rate.fill_(0.1 * number)
        losses.append(float(captured(*batch)))
    assert captured.captures == 1
    assert len(set(losses)) == 5


@pytest.mark.parametrize(
    ("wait", "reason"),
    [
        (lambda loss, _: loss.item(), "operation not permitted when stream is capturing"),
        (lambda _, labels: torch.nonzero(labels), "operation not permitted when stream is capturing"),
        (lambda loss, _: torch.tensor(1.0) * loss, "operation not permitted when stream is capturing"),
        (lambda *_: {}["no"], "'no'"),
    ],
)
def test_a_capture_that_fails_leaves_everything_as_before(wait: Callable[..., Any], reason: str) -> None:
    model, tape = small(), TapeGraphs()
    optimizer = sgd(model)
    plain = training(model, optimizer)
    failing = [False]

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = plain(images, labels)
        if failing[0]:
            wait(loss, labels)
        return loss

    captured = CapturedStep(step, networks=[model], optimizer=optimizer, backend=tape)
    data = list(batches(4, 4))
    run(captured, iter(data[:3]))
    failing[0] = True
    before, gradients = state(model, optimizer), [parameter.grad for parameter in model.parameters()]
    held = [gradient.clone() for gradient in gradients if gradient is not None]
    random = torch.get_rng_state()
    with pytest.raises(CaptureError, match="cannot be captured in a CUDA graph") as caught:
        captured(*data[3])
    assert caught.value.reason.startswith(reason)
    assert "\n" not in str(caught.value)
    assert_same(state(model, optimizer), before)
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))
    assert_same([gradient for gradient in gradients if gradient is not None], held)
    assert torch.equal(torch.get_rng_state(), random)
    assert not captured.is_captured(*data[3])


def test_a_capture_that_fails_releases_the_graphs_of_other_shapes() -> None:
    model, tape = small(), TapeGraphs()

    def step(images: Tensor) -> Tensor:
        return images * images.sum().item() if len(images) == 3 else images + 1

    captured = CapturedStep(step, networks=[model], backend=tape, warmup=1)
    for _ in range(2):
        captured(torch.zeros(4, 2))
    captured(torch.zeros(3, 2))
    with pytest.raises(CaptureError, match="not permitted when stream is capturing"):
        captured(torch.zeros(3, 2))
    assert [graph.released for graph in tape.graphs] == [True]


def test_interrupts_are_no_capture_errors() -> None:
    model, calls = small(), [0]

    def step(images: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return images + 1

    captured = CapturedStep(step, networks=[model], backend=TapeGraphs(), warmup=1)
    captured(torch.zeros(2))
    with pytest.raises(KeyboardInterrupt):
        captured(torch.zeros(2))


def test_autocast_around_the_step_is_refused() -> None:
    model = small()
    captured = CapturedStep(model, networks=[model], backend=TapeGraphs(), warmup=1)
    images = torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        captured(images)
        with pytest.raises(CaptureError, match="autocast was entered around it; enter autocast inside the step"):
            captured(images)


def test_casts_of_weights_are_recorded_where_autocast_is_entered_inside() -> None:
    model = nn.Linear(4, 4)

    def step(images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(images), model(images)

    captured = CapturedStep(step, networks=[model], backend=TapeGraphs(), warmup=1)
    images = torch.randn(2, 4)
    for _ in range(2):
        captured(images)
    model.weight.data.mul_(2.0)
    with torch.no_grad():
        assert torch.equal(captured(images)[1], step(images)[1])


def test_optimizers_that_count_in_python_are_refused() -> None:
    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            self.param_groups[0]["count"] = self.param_groups[0].get("count", 0) + 1
            return super().step(closure)

    model = small()
    run(training(model, sgd(model)), batches(1, 4))
    optimizer = Counting(model.parameters(), lr=0.1)
    captured = CapturedStep(training(model, optimizer), networks=[model], optimizer=optimizer, backend=TapeGraphs())
    with pytest.raises(CaptureError, match="Counting changes numbers in Python or replaces tensors at every step"):
        run(captured, batches(4, 4))


def test_state_on_another_device_is_refused_with_the_remedy() -> None:
    model = nn.Linear(2, 2)
    optimizer = sgd(model)
    optimizer.state[model.weight]["step"] = torch.zeros(1, device="meta")
    captured = CapturedStep(model, networks=[model], optimizer=optimizer, backend=TapeGraphs(), warmup=1)
    captured(torch.zeros(1, 2))
    with pytest.raises(CaptureError, match="tensors on meta.*fused=True or capturable=True"):
        captured(torch.zeros(1, 2))


def test_shapes_beyond_the_bound_run_without_a_graph_and_it_is_said_once() -> None:
    lines: list[Any] = []
    model, tape = small(), TapeGraphs()
    captured = CapturedStep(lambda x: x * 2, networks=[model], backend=tape, warmup=1, max_shapes=2)
    with listening(lines.append):
        for _ in range(3):
            for size in (1, 2, 3, 4):
                assert torch.equal(captured(torch.ones(size)), torch.full((size,), 2.0))
    assert lines == ["CUDA graphs: more than 2 input shapes; further shapes run without a graph"]
    assert len(tape.graphs) == 2


def test_captures_are_bounded() -> None:
    model, tape = small(), TapeGraphs()
    captured = CapturedStep(lambda x: x * 2, networks=[model], backend=tape, warmup=1, max_captures=3)
    for number in range(6):
        model.train(number // 2 % 2 == 0)
        captured(torch.ones(1))
    model.eval()
    captured(torch.ones(1))
    with pytest.raises(CaptureError, match="its state changed so often that it was captured 3 times"):
        captured(torch.ones(1))
    assert all(graph.released for graph in tape.graphs)


def test_the_object_keeps_network_optimizer_and_their_tensors() -> None:
    model, tape = small(), TapeGraphs()
    optimizer = sgd(model)
    data = list(batches(5, 4))
    captured = CapturedStep(training(model, optimizer), networks=[model], optimizer=optimizer, backend=tape)
    run(captured, iter(data[:4]))
    twin = copy.deepcopy(model)
    other = sgd(twin)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    owned = [model, optimizer, *model.parameters(), *model.buffers()]
    owned += [values["momentum_buffer"] for values in optimizer.state.values()]
    references = [weakref.ref(thing) for thing in owned]
    del model, optimizer, owned
    gc.collect()
    assert all(reference() is not None for reference in references)
    assert run(captured, iter(data[4:])) == run(training(twin, other), iter(data[4:]))
    del captured, tape
    gc.collect()
    assert not any(reference() is not None for reference in references)


def test_tensors_of_a_graph_outlive_their_replacement() -> None:
    model, tape = small(), TapeGraphs()
    optimizer = sgd(model)
    captured = CapturedStep(training(model, optimizer), networks=[model], optimizer=optimizer, backend=tape)
    run(captured, batches(4, 4))
    old = [weakref.ref(values["momentum_buffer"]) for values in optimizer.state.values()]
    tape.graphs[-1]._operations = []  # a CUDA graph holds addresses and no tensors
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gc.collect()
    assert all(reference() is not None for reference in old)
    run(captured, batches(1, 4))
    gc.collect()
    assert not any(reference() is not None for reference in old)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="warmup must be 1 or more, got 0: a step has to run"):
        CapturedStep(small(), networks=[small()], warmup=0)
    with pytest.raises(ValueError, match="give backend="):
        CapturedStep(nn.Identity(), networks=[nn.Identity()])
    with pytest.raises(CaptureError, match="it runs on cpu, and CUDA graphs need a CUDA device"):
        CapturedStep(small(), networks=[nn.Linear(1, 1)])


def check_two_networks(device: str, backend: Callable[[], Any] = lambda: None, size: int = 16, side: int = 32) -> None:
    """Capture two networks, drop all other references, empty the cache, fill what is free, and replay both."""
    steps, expected = {}, {}
    for name in ("se_resnet20", "resnet20"):
        data = list(batches(7, size, device=device, side=side))
        model = network(name).to(device).to(memory_format=torch.channels_last)
        expected[name] = run(training(model, sgd(model)), iter(data))
        model = network(name).to(device).to(memory_format=torch.channels_last)
        optimizer = sgd(model)
        steps[name] = CapturedStep(training(model, optimizer), networks=[model], optimizer=optimizer, backend=backend())
        assert run(steps[name], iter(data[:4])) == expected[name][:4]
    del model, optimizer, data
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    rubbish = [torch.full((1 << 18,), float("nan"), device=device) for _ in range(64)]  # where freed memory was
    for number, batch in enumerate(batches(7, size, device=device, side=side)):
        for name, step in steps.items():
            if number >= 4:
                torch.manual_seed(number)
                assert float(step(*batch)) == expected[name][number]
    assert all(bool(tensor.isnan().all()) for tensor in rubbish)


def keep_replay_alone() -> None:
    """What a measuring script did: keep `graph.replay` alone. Entering another capture then empties the cache."""
    replays = []
    for _ in range(2):
        model = network("se_resnet20").cuda()
        captured = CapturedStep(training(model, sgd(model)), networks=[model], warmup=1)
        run(captured, batches(2, 16, device="cuda", side=32))
        (capture,) = captured._captured.values()
        replays.append(capture.graph.replay)
        del model, captured, capture
        gc.collect()
    torch.cuda.empty_cache()
    for replay in replays:
        replay()
        torch.cuda.synchronize()


def on_gpu(call: str) -> "subprocess.CompletedProcess[str]":
    """Run a function of this module in a process of its own, with deterministic algorithms."""
    code = (
        "import torch; torch.use_deterministic_algorithms(True);"
        f"from tests.utils import test_cuda_graphs; test_cuda_graphs.{call}"
    )
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "SENET_FUSED": "auto"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_networks_replay_after_all_other_references_are_dropped() -> None:
    senet.set_fused("off")
    try:
        check_two_networks("cpu", TapeGraphs, size=2, side=8)
    finally:
        senet.set_fused("aten")


@needs_gpu
def test_two_networks_replay_on_a_gpu_after_all_other_references_are_dropped() -> None:
    done = on_gpu("check_two_networks('cuda')")
    assert done.returncode == 0, done.stderr


@needs_gpu
def test_a_replay_without_its_network_reads_freed_memory() -> None:
    """Why one object owns everything: entering a capture gives freed memory back to the driver, and a replay faults.

    If this fails because nothing went wrong, another cause has to be found for the fault that was once seen.
    """
    done = on_gpu("keep_replay_alone()")
    assert done.returncode != 0
    assert "illegal memory access" in done.stderr, done.stderr


@needs_gpu
def test_dropout_on_a_gpu_follows_the_seed_of_each_call() -> None:
    drop = nn.Dropout(0.5)
    captured = CapturedStep(drop, networks=[drop, nn.Linear(1, 1).cuda()], warmup=1)
    ones = torch.ones(1000, device="cuda")
    for seed in (3, 4, 3, 5):
        torch.manual_seed(seed)
        given = captured(ones).clone()
        torch.manual_seed(seed)
        assert torch.equal(given, drop(ones))


@needs_gpu
def test_a_capture_on_a_gpu_that_fails_leaves_pytorch_usable() -> None:
    model = nn.Linear(4, 4).cuda()
    captured = CapturedStep(lambda x: model(x) * model(x).sum().item(), networks=[model], warmup=1)
    images = torch.randn(2, 4, device="cuda")
    captured(images)
    stream = torch.cuda.current_stream()
    with pytest.raises(CaptureError, match="cannot be captured in a CUDA graph"):
        captured(images)
    assert torch.cuda.current_stream() == stream
    assert torch.isfinite(F.dropout(model(images), 0.5).sum())
    working = CapturedStep(model, networks=[model], warmup=1)
    for _ in range(3):
        assert torch.equal(working(images), model(images))
