"""Bad inputs: each gives an error that names the fault and a remedy, and leaves the network as it was."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from tests.se_by_hand import MostUsed


def conv(inputs: int = 3, outputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def plain() -> nn.Module:
    return nn.Sequential(conv(), conv(8), conv(8))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


def residual() -> nn.Module:
    return nn.Sequential(conv(), Residual(), Residual())


class TwoInputs(nn.Module):
    """Opaque to a guess: the second input is a tensor of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = conv(), nn.Linear(5, 8)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        out: Tensor = self.net(x) * self.scale(style)[:, :, None, None]
        return out


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mlp, self.norm = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.mlp(self.conv(x).permute(0, 2, 3, 1)))
        return y


class NoTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv()

    def forward(self, x: Tensor) -> str:
        return str(self.net(x).shape)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), x


class HasPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.end = Pair(), conv(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.pair(x)[0])
        return out


class DataDependent(nn.Module):
    """Its control flow reads values, which a run on the meta device does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return self.two(x)  # type: ignore[no-any-return]
        return self.one(x)  # type: ignore[no-any-return]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv(), conv(8)
        self.again = self.block

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.again(self.block(self.stem(x)))
        return out


class Own(nn.Module):
    """A user's block whose attribute has the name of SE's child."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.post = conv(), 3

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def quantized() -> nn.Module:
    model: Any = nn.Sequential(
        torch.ao.quantization.QuantStub(), nn.Conv2d(3, 8, 1), torch.ao.quantization.DeQuantStub()
    )
    model.eval().qconfig = torch.ao.quantization.default_qconfig
    prepared = torch.ao.quantization.prepare(model)
    prepared(torch.randn(1, 3, 8, 8))
    return torch.ao.quantization.convert(prepared)  # type: ignore[no-any-return]


X = torch.randn(2, 3, 16, 16)


@dataclass(frozen=True)
class Bad:
    """A network, arguments of `insert`, and the error."""

    model: Callable[[], Any]
    options: dict[str, Any]
    message: str
    error: type[Exception] = ValueError
    only_insert: dict[str, Any] = field(default_factory=dict)


