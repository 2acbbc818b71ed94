import pytest
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


@triton.jit
def _count_up(x, y, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i) * 2 + 1)


def test_integers_do_not_overflow() -> None:
    x, y = torch.tensor([-(2**30), 2**30 - 1], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    _count_up[(1,)](x, y, BLOCK=2)
    assert y.tolist() == [-(2**31) + 1, 2**31 - 1]
    for value, operation in ((2**30, "mul"), (-(2**30) - 1, "mul")):
        x[1] = value
        with pytest.raises(Exception, match=f"int32 overflow detected for operation {operation}"):
            _count_up[(1,)](x, y, BLOCK=2)
