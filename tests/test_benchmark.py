import gc
import importlib.util
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

import senet
from senet.benchmark import (
    CudaEvent,
    Setting,
    Step,
    clock_for,
    hardware,
    interleave,
    measure,
    open_network,
    plain_twin,
    ratio,
)
from senet.benchmark.timing import AGREEING, FEWEST_ROUNDS, LIMIT
from senet.graph.saved_tensors import _Held
from senet.nn.fused import fused_choice
from senet.nn.inserted_se import find_inserted_se
from senet.utils.errors import CaptureError
from tests.graph_tape import TapeGraphs
from tests.helpers import noting

SMALL: dict[str, Any] = {"batch": 2, "size": 8, "threads": 1, "device": "cpu"}


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def side(clock: Clock, seconds: Callable[[int], float], calls: list[str], name: str = "") -> Callable[[], None]:
    """A step that takes so many seconds in its n-th call."""

    def step() -> None:
        clock.now += seconds(calls.count(name))
        calls.append(name)

    return step


class Timed(nn.Module):
    """A network of one convolution whose forward pass takes so many seconds of a clock."""

    def __init__(self, clock: Clock, seconds: Iterable[float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls = clock, list(seconds), 0
        self.conv = nn.Conv2d(3, 4, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Timed":
        copy = Timed(self.clock, self.seconds)
        copy.load_state_dict(self.state_dict())
        return copy

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds[self.calls % len(self.seconds)]
        self.calls += 1
        return self.conv(x).mean((2, 3))


# --- ratios ---


def test_a_ratio_is_the_median_of_ratios_with_quartiles() -> None:
    above, below = np.array([2.0, 6.0, 3.0, 10.0, 4.0]), np.array([1.0, 2.0, 2.0, 2.0, 1.0])
    found = ratio(above, below)  # 2, 3, 1.5, 5, 4
    assert (found.median, found.quartiles, found.rounds) == (3.0, (2.0, 4.0), 5)


def test_the_interval_is_scipys_bootstrap() -> None:
    generator = np.random.default_rng(3)
    above, below = generator.lognormal(0, 0.1, 41), generator.lognormal(0, 0.1, 41)
    expected = stats.bootstrap(
        ((above / below),), np.median, n_resamples=20_000, method="percentile", random_state=generator
    ).confidence_interval
    found = ratio(above, below)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=0.005)
    assert found == ratio(above, below)  # seeded


def test_a_narrow_spread_tells_and_a_wide_one_does_not() -> None:
    one = np.ones(9)
    assert ratio(1.2 * one, one).conclusive
    assert ratio(1.2 * one, one).reason == ""
    wide = ratio(np.array([1.0, 1.0, 1.0, 1.0, 1.2, 1.4, 1.4, 1.4, 1.4]), one)
    assert not wide.conclusive
    assert "1.000 to 1.400, reaches more than 5 % from its median 1.200; give more rounds or seconds" in wide.reason
    few = ratio(one[:5], one[:5])
    assert few.reason == "5 rounds are too few for a 95 % interval; give 6 rounds or more"


@pytest.mark.parametrize(
    ("above", "below", "message"),
    [([], [], "1 round or more"), ([1.0], [1.0, 2.0], r"\(1,\) and \(2,\)"), ([1.0], [0.0], "the clock did not move")],
)
def test_a_ratio_refuses(above: list[float], below: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratio(np.array(above), np.array(below))


# --- turns ---


def test_sides_alternate_and_no_side_is_always_first() -> None:
    calls: list[Any] = []
    clock = Clock()
    sides = [side(clock, lambda _: 1.0, calls, name) for name in "ab"]
    times = interleave(sides, clock, rounds=4)
    assert "".join(calls) == "abbab" + "a" + "abbabaab"  # three turns to warm up, four rounds
    assert (times.warm_up, times.steady, times.steps) == (AGREEING, True, 1)
    calls.clear()
    interleave([side(clock, lambda _: 1.0, calls, name) for name in "abc"], clock, rounds=6)
    rounds = ["".join(calls[start : start + 3]) for start in range(9, 27, 3)]
    assert rounds == ["abc", "cba", "bca", "acb", "cab", "bac"]


def test_warm_up_lasts_until_the_times_agree() -> None:
    calls: list[Any] = []
    clock = Clock()
    slow_at_first = [side(clock, lambda n: [9.0, 3.0, 1.05, 1.0][min(n, 3)], calls, "a"), side(clock, lambda _: 1, [])]
    times = interleave(slow_at_first, clock, rounds=2)
    assert (times.warm_up, times.steady) == (5, True)  # 1.05, 1, 1
    assert times.seconds.tolist() == [[1, 1], [1, 1]]


def test_warm_up_ends_at_a_limit() -> None:
    clock = Clock()
    calls: list[str] = []
    times = interleave([side(clock, lambda n: 1.0 + n % 2, calls)], clock, rounds=1)
    assert (times.warm_up, times.steady) == (LIMIT, False)


def always(seconds: float) -> Callable[[int], float]:
    return lambda _: seconds


def test_a_short_step_is_repeated_within_a_round() -> None:
    calls: list[Any] = []
    clock = Clock()
    sides = [side(clock, always(seconds), calls, str(seconds)) for seconds in (0.03, 0.06)]
    times = interleave(sides, clock, rounds=2)
    assert times.steps == 4
    assert times.seconds == pytest.approx(np.array([[0.03, 0.06]] * 2))
    assert calls[6:14] == ["0.03"] * 4 + ["0.06"] * 4


def test_rounds_follow_from_the_seconds() -> None:
    clock = Clock()
    assert len(interleave([side(clock, lambda _: 1.0, [])], clock, seconds=20).seconds) == 20
    assert len(interleave([side(clock, lambda _: 1.0, [])], clock, seconds=1).seconds) == FEWEST_ROUNDS


class Device:
    """A GPU that works through a queue, by a clock of its own; the host only queues, and waits where it has to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued, self.waits = 0.0, 0
        device = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing  # without, elapsed_time raises
                self.at: float | None = None

            def record(self) -> None:
                self.at = device.queued

            def synchronize(self) -> None:
                device.waits += 1

            def elapsed_time(self, later: "Event") -> float:
                assert device.waits
                return 1000 * (later.at - self.at)  # milliseconds, as PyTorch has it

        monkeypatch.setattr(torch.cuda, "Event", Event)

    def step(self, seconds: float) -> Callable[[], None]:
        def step() -> None:
            self.queued += seconds

        return step


def test_a_gpu_is_timed_by_events_and_waited_for_once_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    times = interleave([device.step(0.03), device.step(0.015)], clock_for("cuda"), rounds=4)
    assert times.steps == 7  # of 0.015 s, to fill a tenth of a second
    assert times.seconds == pytest.approx(np.array([[0.03, 0.015]] * 4))
    assert device.waits == 2 * (times.warm_up + 4)
    assert clock_for("cuda") is CudaEvent
    assert clock_for("cpu") is time.perf_counter


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_events_see_the_work_of_a_gpu() -> None:
    square = torch.randn(4096, 4096, device="cuda")
    for _ in range(2):
        start = CudaEvent()
        once = square @ square
        once_seconds = CudaEvent() - start
    start = CudaEvent()
    for _ in range(8):
        once = square @ once
    assert 4 < (CudaEvent() - start) / once_seconds < 16


# --- memory ---


class KnownSaves(nn.Module):
    """Saves, by hand: x (its input) for the convolution, y for the sigmoid, once, and the pooled z for the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 5)
        self.register_buffer("scale", torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).sigmoid()
        return self.fc((y * y * self.scale).mean((2, 3)))


def test_saved_bytes_are_those_of_a_network_by_hand() -> None:
    step = Step("known", KnownSaves(), torch.randn(2, 3, 8, 8), Setting(**SMALL))
    images, y, pooled = 2 * 3 * 8 * 8, 2 * 4 * 8 * 8, 2 * 4
    # y y saves y, which the sigmoid has saved already; scale is a buffer. Cross entropy: log-probabilities and labels,
    # and the total of the weights.
    loss = (2 * 5) * 4 + 2 * 8 + 4
    assert step.saved_bytes() == 4 * (images + y + pooled) + loss


def test_tensors_freed_before_backward_are_not_counted() -> None:
    class Dropping(KnownSaves):
        def forward(self, x: Tensor) -> Tensor:
            (self.conv(x).exp() * 2).sum()  # nobody takes it
            return super().forward(x)

    expected, dropping = (Step("", m, torch.randn(2, 3, 8, 8), Setting(**SMALL)) for m in (KnownSaves(), Dropping()))
    assert dropping.saved_bytes() == expected.saved_bytes()
    assert not any(type(one) is _Held for one in gc.get_objects())  # nor does a graph stay in memory


def test_peak_memory_of_a_network_by_hand() -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            return (y * y).mean((2, 3))  # x is there before, y and its square at once

    step = Step("three", Three(), torch.randn(2, 3, 64, 64), Setting(**{**SMALL, "mode": "infer", "size": 64}))
    assert step.saved_bytes() is None
    maps = 2 * (2 * 3 * 64 * 64) * 4
    assert maps <= step.peak_bytes() <= maps + 1024


def test_a_step_trains_and_leaves_no_gradients() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    images = torch.randn(2, 3, 8, 8)
    before, reference = model[1].weight.detach().clone(), model[1].weight.detach().clone().requires_grad_()
    F.cross_entropy(images.flatten(1) @ reference.T + model[1].bias.detach(), torch.tensor([0, 1])).backward()
    Step("linear", model, images, Setting(**SMALL))()
    assert torch.allclose(model[1].weight, before - 1e-6 * reference.grad, rtol=0, atol=1e-9)
    assert not torch.equal(model[1].weight, before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_in_half_precision_trains_as_in_float32(dtype: str) -> None:
    images = torch.randn(2, 3, 8, 8)
    steps = []
    for one in ("float32", dtype):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        before = model[1].weight.detach().clone()
        Step("linear", model, images, Setting(**SMALL, dtype=one))()
        steps.append((model[1].weight.detach() - before).flatten())
    assert F.cosine_similarity(steps[0], steps[1], dim=0) > 0.999
    assert steps[1].norm() == pytest.approx(steps[0].norm().item(), rel=0.01)  # the scale of the loss is taken out


def test_float16_scales_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    monkeypatch.setattr(Tensor, "backward", lambda loss: losses.append(loss.item()))
    for dtype in ("bfloat16", "float16"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        step = Step("linear", model, torch.zeros(2, 3, 8, 8), Setting(**SMALL, dtype=dtype))
        monkeypatch.setattr(step._optimizer, "step", lambda: None)  # no gradients came
        monkeypatch.setattr(step._scaler, "step", lambda optimizer: None)
        monkeypatch.setattr(step._scaler, "update", lambda: None)
        step()
    assert losses[1] == pytest.approx(128 * losses[0], rel=0.01)


def test_tf32_is_in_force_while_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return x.mean((2, 3))

    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    setting = Setting(**SMALL, mode="infer")
    for dtype in ("tf32", "float32"):
        object.__setattr__(setting, "dtype", dtype)  # a CPU has no TF32
        measure([("a", Spy())], setting, rounds=1, clock=iter(range(999)).__next__)
        assert set(seen) == {(dtype == "tf32",) * 2}
        seen.clear()
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("setting", [{}, {"dtype": "float16"}, {"mode": "infer"}], ids=str)
def test_a_captured_step_does_what_it_did_before(setting: dict[str, Any]) -> None:
    steps, tape = [], TapeGraphs()
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
        steps.append(Step("small", model, torch.ones(2, 3, 8, 8), Setting(**SMALL, **setting)))
    steps[1].capture(tape)
    assert tape.graphs[0].replays == 1
    for step, calls in zip(steps, (tape.warmed + 4, 3), strict=True):
        for _ in range(calls):
            step()
    assert tape.graphs[0].replays == 4
    first, second = (step.model.state_dict() for step in steps)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_step_that_cannot_be_captured_says_which() -> None:
    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * float(x.mean())

    step = Step("waiting", Waits(), torch.ones(2, 3, 8, 8), Setting(**SMALL, mode="infer"))
    with pytest.raises(CaptureError, match="not permitted when .*, in waiting; leave cuda_graph out"):
        step.capture(TapeGraphs())


def test_cuda_graphs_are_captured_after_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Step, "capture", lambda self: calls.append(f"capture {self.name}"))
    monkeypatch.setattr(Step, "peak_bytes", noting(calls, lambda self: f"peak {self.name}", lambda self: 1))
    setting = Setting(**SMALL, mode="infer")
    object.__setattr__(setting, "cuda_graph", True)  # a CPU has none
    measure([(name, nn.Sequential(nn.Flatten())) for name in "ab"], setting, rounds=1, clock=iter(range(999)).__next__)
    assert calls == ["peak a", "capture a", "peak b", "capture b"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_bench_with_cuda_graphs(mode: str, dtype: str) -> None:
    result = senet.bench("se_resnet20", mode=mode, batch=8, rounds=6, device="cuda", dtype=dtype, cuda_graph=True)
    assert result.setting.cuda_graph
    assert 0 < result.ratio < 10
    assert result.hardware["gpu"] == torch.cuda.get_device_name()


def test_each_side_may_be_fused_in_its_own_way() -> None:
    seen: list[tuple[str, str]] = []

    class Spy(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.name, fused_choice()))
            return x.mean((2, 3))

    before = fused_choice()
    sides, clock = [("a", Spy("a")), ("b", Spy("b")), ("c", Spy("c"))], iter(range(999)).__next__
    measure(sides, Setting(**SMALL, mode="infer"), rounds=2, clock=clock, fused=["off", "aten", "off"])
    assert set(seen) == {("a", "off"), ("b", "aten"), ("c", "off")}
    assert fused_choice() == before


def test_both_sides_are_set_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", noting(compiled, lambda model: model, lambda model: model))
    seen: list[tuple[bool, bool, bool, torch.dtype]] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            formats = [t.is_contiguous(memory_format=torch.channels_last) for t in (x, self.conv.weight)]
            seen.append((all(formats), self.training, torch.is_inference_mode_enabled(), y.dtype))
            return y.mean((2, 3))

    setting = Setting(**SMALL, mode="infer", dtype="bfloat16", compile=True)
    threads = torch.get_num_threads()
    measure([("a", Spy()), ("b", Spy())], replace(setting, threads=2), rounds=1, clock=iter(range(999)).__next__)
    assert len(compiled) == 2
    assert set(seen[2:]) == {(True, False, True, torch.bfloat16)}  # after a first pass of each that is a check
    assert torch.get_num_threads() == threads


# --- networks ---


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("se_resnet20", "ResNet"),
        ("timm/resnet18", "timm.models.resnet"),
        ("torchvision/resnet18", "torchvision.models"),
    ],
)
def test_networks_by_name(name: str, kind: str) -> None:
    found, model = open_network(name, num_classes=7)
    assert found == name
    assert kind in f"{type(model).__module__}.{type(model).__name__}"
    assert model.fc.out_features == 7


def test_a_file_and_a_module(tmp_path: Path) -> None:
    model = senet.create_model("se_resnet20", num_classes=3)
    senet.save(model, tmp_path / "model.safetensors")
    name, loaded = open_network(str(tmp_path / "model.safetensors"))
    assert name == str(tmp_path / "model.safetensors")
    assert torch.equal(loaded.fc.weight, model.fc.weight)
    name, copy = open_network(model)
    assert name == "se_resnet20"
    assert copy is not model
    assert torch.equal(copy.fc.weight, model.fc.weight)
    assert open_network(nn.Linear(2, 2))[0] == "Linear"


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ("se_resnet2", ValueError, "unknown network 'se_resnet2'; did you mean 'se_resnet"),
        ("timm/resnet51", ValueError, "unknown network 'timm/resnet51'; did you mean 'timm/resnet51q'"),
        ("torchvision/resnet51", ValueError, "did you mean 'torchvision/resnet50'"),
        ("no/such.safetensors", senet.ModelFileError, "no file at no/such.safetensors"),
        ("faster_rcnn:se_resnet18", ValueError, "faster_rcnn:se_resnet18 is a detector, .* compare its backbone"),
        (3, TypeError, "a module, a name or a model file, got 3"),
    ],
)
def test_refuses_networks(network: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_network(network)


def test_the_plain_twin_is_the_network_without_se() -> None:
    model = senet.create_model("se_resnet20", shortcut="projection")
    name, twin = plain_twin(*open_network(model))
    assert name == "resnet20"
    assert not find_inserted_se(twin)
    assert len(find_inserted_se(model)) == 9
    expected = senet.create_model("resnet20", shortcut="projection")
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}
    with pytest.raises(ValueError, match="resnet20 has no SE that senet put in.*name an opponent with against"):
        plain_twin("resnet20", expected)


