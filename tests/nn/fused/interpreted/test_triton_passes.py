"""The passes by Triton kernels, against those of `reference`."""

import pytest
import torch

from senet.nn.fused import reference
from senet.nn.fused.triton import passes as triton_passes
from tests.helpers import assert_close
from tests.nn.fused.pass_arguments import PASSES, arguments_of

# Triton's `elemt` takes its last factor by sample too.
TRITON_PASSES = PASSES | {"elemt": "y p A m", "elemt skip": "y p A m g"}


@pytest.mark.parametrize("name", TRITON_PASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 6, 5, 4), (2, 3, 9, 37)])
def test_passes(name: str, dtype: torch.dtype, layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    arguments = arguments_of(TRITON_PASSES[name], shape, dtype, layout)
    of = name.split(maxsplit=1)[0]
    expected, found = getattr(reference, of)(*arguments), getattr(triton_passes, of)(*arguments)
    pairs = list(zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True))
    for one, other in pairs:
        assert_close(one, other, 1e-5 if dtype == torch.float32 else 2e-2)
