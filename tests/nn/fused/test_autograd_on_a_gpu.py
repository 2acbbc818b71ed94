"""The whole operation where Triton's kernels really run."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.models import ResNet, ResNetSpec
from senet.nn.fused import set_fused
from senet.nn.sum_relu import sum_relu
from tests.helpers import randomise

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("restored"),
]


def norm(momentum: float | None = 0.1) -> senet.SEBatchNorm:
    se = senet.SqueezeExcitation(64, gain=2.0)
    return randomise(senet.SEBatchNorm(64, momentum=momentum, se=se)).cuda()  # type: ignore[return-value]


def maps(count: int) -> list[Tensor]:
    shape = (8, 64, 14, 14)
    return [torch.randn(shape, device="cuda").to(memory_format=torch.channels_last) for _ in range(count)]


def step(module: senet.SEBatchNorm, y: Tensor, skip: Tensor, g: Tensor) -> list[Tensor]:
    """The output and all gradients."""
    inputs = [y.detach().requires_grad_(), skip.detach().requires_grad_()]
    out = sum_relu(module, *inputs)
    assert type(out.grad_fn).__name__ == "_WholeBackward"
    return [out.detach(), *torch.autograd.grad(out, [*inputs, *module.parameters()], g)]


@pytest.fixture
def strict() -> Iterator[None]:
    """Where the host waits for the device, it raises."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_host_never_waits(strict: None, momentum: float | None) -> None:
    set_fused("triton")
    module, values = norm(momentum), maps(3)
    step(module, *values)
    with torch.no_grad():
        module.eval()(values[0])
    torch.cuda.set_sync_debug_mode("error")
    step(module.train(), *values)
    with torch.no_grad():
        module.eval()(values[0])


def test_on_another_stream() -> None:
    set_fused("triton")
    module, values = norm(), maps(3)
    again = copy.deepcopy(module)
    expected = step(module, *values)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = step(again, *values)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(module.running_var, again.running_var)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_the_gpu_that_is_not_the_current_one() -> None:
    set_fused("triton")
    module, values = norm(), maps(3)
    other = copy.deepcopy(module).to("cuda:1")
    expected = step(module, *values)
    found = step(other, *[x.to("cuda:1") for x in values])
    for one, two in zip(found, expected, strict=True):
        assert one.device.index == 1
        assert float((one.to("cuda:0") - two).norm() / two.norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_identity_start_keeps_the_bits_of_the_plain_network(dtype: torch.dtype) -> None:
    spec = {"channels": (16, 32), "widths": (8, 16), "bottleneck": True, "stride_in": "conv2"}
    plain = ResNet(ResNetSpec(units=(1, 1), stem="conv3", stem_channels=8, pool="none", **spec), num_classes=5)  # type: ignore[arg-type]
    plain = randomise(plain).cuda().to(memory_format=torch.channels_last).eval()
    model = senet.insert(copy.deepcopy(plain)).cuda().eval()
    x = torch.randn(4, 3, 16, 16, device="cuda").to(memory_format=torch.channels_last)
    for how in ("auto", "triton"):
        set_fused(how)
        with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            assert torch.equal(model(x), plain(x))


def test_a_network_trains_as_unfused() -> None:
    """Losses of ten steps."""
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    try:
        losses = []
        for how in ("triton", "off"):
            set_fused(how)
            torch.manual_seed(1)
            model = senet.create_model("se_resnet20", num_classes=5).cuda()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            x, labels = torch.randn(16, 3, 32, 32, device="cuda"), torch.arange(16, device="cuda") % 5
            for _ in range(10):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), labels)
                loss.backward()
                optimizer.step()
                losses.append(float(loss))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert losses[:10] == pytest.approx(losses[10:], rel=1e-2)