def test_the_plain_twin_of_another_librarys_network() -> None:
    name, model = open_network("torchvision/resnet18")
    twin_name, twin = plain_twin(name, senet.insert(model))
    assert twin_name == "torchvision/resnet18 without SE"
    assert twin.state_dict().keys() == open_network("torchvision/resnet18")[1].state_dict().keys()


def test_the_plain_twin_of_another_librarys_name() -> None:
    name, model = open_network("se_timm/resnet10t", num_classes=3)
    assert len(find_inserted_se(model)) == 4
    assert open_network(model)[0] == "se_timm/resnet10t"
    twin_name, twin = plain_twin(name, model)
    assert twin_name == "timm/resnet10t"
    assert twin.state_dict().keys() == open_network(twin_name, num_classes=3)[1].state_dict().keys()


# --- bench ---


def test_bench_against_the_plain_twin() -> None:
    model = senet.create_model("se_resnet20")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = senet.bench(model, batch=2, size=16, threads=1, rounds=6, device="cpu")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (result.model.name, result.against.name) == ("se_resnet20", "resnet20")
    assert (result.model.parameters, result.against.parameters) == (272_095, 269_722)
    assert result.model.saved_bytes is not None
    assert result.against.saved_bytes is not None
    assert result.saved_ratio == result.model.saved_bytes / result.against.saved_bytes
    assert result.saved_ratio > 1
    assert result.model.peak_bytes > result.model.saved_bytes / 2
    assert result.interval[0] <= result.ratio <= result.interval[1]
    assert result.model.images_per_second == pytest.approx(2 / result.model.seconds)
    found = asdict(result)
    assert found["setting"] == {
        "mode": "train",
        "compile": False,
        "batch": 2,
        "size": 16,
        "dtype": "float32",
        "threads": 1,
        "device": "cpu",
        "cuda_graph": False,
        "memory_format": "channels_last",
        "optimizer": "SGD, momentum 0.9, fused",
    }
    assert found["hardware"]["torch"] == torch.__version__


