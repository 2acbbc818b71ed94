"""Direct launches against Triton's own, through a driver that records calls; and on a GPU where there is one."""

import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton", reason="PyTorch for CUDA ships it")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

import triton.language as tl  # noqa: E402
from triton import knobs  # noqa: E402

from senet.nn.fused.triton import launch as triton_launch  # noqa: E402
from senet.nn.fused.triton.launch import Launches, Step, launch  # noqa: E402
from tests.nn.fused.fake_cuda import FakeDriver, Launched  # noqa: E402

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@triton.jit
def affine(x, w, y, length, pixels, one, factor, WITH_W: tl.constexpr, BLOCK: tl.constexpr):
    """y = factor x w, w for each row of `pixels`, or without w."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i * one, mask=i < length).to(tl.float32) * factor
    if WITH_W:
        value *= tl.load(w + i // pixels, mask=i < length).to(tl.float32)
    tl.store(y + i, value.to(y.dtype.element_ty), mask=i < length)


@triton.jit
def double(y, length, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, 2 * tl.load(y + i, mask=i < length), mask=i < length)


@triton.jit
def scale_or_fill(x, y, length, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.zeros([BLOCK], tl.float32) if x is None else 2 * tl.load(x + i, mask=i < length)
    tl.store(y + i, value, mask=i < length)


KERNELS = (affine, double, scale_or_fill)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """A driver that records launches; devices are taken from tensors' attribute `on`."""
    fake = FakeDriver()
    monkeypatch.setattr(triton_launch, "_current_device", lambda: -1 if fake.device == 0 else fake.device)
    monkeypatch.setattr(triton_launch, "_current_stream", fake.get_current_stream)
    monkeypatch.setattr(triton_launch, "_kinds", {})
    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(fake)
    for kernel in KERNELS:
        kernel.device_caches.clear()
    yield fake
    for kernel in KERNELS:
        kernel.device_caches.clear()
    gc.collect()  # kernels are unloaded by the driver that loaded them
    triton.runtime.driver._active = before


def pointers(launched: Launched) -> Launched:
    """With tensors as their pointers, and None as a null pointer."""
    values = [x.data_ptr() if isinstance(x, Tensor) else x for x in launched.arguments]
    return launched._replace(arguments=tuple(0 if x is None else x for x in values))


def affine_step(length: int, with_w: bool = True, pixels: int = 16) -> Step:
    constants = {"WITH_W": with_w, "BLOCK": 64}
    grid = (triton.cdiv(length, 64), 1)
    return Step(affine, grid, ("x", "w", "y", length, pixels, 1, "factor"), constants, 2)


def two_steps(length: int, with_w: bool = True) -> Launches:
    last = Step(double, (triton.cdiv(length, 32), 1), ("y", length), {"BLOCK": 32}, 1)
    return Launches(("x", "w", "y"), (affine_step(length, with_w), last), ("factor",))


def own(driver: FakeDriver, x: Tensor, w: Tensor | None, y: Tensor, factor: float) -> list[Launched]:
    """What Triton's own launch calls the launcher with."""
    before = len(driver.launched)
    length, with_w = x.numel(), w is not None
    affine[(triton.cdiv(length, 64), 1)](x, w, y, length, 16, 1, factor, WITH_W=with_w, BLOCK=64, num_warps=2)
    double[(triton.cdiv(length, 32), 1)](y, length, BLOCK=32, num_warps=1)
    found = driver.launched[before:]
    del driver.launched[before:]
    return [pointers(one) for one in found]


def offset(x: Tensor, elements: int) -> Tensor:
    """A view of the same values, behind so many elements of a buffer."""
    return torch.cat([x.new_zeros(elements), x])[elements:]


F32, BF16 = torch.float32, torch.bfloat16
# Length; dtypes of x, w (None: no w) and y; which of them is 4 or 2 bytes off.
CASES = [
    (96, (F32, F32, F32), ()),
    (96, (BF16, F32, BF16), ()),
    (96, (BF16, BF16, BF16), ()),
    (96, (F32, None, F32), ()),
    (96, (F32, F32, F32), (0,)),
    (96, (F32, F32, F32), (1,)),
    (96, (F32, F32, F32), (2,)),
    (96, (F32, F32, F32), (0, 1, 2)),
    (96, (F32, torch.float16, F32), (1,)),
]


def tensors(length: int, dtypes: tuple[Any, ...], misaligned: tuple[int, ...]) -> tuple[Tensor | None, ...]:
    found: list[Tensor | None] = []
    for place, dtype in enumerate(dtypes):
        x = None if dtype is None else torch.randn(length, dtype=dtype)
        assert x is None or x.data_ptr() % 16 == 0
        found.append(offset(x, 1) if x is not None and place in misaligned else x)
    return tuple(found)


