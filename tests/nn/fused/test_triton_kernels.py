"""Triton kernels as the compiler sees them, for GPUs that are not there; `interpreted/` tests what they compute."""

import os
from dataclasses import dataclass

import pytest
import torch

pytest.importorskip("triton")

from senet.nn.fused.interface import Needs
from senet.nn.fused.triton import activated_passes, whole_operation
from senet.nn.fused.triton import passes as triton_passes
from senet.nn.fused.triton.launch import Step
from senet.nn.fused.triton.tiles import Plan
from tests.helpers import assert_close
from tests.nn.fused.compilation import check_types, compile_step, steps_of
from tests.nn.fused.interpreted.reference import Case
from tests.slow import fast_if

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted kernels do not compile")

_PARAMETERS = ("weight", "bias", "rmean", "rvar", "w1", "b1", "w2", "b2")
_BUFFERS = ("part", "keep", "work", "p", "a", "b", "k", "d", "m", "q")
_ACTIVATED_BUFFERS = ("factors", "mean", "r", "by", "plus", "ds", "da", "db", "f0", "f1")
_GRADIENTS = ("dw1", "db1", "dw2", "db2", "dweight", "dbias")


@dataclass
class Variant:
    """What kernels are compiled for."""

    shape: tuple[int, ...]
    hidden: int = 0
    dtype: torch.dtype = torch.bfloat16
    parameter_dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last
    gate: str = "sigmoid"
    activation: str = "relu"
    absent: tuple[str, ...] = ()
    cumulative: bool = False

    def steps(self) -> list[Step]:
        y = torch.empty(self.shape, device="meta").to(memory_format=self.memory_format)
        plan, names = Plan(y, self.hidden), (self.gate, self.activation) if self.hidden else ("none", "none")
        launches = [
            whole_operation._forward(plan, False, self.cumulative, *names),
            whole_operation._forward(plan, True, False, *names),
            whole_operation._backward(plan, True, True, *names),
        ]
        if not self.hidden:
            launches += [triton_passes._merged_stats(plan), triton_passes._backward_reduce(plan)]
            launches += [triton_passes._elements(plan, kernel) for kernel in ("elemt", "backward_elemt")]
        if not self.hidden and not self.absent:
            for activation in ("silu", "hard_swish", "relu6"):
                builds = (activated_passes._squeeze, activated_passes._scale, activated_passes._reduce)
                launches += [build(plan, activation) for build in (*builds, activated_passes._gradient)]
        return [step for one in launches for step in steps_of(one)]

    def types(self) -> dict[str, torch.dtype | None]:
        maps = dict.fromkeys(("y", "out", "skip", "g", "h", "dy", "s", "z", "dz"), self.dtype)
        buffers = dict.fromkeys((*_BUFFERS, *_ACTIVATED_BUFFERS), torch.float32)
        parameters = dict.fromkeys((*_PARAMETERS, *_GRADIENTS), self.parameter_dtype)
        return {**maps, **buffers, **parameters, "count": torch.int64, **dict.fromkeys(self.absent)}


VARIANTS = [
    Variant((128, 256, 56, 56), 16),
    Variant((128, 512, 28, 28), 32),
    Variant((128, 1024, 14, 14), 64),
    Variant((128, 2048, 7, 7), 128),
    Variant((16, 2048, 7, 7), 128),
    Variant((128, 16, 32, 32), 1),
    Variant((128, 64, 8, 8), 4),
    Variant((16, 16, 32, 32), 1),  # these two take one kernel between the maps
    Variant((64, 64, 8, 8), 4),
    Variant((64, 64, 56, 56)),
    Variant((128, 1152, 7, 7)),
    Variant((128, 672, 14, 14), memory_format=torch.contiguous_format),
    Variant((128, 256, 56, 56), 16, torch.float32),
    Variant((16, 256, 56, 56), 16, memory_format=torch.contiguous_format),
    Variant((2, 3, 5, 7, 9), 64, torch.float16, torch.bfloat16, torch.channels_last_3d, "tanh", "silu", ("b1", "b2")),
    Variant((300, 130, 31), 20, torch.float16, torch.float16, torch.contiguous_format, "relu", cumulative=True),
    Variant((8, 129, 17, 19), 128, gate="hard_sigmoid", absent=("weight", "bias", "rmean", "rvar", "count", "skip")),
    Variant((8, 129, 17, 19), absent=("weight", "bias", "rmean", "rvar", "count", "skip", *_GRADIENTS)),
    Variant((1, 64, 6000, 6000), 16),  # one sample of more than 2^31 elements
    Variant((1, 64, 6000, 6000)),
    Variant((1, 1, 70000, 70000), 1, memory_format=torch.contiguous_format),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda x: f"{x.shape}-{x.hidden}-{x.gate}")