def test_bench_by_a_clock() -> None:
    clock = Clock()
    steady, other = Timed(clock, [0.3]), Timed(clock, [0.2])
    result = senet.bench(steady, other, mode="infer", batch=2, size=8, rounds=7, clock=clock)
    assert (result.ratio, *result.quartiles, *result.interval) == pytest.approx([1.5] * 5)
    assert (result.conclusive, result.reason, result.steady, result.saved_ratio) == (True, "", True, None)
    assert result.model.images_per_second == pytest.approx(2 / 0.3)
    assert steady.calls == 0  # a copy is measured


def test_bench_is_inconclusive_where_the_spread_is_wide() -> None:
    clock = Clock()
    erratic = Timed(clock, [0.1, 0.5, 0.2, 0.9, 0.3])
    result = senet.bench(erratic, Timed(clock, [0.2]), mode="infer", batch=2, size=8, rounds=10, clock=clock)
    assert not result.conclusive
    assert not result.steady
    assert "give more rounds or seconds" in result.reason


def test_the_size_is_the_networks_own_and_classes_are_the_same() -> None:
    ticks = iter(range(10_000)).__next__
    model = senet.create_model("se_resnet20", num_classes=7)
    result = senet.bench(model, "resnet32", mode="infer", batch=1, rounds=1, clock=ticks)
    assert result.setting.size == 32
    plain = senet.create_model("resnet32", num_classes=7)
    assert result.against.parameters == sum(parameter.numel() for parameter in plain.parameters())


