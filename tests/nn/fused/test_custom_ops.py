"""Compiled networks that call Triton's kernels as an operator, on a GPU; `interpreted/` has the tests for a CPU."""

import copy

import pytest
import torch

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.fused import set_fused
from tests.helpers import assert_close, randomise


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("traced")
def test_compiled_on_a_gpu(restored: None) -> None:
    set_fused("triton")
    module = randomise(SEBatchNorm(32, se=SqueezeExcitation(32, 4))).cuda()
    other = copy.deepcopy(module).double()
    y = torch.randn(4, 32, 9, 9, device="cuda").to(memory_format=torch.channels_last)
    inputs = [y.clone().requires_grad_(), y.double().requires_grad_()]
    outputs = [torch.compile(module, fullgraph=True)(inputs[0]), other(inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    assert_close(outputs[0].double(), outputs[1], 1e-5)
    assert_close(inputs[0].grad.double(), inputs[1].grad, 1e-4)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert_close(one.grad.double(), two.grad, 1e-4)
    for one, two in zip(module.buffers(), other.buffers(), strict=True):
        assert_close(one.double(), two.double(), 1e-5)
