"""SE after norms and layers of every kind: exact against float64, or refused with a reason."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm.layers
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import senet
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close

C = 8
TV: Any = torchvision
# The module, and how SE is attached to it.
MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "BatchNorm2d": (lambda: nn.BatchNorm2d(C), "batch_norm"),
    "BatchNorm2d, no parameters": (lambda: nn.BatchNorm2d(C, affine=False), "batch_norm"),
    "BatchNorm2d, no statistics": (lambda: nn.BatchNorm2d(C, track_running_stats=False), "batch_norm"),
    "BatchNorm2d, cumulative": (lambda: nn.BatchNorm2d(C, momentum=None), "batch_norm"),
    "GroupNorm": (lambda: nn.GroupNorm(2, C), "output"),
    "GroupNorm of timm": (lambda: timm.layers.GroupNorm(C, 2), "output"),
    "GroupNormAct of timm": (lambda: timm.layers.GroupNormAct(C, 2), "output"),
    "LayerNorm2d of timm": (lambda: timm.layers.LayerNorm2d(C), "output"),
    "LayerNormAct2d of timm": (lambda: timm.layers.LayerNormAct2d(C), "output"),
    "LayerNorm2d of torchvision": (lambda: TV.models.convnext.LayerNorm2d(C), "output"),
    "LayerNorm over channels and space": (lambda: nn.LayerNorm([C, 6, 6]), "output"),
    "RmsNorm2d of timm": (lambda: timm.layers.RmsNorm2d(C), "output"),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(C), "output"),
    "InstanceNorm2d with statistics": (lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True), "output"),
    "FrozenBatchNorm2d of torchvision": (lambda: TV.ops.FrozenBatchNorm2d(C), "output"),
    "FrozenBatchNormAct2d of timm": (lambda: timm.layers.FrozenBatchNormAct2d(C), "output"),
    "BatchNormAct2d of timm": (lambda: timm.layers.BatchNormAct2d(C), "output"),
    "EvoNorm2dS0 of timm": (lambda: timm.layers.EvoNorm2dS0(C, groups=2), "output"),
    "FilterResponseNormTlu2d of timm": (lambda: timm.layers.FilterResponseNormTlu2d(C), "output"),
    "StdConv2d of timm": (lambda: timm.layers.StdConv2d(C, C, 3), "output"),
    "ScaledStdConv2d of timm": (lambda: timm.layers.ScaledStdConv2d(C, C, 3), "output"),
    "convolution with weight norm": (lambda: weight_norm(nn.Conv2d(C, C, 3)), "output"),
    "convolution with spectral norm": (lambda: spectral_norm(nn.Conv2d(C, C, 3)), "output"),
}
# SyncBatchNorm trains on GPUs only; in evaluation it is a batch norm.
EVALUATION = {"SyncBatchNorm": (lambda: nn.SyncBatchNorm(C), "output")}


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.add_(torch.randn_like(tensor) / 4)
    return module


def recalibrated(se: Any, u: Tensor) -> Tensor:
    """Equations 2 to 4 of the paper, written out."""
    s = torch.sigmoid(torch.relu(se.fc1(u.mean((2, 3)))).matmul(se.fc2.weight.T) + se.fc2.bias)
    return u * s[:, :, None, None]


def run(network: Callable[[Tensor], Tensor], x: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The output, and the gradients of the input and of parameters in one tensor."""
    x = x.clone().requires_grad_()
    output = network(x)
    gradients = torch.autograd.grad((output**3).sum(), [x, *parameters])
    return [output, gradients[0], torch.cat([gradient.flatten() for gradient in gradients])]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", [*MODULES, *EVALUATION])
def test_is_exactly_the_module_and_then_se(name: str, training: bool) -> None:
    if training and name in EVALUATION:
        training = False
    build, how = (MODULES | EVALUATION)[name]
    torch.manual_seed(0)
    plain = randomised(nn.Sequential(nn.Conv2d(3, C, 1), build())).double()
    model = senet.insert(
        copy.deepcopy(plain), at="1", reduction=2, init="paper", example=torch.randn(2, 3, 6, 6).double()
    )
    (one,) = find_inserted_se(model)
    assert one.how == how
    randomised(one.se)
    model.train(training), plain.train(training)
    x = 2 * torch.randn(3, 3, 6, 6, dtype=torch.float64) + 1
    reference = copy.deepcopy(one.se)
    actual = run(model, x, [p for p in model.parameters() if p.requires_grad])
    # In the order of the network's parameters: those of SE follow those of the module.
    own = [p for p in (*plain.parameters(), *reference.parameters()) if p.requires_grad]
    expected = run(lambda x: recalibrated(reference, plain(x)), x, own)
    for mine, theirs in zip(actual, expected, strict=True):
        assert_close(mine, theirs, 1e-10)
    for key, buffer in plain.named_buffers():
        assert torch.allclose(dict(model.named_buffers())[key].double(), buffer.double(), rtol=1e-12), key


@pytest.mark.parametrize("name", [*MODULES, *EVALUATION])
def test_identity_changes_no_bit_and_remove_restores(name: str) -> None:
    build, _ = (MODULES | EVALUATION)[name]
    torch.manual_seed(0)
    plain = randomised(nn.Sequential(nn.Conv2d(3, C, 1), build())).eval()
    x = torch.randn(2, 3, 6, 6)
    model = senet.insert(copy.deepcopy(plain), at="1", reduction=2, example=x)
    assert torch.equal(model(x), plain(x))
    senet.remove(model)
    names = [[f"{type(m).__module__}.{type(m).__qualname__}" for m in network.modules()] for network in (model, plain)]
    assert names[0] == names[1]  # each parametrized module has a class of its own
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(x), plain(x))


class Permuted(nn.Module):
    """A layer norm of a map with the channels last."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, C, 1), norm(C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return y


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm, nn.RMSNorm, partial(timm.layers.LayerNorm)], ids=["layer", "rms", "timm"]
)
def test_channels_last_norms_are_refused_with_the_reason(norm: Callable[[int], nn.Module]) -> None:
    model = Permuted(norm)
    with pytest.raises(
        ValueError, match=r"'norm' .* has the shape \(2, 6, 6, 8\), with its 8 channels on axis 3 .chan"
    ):
        senet.insert(model, at="norm", example=torch.randn(2, 3, 6, 6))
    with pytest.raises(ValueError, match="the number of channels of the output of 'norm' .* is unknown; give example="):
        senet.insert(model, at="norm")
    assert not find_inserted_se(model)
