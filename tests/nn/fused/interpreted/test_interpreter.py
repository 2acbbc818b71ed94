import torch
import triton
import triton.language as tl


@triton.jit
def _double(x, y, length, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, 2 * tl.load(x + i, mask=i < length), mask=i < length)


def test_kernels_run_on_the_cpu() -> None:
    x = torch.arange(70.0)
    y = torch.full((80,), -1.0)
    _double[(3,)](x, y, 70, BLOCK=32, num_warps=4)
    assert torch.equal(y[:70], 2 * x)
    assert (y[70:] == -1).all()
