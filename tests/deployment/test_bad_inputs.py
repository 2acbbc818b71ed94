"""Networks and examples that cannot be deployed: the error names the reason and the remedy, and nothing changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from senet import deploy
from senet.utils.errors import MissingExampleError
from tests.helpers import randomise

X = torch.zeros(1, 3, 8, 8)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def one_in_training() -> nn.Module:
    model = network().eval()
    model[1].train()
    return model


def with_stream() -> nn.Module:
    model = network().eval()
    model.stream = (one for one in range(3))  # a generator has no copy
    return model


class Reports(nn.Sequential):
    """A network whose own attribute has the name of the report."""

    def report(self) -> str:
        return "all is well"


class TakesTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor, step: int) -> Tensor:
        return self.conv(x) + [0, 1][step]


CASES: dict[str, tuple[Callable[[], object], object, type[Exception], str]] = {
    "training mode": (network, None, ValueError, r"this Sequential is in training mode, .* call \.eval\(\) first"),
    "a module in training mode": (one_in_training, None, ValueError, r"module '1' .* training mode, .* \.eval\(\)"),
    "not a network": (lambda: "resnet50", None, TypeError, "expected a network, a torch.nn.Module, got 'resnet50'"),
    "a state dict": (lambda: network().state_dict(), None, TypeError, "expected a network"),
    "wrapped": (lambda: nn.DataParallel(network()).eval(), None, ValueError, r"DataParallel\(senet.deploy\(model\)\)"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)).eval(), None, ValueError, "run the network once first"),
    "meta device": (lambda: network().to("meta").eval(), None, ValueError, "'0.weight' is on the meta device"),
    "its own report": (
        lambda: Reports(nn.Conv2d(3, 4, 1)).eval(),
        None,
        ValueError,
        "this Reports has an attribute 'report' of its own.*rename it, or use senet.export",
    ),
    "no copy": (with_stream, None, ValueError, "Sequential cannot be copied: cannot pickle 'generator' object"),
    "a list of numbers": (lambda: network().eval(), 224, TypeError, "example must be a tensor, a tuple"),
    "wrong channels": (
        lambda: network().eval(),
        torch.zeros(1, 4, 8, 8),
        ValueError,
        r"does not run on example \(\(1, 4",
    ),
    "wrong dtype": (lambda: network().eval(), X.double(), ValueError, "its weights are float32 on cpu"),
    "too many inputs": (lambda: network().eval(), (X, X), ValueError, "Sequential does not run on example"),
    "an unknown keyword": (lambda: TakesTwo().eval(), {"x": X, "y": X}, ValueError, "TakesTwo does not run on example"),
    "a missing example": (
        lambda: TakesTwo().eval(),
        None,
        MissingExampleError,
        "TakesTwo did not run on an image .*; give example=, an input of the network",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_the_error_names_the_reason(case: str) -> None:
    build, example, kind, message = CASES[case]
    model = build()
    before = [(name, id(module)) for name, module in model.named_modules()] if isinstance(model, nn.Module) else []
    with pytest.raises(kind, match=message):
        deploy(model, example)
    if isinstance(model, nn.Module):
        assert [(name, id(module)) for name, module in model.named_modules()] == before
        assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused() -> None:
    with pytest.raises(TypeError, match="compiled by TorchScript, which runs no Python: deploy the network itself"):
        deploy(torch.jit.trace(network().eval(), X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_quantized_network_is_refused() -> None:
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(network().eval(), {nn.Linear}).eval()
    with pytest.raises(ValueError, match=r"quantized: deploy the float network, then quantize"):
        deploy(model, X)


class Hidden(nn.Module):
    """The convolution is called through a list, so the module tree shows another one than the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.convs = [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convs[0](x)))


class Reads(Hidden):
    """The code reads an attribute of a module that is replaced."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.norm.eps


class Detects(Hidden):
    """The output has indices, and a layer before them takes a wrong map."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Any:
        scores = self.head(super().forward(x))
        return {"scores": scores.amax(1), "labels": scores.argmax(1)}


class Maps:
    """An object that PyTorch does not look into."""

    def __init__(self, first: Tensor, last: Tensor) -> None:
        self.first, self.last = first, last


class ReturnsObject(Hidden):
    """The output of a convolution is returned in an object, where no run shows it."""

    def forward(self, x: Tensor) -> Any:
        first = self.conv(x)
        return Maps(first, torch.relu(self.norm(first)))


class Keeps(Hidden):
    """The output of a convolution is kept in an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = [self.conv(x)]
        return torch.relu(self.norm(self.kept[0]))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Hidden, "Hidden cannot be rewritten: the result would differ by"),
        (Detects, "Detects cannot be rewritten: the result would differ by"),
        (ReturnsObject, "ReturnsObject cannot be rewritten: the result would differ by"),
        (Keeps, "Keeps cannot be rewritten: .* keep maps that are not computed any more"),
        (Reads, "its code does not run with replaced modules, whose attributes it may read .*no attribute 'eps'"),
    ],
)
def test_a_result_that_differs_is_refused(kind: type[nn.Module], message: str) -> None:
    torch.manual_seed(0)
    model = kind()
    if isinstance(model, Hidden):
        randomise(model)
    with pytest.raises(ValueError, match=message):
        deploy(model.eval(), torch.randn(2, 3, 12, 12))
