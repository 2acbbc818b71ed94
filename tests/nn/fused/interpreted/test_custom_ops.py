"""The whole operation in networks that PyTorch compiles, by Triton's interpreter."""

import copy
from collections.abc import Iterator

import pytest
import torch

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.fused import fused_choice, set_fused
from tests.helpers import assert_close, randomise
from tests.slow import fast_if


@pytest.fixture(autouse=True)
def by_kernels() -> Iterator[None]:
    before = fused_choice()
    set_fused("triton")
    yield
    set_fused(before)
    torch.compiler.reset()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("frozen", [False, True])
@fast_if(lambda frozen: not frozen)
def test_a_compiled_module_calls_the_operator(frozen: bool) -> None:
    module = randomise(SEBatchNorm(6, se=SqueezeExcitation(6, 2)))
    other = copy.deepcopy(module).double()
    for one in (module, other):
        one.weight.requires_grad_(not frozen)
        one.se.fc1.bias.requires_grad_(not frozen)
    names: list[str] = []

    def backend(graph: torch.fx.GraphModule, examples: object) -> object:
        from torch._dynamo.backends.debugging import aot_eager

        names.extend(str(node.target) for node in graph.graph.nodes)
        return aot_eager(graph, examples)

    y = torch.randn(3, 6, 4, 5)
    inputs = [y.clone().requires_grad_(), y.double().requires_grad_()]
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    set_fused("triton")
    outputs = [compiled(inputs[0])]
    assert any("senet.normalize" in name for name in names)
    set_fused(False)
    outputs.append(other(inputs[1]))
    set_fused("triton")
    g = torch.randn(3, 6, 4, 5)
    for output in outputs:
        output.backward(g.to(output.dtype))
    assert_close(outputs[0].double(), outputs[1], 1e-5)
    assert_close(inputs[0].grad.double(), inputs[1].grad, 1e-4)
    for (name, one), two in zip(module.named_parameters(), other.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        if one.grad is not None:
            assert_close(one.grad.double(), two.grad, 1e-4)
    for one, two in zip(module.buffers(), other.buffers(), strict=True):
        assert_close(one.double(), two.double(), 1e-5)
    assert module.num_batches_tracked == 1


@pytest.mark.parametrize("with_skip", [False, True])
def test_operators_are_registered_as_pytorch_wants(with_skip: bool) -> None:
    """Shapes without data, gradients and schemas, by PyTorch's own checks."""
    y, skip = (torch.randn(2, 4, 3, 3, requires_grad=True) for _ in range(2))
    w1, w2, b2 = torch.randn(2, 4, requires_grad=True), torch.randn(4, 2, requires_grad=True), torch.randn(4)
    weight = torch.ones(4, requires_grad=True)
    arguments = (y, weight, None, w1, None, w2, b2, skip if with_skip else None, 1e-5, 1.0, "sigmoid", "relu")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.senet.normalize.default, arguments, test_utils=tests)