class Maps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "trian"}, "unknown mode 'trian'; did you mean 'train'"),
        ({"dtype": "fp8"}, "unknown dtype 'fp8'.*float32, tf32, bfloat16, float16"),
        ({"dtype": "tf32", "device": "cpu"}, "dtype 'tf32' needs a GPU, and the device is 'cpu': use dtype=.float32."),
        (
            {"cuda_graph": True, "device": "cpu"},
            "CUDA graphs need a GPU, and the device is 'cpu': leave out cuda_graph=",
        ),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
        ({"rounds": 0}, "rounds must be 1 or more, got 0"),
        ({"seconds": 0}, "seconds must be above 0 and finite, got 0"),
        ({"seconds": float("nan")}, "seconds must be above 0 and finite, got nan"),
        ({"batch": 1, "size": 4}, r"se_resnet20 cannot train on images of the shape \(1, 3, 4, 4\): .*another batch"),
        (
            {"against": Maps(), "size": 4},
            r"training needs outputs \(N, classes\), and Maps returns the shape \(16, 3, 4",
        ),
        ({"against": nn.Sequential(nn.Flatten()), "size": 4}, "Sequential has no parameter to train; use mode=.infer."),
        ({"model": "resnet20"}, "resnet20 has no SE that senet put in"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        senet.bench(**{"model": "se_resnet20", **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refuses_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device 'cuda' is not available"):
        Setting(device="cuda")


def test_hardware_of_a_gpu_has_its_name_and_the_versions_that_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    found = hardware("cuda")
    assert (found["gpu"], found["cuda"]) == ("a GPU", torch.version.cuda)
    assert found.keys() - hardware("cpu").keys() == {"gpu", "cuda", "cudnn", "triton"}
    triton = importlib.util.find_spec("triton") and importlib.import_module("triton")
    assert found["triton"] == (triton.__version__ if triton else None)
