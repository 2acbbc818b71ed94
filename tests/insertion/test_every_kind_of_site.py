"""SE at sites of every kind, in tiny networks: it does no harm, and it does what its equations say."""

import copy
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale2d
from torch import Tensor, nn

import senet
from senet.insertion.placing import place
from senet.nn.inserted_se import find_inserted_se
from tests import forked
from tests.helpers import assert_close, randomise
from tests.slow import fast_if

C = 8


class Conv(nn.Sequential):
    """A convolution, a norm and an activation."""

    def __init__(self, inputs: int = C, outputs: int = C) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class Block(nn.Module):
    """Two layers where nothing joins."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Conv(), Conv()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x))
        return out


class Residual(nn.Module):
    """A residual unit as in torchvision, with an empty slot in its skip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(C, C, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(C)
        self.conv2 = nn.Conv2d(C, C, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(C)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + skip)


class Dense(nn.Module):
    """New maps, concatenated with the old ones."""

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.Conv2d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)[:, C // 2 : C // 2 + C]


class Branches(nn.Module):
    """Two branches, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Conv(C, C // 2), Conv(C, C // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x)], 1)


class Scaled(nn.Module):
    """A branch that ends in a layer scale and stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale, self.drop = nn.Conv2d(C, C, 3, padding=1), LayerScale2d(C, 0.5), DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.drop(self.scale(self.conv(x)))
        return out


class Functional(nn.Module):
    """Parameters and functions, without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, C, 3, 3) / 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(F.conv2d(x, self.weight, padding=1).add_(x))


class Volume(nn.Sequential):
    def __init__(self, dim: int) -> None:
        conv: Any = {1: nn.Conv1d, 3: nn.Conv3d}[dim]
        norm: Any = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[dim]
        super().__init__(conv(C, C, 3, padding=1), norm(C), nn.ReLU())


class Net(nn.Module):
    """A stem, a block and a classifier, for maps with any number of spatial axes."""

    def __init__(self, block: nn.Module, dim: int = 2) -> None:
        super().__init__()
        stem: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dim]
        self.stem, self.block, self.fc = stem(3, C, 3, padding=1), block, nn.Linear(C, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.stem(x))
        out: Tensor = self.fc(y.flatten(2).mean(-1))
        return out


@dataclass(frozen=True)
class Kind:
    """A block, the site in it, how SE is attached there, and arguments of `insert`."""

    block: Callable[[], nn.Module]
    site: str
    how: str
    placement: str = "standard"
    dim: int = 2
    options: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> nn.Module:
        torch.manual_seed(0)
        return randomise(Net(self.block(), self.dim)).eval()

    def x(self) -> Tensor:
        return torch.randn(2, 3, *[6] * self.dim, generator=torch.Generator().manual_seed(1))

    def insert(self, model: nn.Module, **options: Any) -> nn.Module:
        at = self.site.rpartition(".")[0] if self.how == "skip" else self.site
        senet.insert(model, self.placement, at=at, reduction=2, example=self.x(), **self.options, **options)  # type: ignore[arg-type]
        (one,) = find_inserted_se(model)
        assert (one.name, one.how) == (self.site, self.how)
        return model

    def active(self) -> tuple[nn.Module, nn.Module]:
        """A network whose gates are between 0 and 1, and the plain network."""
        plain = self.plain()
        model = self.insert(copy.deepcopy(plain), init="paper")
        with torch.no_grad():
            for parameter in find_inserted_se(model)[0].se.parameters():
                parameter.normal_()
        return model.eval(), plain


KINDS = {
    "batch norm": Kind(Block, "block.two.1", "batch_norm"),
    "convolution without a norm": Kind(Scaled, "block.conv", "output"),
    "block output": Kind(Block, "block", "output"),
    "activation": Kind(Block, "block.two.2", "output"),
    "dense layer": Kind(Dense, "block.new", "output"),
    "concatenation": Kind(Branches, "block", "output"),
    "input": Kind(Branches, "block", "input", "pre"),
    "input of a convolution": Kind(Dense, "block.new", "input", "pre"),
    "output after the sum": Kind(Residual, "block", "output", "post"),
    "skip": Kind(Residual, "block.downsample", "skip", "identity"),
    "branch": Kind(Residual, "block.bn2", "batch_norm"),
    "inside of a branch": Kind(Residual, "block.bn1", "batch_norm", "conv3x3"),
    "layer scale": Kind(Scaled, "block.scale", "output"),
    "stochastic depth": Kind(Scaled, "block.drop", "output"),
    "functions": Kind(Functional, "block", "output"),
    "one axis": Kind(lambda: Volume(1), "block.1", "batch_norm", dim=1),
    "three axes": Kind(lambda: Volume(3), "block.1", "batch_norm", dim=3),
    "one axis, convolution": Kind(lambda: Volume(1), "block.0", "output", dim=1),
    "three axes, activation": Kind(lambda: Volume(3), "block.2", "output", dim=3),
}
every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
# One of each mechanism and of each number of axes, for a test that takes half a second.
EXPORTED = ("batch norm", "block output", "dense layer", "input", "skip", "functions", "one axis", "three axes")


def recalibrated(se: Any, u: Tensor) -> Tensor:
    """Equations 2 to 4 of the paper, written out."""
    z = u.flatten(2).mean(-1)
    s = torch.sigmoid(torch.relu(z @ se.fc1.weight.T + se.fc1.bias) @ se.fc2.weight.T + se.fc2.bias)
    return u * s.reshape(*s.shape, *[1] * (u.ndim - 2))


class Skip(nn.Module):
    def __init__(self, se: nn.Module) -> None:
        super().__init__()
        self.se = se

    def forward(self, x: Tensor) -> Tensor:
        return recalibrated(self.se, x)


def by_hooks(kind: Kind, plain: nn.Module, se: nn.Module) -> nn.Module:
    """The plain network, with SE applied by hooks."""
    if kind.how == "skip":
        plain.get_submodule("block").downsample = Skip(se)
    elif kind.how == "input":
        plain.get_submodule(kind.site).register_forward_pre_hook(lambda m, args: (recalibrated(se, args[0]),))
    else:
        plain.get_submodule(kind.site).register_forward_hook(lambda m, args, out: recalibrated(se, out))
    return plain


@every
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_se_acts_at_the_site(kind: Kind, training: bool) -> None:
    model, plain = kind.active()
    model, plain = model.double().train(training), plain.double().train(training)
    reference = by_hooks(kind, plain, find_inserted_se(model)[0].se)
    x, outputs, gradients = kind.x().double(), [], []
    for network in (model, reference):
        network.zero_grad()
        torch.manual_seed(0)  # of stochastic depth
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
        plain_gradients = [p.grad.flatten() for name, p in network.named_parameters() if ".se." not in name]
        gradients.append(
            torch.cat(plain_gradients)
        )  # in one, as those of biases before a batch norm are rounding errors
    assert_close(outputs[0], outputs[1])
    assert_close(gradients[0], gradients[1], 1e-9)


@every
def test_identity_initialization_changes_no_bit_and_learns_from_the_first_step(kind: Kind) -> None:
    plain, x = kind.plain(), kind.x()
    model = kind.insert(copy.deepcopy(plain))
    assert torch.equal(model(x), plain(x))
    assert torch.equal(model(x[:1]), plain(x[:1]))
    (one,) = find_inserted_se(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for layers in (["fc2"], ["fc1", "fc2"]):  # the last layer is zero in the first step
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.tensor([0, 1])).backward()
        for layer in layers:
            assert one.se.get_submodule(layer).weight.grad.abs().max() > 0, layer
        optimizer.step()
    assert not torch.equal(model.eval()(x), plain(x))


@every
def test_keys_stay_and_remove_restores_the_network(kind: Kind) -> None:
    plain = kind.plain()
    keys, types = list(plain.state_dict()), [(name, type(module)) for name, module in plain.named_modules()]
    attributes = [vars(module).keys() for module in plain.modules()]
    tensors = {key: value.data_ptr() for key, value in plain.state_dict().items()}
    model = kind.insert(plain)
    assert [key for key in model.state_dict() if ".se." not in key] == keys
    fresh = kind.plain().state_dict()
    missing, unexpected = model.load_state_dict(fresh, strict=False)
    assert all(".se." in key for key in missing)
    assert not unexpected
    assert senet.remove(model) is model
    assert list(model.state_dict()) == keys
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == tensors
    assert [(name, type(module)) for name, module in model.named_modules()] == types
    assert [vars(module).keys() for module in model.modules()] == attributes


@every
def test_copies_and_pickles(kind: Kind) -> None:
    model, _ = kind.active()
    x = kind.x()
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        with torch.no_grad():
            find_inserted_se(other)[0].se.fc2.bias.add_(1.0)
        assert not torch.equal(other(x), expected)
    assert torch.equal(model(x), expected)


@every
@fast_if(lambda kind: kind in [KINDS[name] for name in EXPORTED])
def test_symbolic_trace_and_export_keep_se(traced: None, kind: Kind) -> None:
    model, plain = kind.active()
    x = kind.x()
    expected = model(x)
    assert not torch.allclose(expected, plain(x))
    graph = torch.fx.symbolic_trace(model)
    assert torch.equal(graph(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(graph))(x), expected)
    exported = torch.export.export(model, (x,)).module()
    assert_close(exported(x), expected, 1e-6)


@pytest.mark.parametrize("name", ["batch norm", "block output", "input", "skip", "functions", "three axes"])
@fast_if(lambda name: name in ("batch norm", "input"))
def test_compiles_to_one_graph(traced: None, name: str) -> None:
    kind = KINDS[name]
    model, _ = kind.active()
    x = kind.x()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))
    with torch.no_grad():
        find_inserted_se(model)[0].se.fc2.bias.add_(1.0)
    assert torch.equal(compiled(x), model(x))
    senet.remove(model)
    assert torch.equal(compiled(x), model(x))


def rank_of_two(rank: int, names: list[str], store: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        for name in names:
            kind = KINDS[name]
            model, _ = kind.active()
            batch = torch.cat([kind.x(), kind.x() + 1])
            model(batch).square().sum().backward()  # in evaluation: samples do not depend on each other
            expected = {key: parameter.grad for key, parameter in model.named_parameters()}
            model.zero_grad()
            parallel = nn.parallel.DistributedDataParallel(model)
            parallel(batch[2 * rank : 2 * rank + 2]).square().sum().backward()
            for key, parameter in model.named_parameters():
                assert_close(2 * parameter.grad, expected[key], 1e-4)  # DDP takes the mean over processes
    finally:
        torch.distributed.destroy_process_group()


def test_data_parallel_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    names = ["batch norm", "block output", "input", "skip", "functions"]
    assert {KINDS[name].how for name in names} == {kind.how for kind in KINDS.values()}
    forked.run_ranks(rank_of_two, (names, str(tmp_path / "store")))


def test_place_is_all_that_insert_does_to_the_network() -> None:
    """SE of another insertion at the same module stays where it is."""
    kind = KINDS["block output"]
    model = kind.insert(kind.plain())
    place(model, "block", "input", "pre", senet.SqueezeExcitation(C, 2))
    senet.remove(model, at="block.standard.se")
    assert [(one.how, one.child) for one in find_inserted_se(model)] == [("input", "pre")]