@pytest.mark.parametrize("launcher", [None, False, True], ids=["any", "3.5 and 3.6", "3.7 and 3.8"])
def test_direct_calls_are_what_triton_would_call(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, launcher: bool | None
) -> None:
    """One object for all dtypes and alignments: the function and every argument are those of Triton's own launch.

    The prototype's key had neither pointers' alignment nor the dtypes of parameters.
    """
    if launcher is not None:  # whose function is called without it
        driver.launcher_cls = driver._launcher("CudaLauncher", launcher)
    objects = {with_w: two_steps(96, with_w) for with_w in (True, False)}
    functions = set()
    for length, dtypes, misaligned in CASES:
        x, w, y = tensors(length, dtypes, misaligned)
        expected = own(driver, x, w, y, 0.5)
        launches = objects[w is not None]
        launches((x, w, y), (0.5,))  # Triton's own
        assert [pointers(one) for one in driver.launched] == expected
        driver.launched.clear()
        with monkeypatch.context() as patch:
            patch.setattr(triton.JITFunction, "run", None)
            if launcher is not None:
                patch.setattr(driver.launcher_cls, "__call__", None)
            launches((x, w, y), (0.5,))
        assert [pointers(one) for one in driver.launched] == expected
        assert all(one.stream == 70 and not one.hooked for one in driver.launched)
        assert all(type(one) in (int, float, bool) for launched in driver.launched for one in launched.arguments)
        driver.launched.clear()
        functions.add(expected[0].function)
    assert len(functions) == len(CASES)  # each is a kernel of its own