# Options of `insert`: what it refuses, and `find_sites` does not.
ATTACHING = {"reduction": 4}
INPUTS = {
    "no network": Bad(lambda: "resnet50", {}, "expected a network, a torch.nn.Module, got 'resnet50'", TypeError),
    "several inputs, no example": Bad(TwoInputs, {"at": "net"}, "give example=, an input of the network"),
    "several inputs, sites without example": Bad(TwoInputs, {}, "example="),
    "example with too few inputs": Bad(TwoInputs, {"at": "net", "example": X}, "example.*style"),
    "example of another type": Bad(
        plain, {"example": "image.png"}, "example must be a tensor, a tuple.*got str", TypeError
    ),
    "example with keys that are no names": Bad(
        plain, {"example": {1: X}}, "example must be a tensor.*got dict", TypeError
    ),
    "example of another shape": Bad(plain, {"at": "1.1", "example": torch.randn(2, 5, 16, 16)}, r"\(2, 5, 16, 16\)"),
    "example of another dtype": Bad(plain, {"at": "1.1", "example": X.double()}, "float64"),
    "example of an unknown keyword": Bad(plain, {"at": "1.1", "example": {"image": X}}, "image"),
    "glob without a match": Bad(plain, {"at": "layer9.*"}, "unknown site or module in at= 'layer9.*'"),
    "no glob": Bad(plain, {"at": []}, "at= is empty: name sites, units or modules, or omit it"),
    "at that is no text": Bad(plain, {"at": [3]}, "at must be names or globs such as 'layer3.*'", TypeError),
    "unknown placement": Bad(
        residual, {"placement": "middle"}, "unknown placement 'middle'.*Choose from: standard, pre"
    ),
    "placement that is not there": Bad(plain, {"placement": "identity"}, "placement 'identity'"),
    "placement that is not at this module": Bad(plain, {"placement": "identity", "at": "1"}, "placement 'identity'"),
    "stage that does not exist": Bad(residual, {"stages": 7}, r"invalid stages=.7.: this network has the stages"),
    "no stages": Bad(residual, {"stages": []}, r"invalid stages=\[\]"),
    "stages that are no numbers": Bad(residual, {"stages": "conv4"}, "stages must be whole numbers", TypeError),
    "stages that are not whole": Bad(residual, {"stages": 2.0}, "stages must be whole numbers.*got 2.0", TypeError),
    "stage of another type": Bad(residual, {"stages": True}, "stages must be whole numbers.*got True", TypeError),
    "empty batch": Bad(plain, {"example": X[:0]}, r"example is an empty batch .*.0, 3, 16, 16.*at least one image"),
    "stages that are unknown": Bad(plain, {"at": "1.1", "stages": 2}, "the stage of '1.1' is unknown: give example="),
    "channels last": Bad(ChannelsLast, {"at": "mlp", "example": X}, r"8 channels on axis 3 .channels last."),
    "map without space": Bad(TwoInputs, {"at": "scale", "example": (X, torch.randn(2, 5))}, "has no spatial axis"),
    "a tuple as output": Bad(HasPair, {"at": "pair", "example": X}, "'pair' .Pair. was a tuple and not a tensor"),
    "module without a tensor as output": Bad(
        lambda: nn.Sequential(NoTensor()), {"at": "0", "example": X}, "'0' .NoTensor. was a str and not a tensor"
    ),
    "data-dependent control flow, no run": Bad(DataDependent, {"at": "two.1", "example": X}, "'two.1' .* did not run"),
    "shared module": Bad(Shared, {"at": "block.1", "example": X}, "called 2 times in one forward pass"),
    "shared module, no example": Bad(Shared, {"at": "block.1"}, "called 2 times in one forward pass"),
    "quantized network": Bad(
        quantized, {"at": "1", "example": X}, "is quantized, and SE scales maps of floating.*then quantize"
    ),
    "TorchScript": Bad(
        lambda: torch.jit.script(plain()),
        {"at": "0"},
        "was compiled by TorchScript, which runs no",
    ),
    "traced by torch.fx": Bad(
        lambda: nn.Sequential(torch.fx.symbolic_trace(conv())),
        {"at": "0", "example": X},
        "is a torch.fx.GraphModule",
        only_insert=ATTACHING,
    ),
    "empty network": Bad(nn.Sequential, {}, "found no convolutional units in Sequential"),
    "empty sequence": Bad(
        lambda: nn.Sequential(conv(), nn.Sequential()), {"at": "1", "example": X}, "'1' .Sequential. is empty"
    ),
    "list of modules": Bad(
        lambda: nn.Sequential(conv(), nn.ModuleList([conv()])), {"at": "1"}, "'1' .ModuleList. is a container"
    ),
    "network that is a list of modules": Bad(
        lambda: nn.ModuleList([conv(), conv(8)]),
        {},
        "ModuleList has no forward: give the network that calls its modules",
    ),
    "example of a generator": Bad(plain, {"example": (x for x in [X])}, "example must be .*got generator", TypeError),
    "example of arrays": Bad(plain, {"example": X.numpy()}, "example must be a tensor, .*got ndarray", TypeError),
    "example without inputs": Bad(plain, {"example": ()}, "does not run on example .no tensor.: .*missing 1 required"),
    "example without axes": Bad(plain, {"example": torch.tensor(1.0)}, "does not run on example .*; give example="),
    "example without a batch": Bad(plain, {"example": X[0]}, r"does not run on example .*3, 16, 16.*; give example="),
    "example of integers": Bad(plain, {"example": X.to(torch.uint8)}, "uint8 on cpu.*; its weights are float32 on cpu"),
    "half precision, an example of float32": Bad(
        lambda: residual().half(), {"at": "1", "example": X}, "its weights are float16 on cpu; give example="
    ),
    "compiled network": Bad(lambda: torch.compile(plain()), {}, "insert SE first, then wrap", only_insert=ATTACHING),
    "placement that is a list": Bad(residual, {"placement": ["post"]}, "unknown placement .*; did you mean 'post'"),
    "at that is bytes": Bad(plain, {"at": b"1"}, "at must be names or globs such as 'layer3.*', got b'1'", TypeError),
    "no convolution": Bad(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {}, "found no convolutional units"),
    "lazy modules": Bad(
        lambda: nn.Sequential(nn.LazyConv2d(8, 3)),
        {"at": "0"},
        "weight' of a lazy module is not created yet: run the network once",
    ),
    "lazy modules, an example": Bad(
        lambda: nn.Sequential(nn.LazyConv2d(8, 3)),
        {"at": "0", "example": X},
        "weight' of a lazy module is not created yet: run the network once",
    ),
    "meta device, an example with values": Bad(lambda: plain().to("meta"), {"at": "1.1", "example": X}, "on meta"),
    "SE is there": Bad(
        lambda: senet.insert(plain(), at="1.1"), {"at": "1.1"}, "already has SE; remove it first", only_insert=ATTACHING
    ),
    "SE is there, at an output": Bad(
        lambda: senet.insert(plain(), at="1.0"), {"at": "1.0"}, "already has SE; remove", only_insert=ATTACHING
    ),
    "SE of its own": Bad(lambda: nn.Sequential(conv(3, 16), MostUsed()), {"at": "0"}, "1 is SE of the network's own"),
    "name of SE's child": Bad(
        lambda: nn.Sequential(Own()),
        {"placement": "post", "at": "0", "example": X},
        "its own attribute 'post'",
        only_insert=ATTACHING,
    ),
    "wrapped network": Bad(lambda: nn.DataParallel(plain()), {"at": "*.1"}, "insert SE first", only_insert=ATTACHING),
    "wrapped network, no names": Bad(lambda: nn.DataParallel(plain()), {}, "insert SE first, then wrap"),
    "no reduction": Bad(plain, {"at": "1.1"}, "reduction", only_insert={"reduction": 0}),
    "window of another type": Bad(plain, {"at": "1.1"}, "must be integers", TypeError, only_insert={"window": 2.5}),
    "unknown squeeze": Bad(plain, {"at": "1.1"}, "unknown squeeze 'mean'", only_insert={"squeeze": "mean"}),
    "unknown gate": Bad(plain, {"at": "1.1"}, "unknown gate 'softmax'", only_insert={"gate": "softmax"}),
    "gate without identity": Bad(plain, {"at": "1.1"}, "has no identity initial", only_insert={"gate": "tanh"}),
    "unknown initialization": Bad(plain, {"at": "1.1"}, "unknown init 'zero'", only_insert={"init": "zero"}),
    "no optimizer": Bad(
        plain, {"at": "1.1"}, "optimizer must be a torch.optim.Optimizer", TypeError, only_insert={"optimizer": "sgd"}
    ),
    "optimizer of another network": Bad(
        plain,
        {"at": "1.1"},
        "has none of this network's parameters",
        only_insert={"optimizer": torch.optim.SGD(plain().parameters(), lr=0.1)},
    ),
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def snapshot(model: Any) -> list[Any]:
    """What insert may change: modules, their classes, attributes, hooks and modes; tensors and their values."""
    if not isinstance(model, nn.Module):
        return [model]
    found: list[Any] = []
    for name, module in model.named_modules(remove_duplicate=False):
        hooks = [list(getattr(module, kind)) for kind in HOOKS if hasattr(module, kind)]
        found.append((name, id(module), type(module), module.training, hooks, sorted(vars(module))))
    tensors: list[Any] = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        lazy = nn.parameter.is_lazy(tensor)
        value = None if lazy or tensor.is_meta else tensor.detach().flatten().tolist()
        found.append((name, id(tensor), tensor.requires_grad, value))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", INPUTS)
def test_is_refused_and_the_network_is_unchanged(name: str) -> None:
    bad = INPUTS[name]
    model = bad.model()
    before = snapshot(model)
    for function in (senet.insert,) if bad.only_insert else (senet.find_sites, senet.insert):
        with pytest.raises(bad.error, match=rf"(?s){bad.message}"):
            function(model, **bad.options, **bad.only_insert)
        assert snapshot(model) == before


class Steps(Residual):
    """Runs its layers through a structure that SE in place of a batch norm does not reach."""

    def __init__(self, hold: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.steps = hold([self.conv1, self.bn1, torch.relu, self.conv2, self.bn2])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for step in self.steps() if callable(self.steps) else self.steps:
            y = step(y)
        return torch.relu(x + y)


@pytest.mark.parametrize("hold", [list, tuple, lambda steps: lambda: steps], ids=["list", "tuple", "closure"])
def test_a_batch_norm_that_is_held_outside_of_the_module_tree(hold: Callable[[list[Any]], Any]) -> None:
    model = nn.Sequential(conv(), Steps(hold), Steps(hold))
    with pytest.raises(ValueError, match=r"'1.bn2' is also held by '1.steps', outside of the module tree"):
        senet.insert(model)
    assert not any(isinstance(module, senet.SEBatchNorm) for module in model.modules())
    senet.insert(model, "post")
    assert len(senet.find_sites(nn.Sequential(conv(), Steps(hold), Steps(hold)), "post")) == 2
