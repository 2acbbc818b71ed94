"""`torch.jit.trace` of networks with SE, and what `torch.jit.script` answers."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.insertion.sites import PLACEMENTS
from senet.models import CATALOGUE
from senet.nn.block import GATES, SQUEEZES
from tests.helpers import assert_close, randomise
from tests.models.test_catalogue import size_of
from tests.networks import FAMILIES
from tests.slow import fast_if

pytestmark = [
    pytest.mark.usefixtures("traced"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning"),
]


def check(model: nn.Module, x: Tensor) -> None:
    """A trace passes PyTorch's own check, follows the batch, and computes the same in both gradient modes."""
    model = model.eval()
    other = torch.cat([x, x[:1]])
    expected = [model(x).detach(), model(other).detach()]
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            traced = torch.jit.trace(model, x)
        for runs in (True, False):
            with torch.set_grad_enabled(runs):
                assert_close(traced(x).detach(), expected[0], 1e-10)
                assert_close(traced(other).detach(), expected[1], 1e-10)
    with torch.no_grad():
        assert_close(torch.jit.freeze(traced)(x), expected[0], 1e-10)
        assert_close(torch.jit.optimize_for_inference(traced)(x), expected[0], 1e-10)


def _cost(name: str) -> object:
    """Tracing takes a second a network: all but the smallest are slow."""
    return pytest.param(name, marks=[] if name in ("resnet20", "se_shufflenet", "se_mobilenet") else pytest.mark.slow)


def image(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64)


@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize("gate", sorted(GATES))
@fast_if(lambda gate, squeeze: squeeze == "avg" or gate == "sigmoid")
def test_blocks(gate: str, squeeze: str) -> None:
    model = senet.insert(FAMILIES["ours basic"](), gate=gate, squeeze=squeeze, stages=2, init="paper")
    check(randomise(model).double(), image())


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    "family", ["ours basic", "ours pre-activation basic", pytest.param("timm d", marks=pytest.mark.slow)]
)
def test_placements(family: str, placement: str) -> None:
    check(randomise(senet.insert(FAMILIES[family](), placement)).double(), image(32))


@pytest.mark.parametrize("name", [_cost(name) for name in ("resnet20", *[row.se_name for row in CATALOGUE.values()])])
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")  # timm's VGG
def test_every_network(name: str) -> None:
    """Bit for bit: a hundred layers with random weights make a visible difference of any other rounding."""
    model = senet.create_model(name, num_classes=3).eval()
    x = torch.randn(2, 3, size_of(name), size_of(name))
    traced = torch.jit.trace(model, x)
    with torch.no_grad():
        assert torch.equal(traced(x), model(x))


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")  # PyTorch's own
@pytest.mark.parametrize("squeeze", ["avg", "max"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_training(squeeze: str, checkpointing: bool) -> None:
    model = senet.insert(FAMILIES["ours basic"](), squeeze=squeeze, init="paper").double().train()
    other, x = copy.deepcopy(model), image()
    model.set_grad_checkpointing(checkpointing)  # which a trace leaves out
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    traced = torch.jit.trace(model, x)
    for name, buffer in model.named_buffers():  # tracing ran the network
        buffer.copy_(before[name])
    for network in (traced, other):
        network(x).square().sum().backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert_close(one.grad, two.grad, 1e-9)
    for one, two in zip(model.buffers(), other.buffers(), strict=True):
        assert_close(one, two)


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda: SqueezeExcitation(16), "SqueezeExcitation"),
        (lambda: SEBatchNorm(16, se=SqueezeExcitation(16)), "SqueezeExcitation"),
        (lambda: senet.insert(torchvision.models.resnet18(), "post"), "RecalibratedBasicBlock"),
        (lambda: senet.create_model("resnet20"), "ResNet"),
        (lambda: senet.create_model("resnet20").layer1, "PostActivationUnit"),
        (lambda: senet.create_model("se_mobilenet", features_only=True), "RecalibratedBatchNormAct2d"),
    ],
)
def test_script_is_refused(build: object, kind: str) -> None:
    """TorchScript's compiler reported an annotation, "Unknown type annotation: 'Tensor | None' at "."""
    model = build()  # type: ignore[operator]
    text = repr(model)
    with pytest.raises(TypeError, match=rf"cannot compile {kind}, .*use torch.jit.trace\(model.eval\(\), example\)"):
        torch.jit.script(model)
    assert repr(model) == text