def test_numbers_that_vary_add_no_entries(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the momentum of a cumulative average, which changes at each step."""
    launches = two_steps(96)
    x, w, y = tensors(96, (F32, F32, F32), ())
    launches((x, w, y), (1.0,))
    monkeypatch.setattr(triton.JITFunction, "run", None)
    for step in range(2, 40):
        launches((x, w, y), (1 / step,))
        assert driver.launched[-2].arguments[6] == 1 / step
    assert len(launches._ready) == 1


def test_integers_are_those_of_their_kind(driver: FakeDriver) -> None:
    """Triton makes a kernel of its own for 1 and for multiples of 16."""
    functions = set()
    for pixels in (1, 15, 16, 2**31):
        launches = Launches(("x", "w", "y"), (affine_step(96, pixels=pixels),), ("factor",))
        x, w, y = tensors(96, (F32, F32, F32), ())
        for _ in range(2):
            launches((x, w, y), (0.5,))
        first, second = driver.launched[-2:]
        assert first.function == second.function
        assert first.arguments[4] == second.arguments[4] == pixels
        functions.add(second.function)
    assert len(functions) == 4


def test_tables_are_bounded(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "_MOST", 3)
    monkeypatch.setattr(triton_launch, "_MOST_KINDS", 3)
    launches = two_steps(96)
    for _, dtypes, misaligned in CASES[:3] + CASES[4:]:
        x, w, y = tensors(96, dtypes, misaligned)
        launches((x, w, y), (0.5,))
        assert len(launches._ready) <= 3
        launch(affine, (2, 1), (x, w, y, 96, 16, 1, 0.5), {"WITH_W": True, "BLOCK": 64}, 2)
        assert len(triton_launch._kinds) <= 3


def test_one_kernel_by_itself(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`launch` looks at each argument, integers too."""
    integers = [(pixels, CASES[0]) for pixels in (1, 3, 16, 48, -(2**31), 2**31)]
    arguments = []
    for pixels, case in (*integers, *[(16, case) for case in CASES]):
        x, w, y = tensors(*case)
        arguments.append((x, w, y, 96, pixels, 1, 0.5))
    for values in arguments:
        constants = {"WITH_W": values[1] is not None, "BLOCK": 64}
        affine[(2, 1)](*values, **constants, num_warps=2)
        expected = driver.launched[-1]
        launch(affine, (2, 1), values, constants, 2)
        assert pointers(driver.launched[-1]) == pointers(expected)
        with monkeypatch.context() as patch:
            patch.setattr(triton.JITFunction, "run", None)
            launch(affine, (2, 1), values, constants, 2)
        assert pointers(driver.launched[-1]) == pointers(expected)


def test_grids_of_one_axis_and_a_first_argument_that_is_none(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = torch.randn(96)
    step = Step(scale_or_fill, (2,), ("x", "y", 96), {"BLOCK": 64}, 1)
    launches = Launches(("y", "x"), (step,))
    scale_or_fill[(2,)](None, y, 96, BLOCK=64, num_warps=1)
    expected = pointers(driver.launched[-1])
    assert expected.grid == (2, 1, 1)
    for turn in range(2):
        with monkeypatch.context() as patch:
            if turn:
                patch.setattr(triton.JITFunction, "run", None)
            launches((y, None))
            assert pointers(driver.launched[-1]) == expected
            launch(scale_or_fill, (2,), (None, y, 96), {"BLOCK": 64}, 1)
            assert pointers(driver.launched[-1]) == expected


@pytest.mark.parametrize("reason", ["version", "hooks", "other hooks", "scratch", "pre-run hook"])
def test_falls_back_to_tritons_own_launch(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    launches = two_steps(96)
    x, w, y = tensors(96, (F32, F32, F32), ())
    expected = own(driver, x, w, y, 0.5)
    calls: list[Any] = []
    if reason == "version":
        monkeypatch.setattr(triton_launch, "_SUPPORTED", False)
    elif reason == "scratch":
        monkeypatch.setattr(triton_launch, "_scratch", lambda metadata: 64)
    elif reason == "pre-run hook":
        monkeypatch.setattr(affine, "pre_run_hooks", [lambda *args, **kwargs: calls.append(args)])
    for _ in range(2):
        launches((x, w, y), (0.5,))
    own_run, count = triton.JITFunction.run, [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return own_run(*args, **kwargs)

    monkeypatch.setattr(triton.JITFunction, "run", counted)
    if reason == "hooks":  # as proton sets them, also after kernels were prepared
        knobs.runtime.launch_enter_hook.add(calls.append)
    elif reason == "other hooks":
        monkeypatch.setattr(knobs.runtime, "launch_enter_hook", calls.append)
    driver.launched.clear()
    try:
        launches((x, w, y), (0.5,))
        launch(double, (3, 1), (y, 96), {"BLOCK": 32}, 1)
        launch(double, (3, 1), (y, 96), {"BLOCK": 32}, 1)
    finally:
        if reason == "hooks":
            knobs.runtime.launch_enter_hook.remove(calls.append)
    found = [pointers(one)._replace(hooked=False) for one in driver.launched]
    assert found == [*expected, expected[1], expected[1]]
    assert count[0] == (3 if reason == "pre-run hook" else 4)
    assert bool(calls) == ("hook" in reason)
    if "hooks" in reason:
        assert [call.get()["name"] for call in calls] == ["affine", "double", "double", "double"]
        assert all(one.hooked for one in driver.launched)


def test_another_device_is_made_the_current_one(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the current device is another: its stream, its kernels, and the current one as before afterwards."""
    entered: list[Any] = []

    class Device:
        def __init__(self, device: Any) -> None:
            self.device = 1 if device == 1 else 0

        def __enter__(self) -> None:
            self.before, driver.device = driver.device, self.device
            entered.append(self.device)

        def __exit__(self, *args: Any) -> None:
            driver.device = self.before

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(triton_launch, "_device_of", lambda x: Device(int(getattr(x, "on", 0))))
    monkeypatch.setattr(triton_launch, "_current_device", lambda: driver.device)

    class OnDevice(Tensor):
        on = 0

        def get_device(self) -> int:
            return self.on

    launches = two_steps(96)
    x, w, y = tensors(96, (F32, F32, F32), ())
    x = x.as_subclass(OnDevice)  # type: ignore[union-attr]
    for on in (0, 1, 0, 1):
        x.on = on
        launches((x, w, y), (0.5,))
        launch(affine, (2, 1), (x, w, y, 96, 16, 1, 0.5), {"WITH_W": True, "BLOCK": 64}, 2)
        for one in driver.launched:
            assert (one.device, one.stream, one.function[2]) == (on, 70 + on, on)
        driver.launched.clear()
        assert driver.device == 0
    assert len(launches._ready) == 2
    assert 1 in entered


def test_threads_share_an_object(driver: FakeDriver) -> None:
    launches = two_steps(96)
    cases = [tensors(*case) for case in CASES if case[1][1] is not None]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(60):
                launches(cases[(number + turn) % len(cases)], (0.5,))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(driver.launched) == 4 * 60 * 2
    by_pointer = {one.arguments[:3]: one.function for one in map(pointers, driver.launched) if one.kernel == "affine"}
    assert len({(function, key) for key, function in by_pointer.items()}) == len(cases)


def test_steps_that_do_not_fit_their_kernel() -> None:
    step = affine_step(96)
    with pytest.raises(ValueError, match=r"affine takes 'factor', which is none of x, w, y"):
        Launches(("x", "w", "y"), (step,))
    swapped = step._replace(constants={"BLOCK": 64, "WITH_W": True})
    with pytest.raises(ValueError, match=r"affine takes x, w, .* 7 arguments and then the constants BLOCK, WITH_W"):
        Launches(("x", "w", "y"), (swapped,), ("factor",))


@GPU
@pytest.mark.parametrize(("length", "dtypes", "misaligned"), CASES)
def test_on_a_gpu(length: int, dtypes: tuple[Any, ...], misaligned: tuple[int, ...]) -> None:
    launches = two_steps(length, dtypes[1] is not None)
    for turn in range(3):
        x, w, y = (None if t is None else t.cuda() for t in tensors(length, dtypes, ()))
        x, w, y = (t if t is None or i not in misaligned else offset(t, 1) for i, t in enumerate((x, w, y)))
        assert x is not None
        assert y is not None
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()) if turn == 2 else torch.cuda.stream(None):
            launches((x, w, y), (0.5,))
        torch.cuda.synchronize()
        factor = 1.0 if w is None else w.float().repeat_interleave(16)[:length]
        assert torch.equal(y, ((x.float() * 0.5 * factor).to(y.dtype).float() * 2).to(y.dtype))