@fast_if(lambda variant: variant.gate != "sigmoid" or variant.hidden in (4, 64, 128))
def test_front_end(variant: Variant) -> None:
    """Types fit for every gate, dtype, layout and absent argument; products are in three passes of tf32."""
    types = variant.types()
    if variant.absent and "rmean" in variant.absent:
        types |= {"rmean": torch.float32, "rvar": torch.float32}
    products = 0
    for step in variant.steps():
        absent = dict(types)
        if "rmean" in variant.absent and not step.constants.get("EVAL"):
            absent |= {"rmean": None, "rvar": None}
        products += check_types(step, absent, 90).count("inputPrecision = tf32x3")
    assert bool(products) == bool(variant.hidden)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda x: f"{x.shape}-{x.hidden}-{x.gate}")
def test_resources(variant: Variant, capability: int) -> None:
    """Kernels keep their values in registers, fit on every GPU since Ampere, and read 16 bytes at a time."""
    types = variant.types() | {"rmean": torch.float32, "rvar": torch.float32}
    for step in variant.steps():
        found = compile_step(step, types, capability)
        print(
            f"sm_{capability} {found.name} grid {step.grid} warps {step.num_warps} {step.constants}: "
            f"{found.registers} registers, {found.spilled} bytes of stack, {found.shared} of shared memory"
        )
        assert found.spilled <= 64, (found.name, step.constants)
        assert found.shared <= 99 * 1024  # the least of these GPUs allows, sm_86 and sm_89
        if variant.memory_format is torch.channels_last and variant.shape[1] % 16 == 0:
            wide = found.ptx.count("0x10, ") + found.ptx.count("global.v4") + found.ptx.count("global.v8")
            assert wide or found.name not in ("stats", "reduce", "scale", "gradient", "elemt", "backward_elemt")


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@GPU
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(6, 40, 7, 9), (3, 64, 12, 12), (5, 16, 28, 28), (40, 256, 14, 14), (128, 512, 7, 7), (33, 80, 1, 1)]
)
def test_on_a_gpu(shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """Against float64 autograd; the second call through the direct launch."""
    for skip in (True, False):
        case = Case(shape, shape[1] // 4, dtype=dtype, memory_format=memory_format, skip=skip, device="cuda")
        if skip and dtype != torch.float32:  # where rounding decides on which side of the ReLU a value is
            out = case.expected()["out"]
            assert out is not None
            case.values["g"] = case.values["g"] * (out > 0.05 * out.max())
        for _ in range(2):
            case.compare(2e-5)


@GPU
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(1, 40, 2**13, 6600), (20, 64, 1500, 1200)], ids=["a sample", "all samples"])
def test_more_than_2_31_elements(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 60 * 2**30:
        pytest.skip("needs 60 GB of GPU memory")
    y = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=memory_format).normal_()
    y[-1, -1, -1] += 3  # at the end of memory
    out, keep = whole_operation.forward(y, None, None, None, 1e-5, None, None)
    g = torch.empty_like(y).normal_()
    dy = whole_operation.backward(g, y, None, keep, None, None, None, 1e-5, Needs(*[True] * 8)).y
    assert dy is not None
    for c in (0, shape[1] - 1):
        x, h = y[:, c].double(), g[:, c].double()
        u = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        assert_close(out[:, c].double(), u, 1e-2)
        d = (h - h.mean() - u * (h * u).mean()) / (x.var(correction=0) + 1e-5).sqrt()
        assert_close(dy[:, c].double(), d, 1e-2)
