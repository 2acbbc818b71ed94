"""Fused networks compute what they did before, in float64; what does not match is left unchanged, with the reason."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
from torch import Tensor, nn

import senet
from tests.fusion.networks import NETWORKS, Block, FunctionalSE, MMBottleneck, MMInvertedResidual, MMSELayer, Net, build
from tests.fusion.steps import check_same, run

NAME = pytest.mark.parametrize("name", NETWORKS)


@NAME
def test_same_function(name: str, fused: list[Any]) -> None:
    model, x = build(name)
    before = copy.deepcopy(model)
    kinds, names = [type(module) for module in model.modules()], list(model.state_dict())
    parameters = list(map(id, (*model.parameters(), *model.buffers())))
    assert senet.fuse(model, example=x) is model
    report = model.fuse_report
    assert (len(report.fused), len(report.left)) == NETWORKS[name][2:], str(report)
    assert list(model.state_dict()) == names
    assert list(map(id, (*model.parameters(), *model.buffers()))) == parameters
    run(model, x)
    assert [None if how == "sum" else how for how in fused] == [row.activation for row in report.fused]
    assert fused.count("sum") == {"timm seresnet": 4, "MONAI": 1, "mmpretrain bottleneck": 2}.get(name, 0)
    assert all(isinstance(module, kind) for module, kind in zip(model.modules(), kinds, strict=True))
    model.load_state_dict(before.state_dict())
    check_same(model, before, x)
    assert senet.unfuse(model) is model
    assert [type(module) for module in model.modules()] == kinds
    assert not any(key.startswith(("_senet", "fuse")) for module in model.modules() for key in vars(module))


def test_report() -> None:
    model, x = build("timm ghostnet")
    report = senet.fuse(model, example=x).fuse_report
    assert [(row.se, row.kind, row.norm, row.activation) for row in report.fused] == [
        ("blocks.0.se", "SqueezeExcite", "blocks.0.bn_dw", None)
    ]
    assert str(report).splitlines() == [
        "1 of 2 SE modules fused",
        'left unchanged: blocks.1.se: it follows the operation "cat" in the forward of GhostModule',
    ]


def test_fusing_twice_and_without_se() -> None:
    model, _ = build("mmpretrain")
    report = senet.fuse(model).fuse_report
    kinds = [type(module) for module in model.modules()]
    assert senet.fuse(model).fuse_report == report
    assert [type(module) for module in model.modules()] == kinds
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert senet.fuse(plain) is plain
    assert plain.fuse_report.rows == ()
    assert senet.unfuse(senet.unfuse(plain)) is plain


class Twice(nn.Module):
    """A batch norm whose output is used by something else too."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.se = nn.BatchNorm2d(8), MMSELayer(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(x)
        return y + self.se(y)  # type: ignore[no-any-return]


class Activated(nn.Module):
    """A function of torch activates."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.se = nn.BatchNorm2d(8), MMSELayer(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.se(torch.relu(self.bn(x)))  # type: ignore[no-any-return]


class Shared(nn.Module):
    """A batch norm before two SE modules."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.se, self.other = nn.BatchNorm2d(8), MMSELayer(8), MMSELayer(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.bn(self.se(self.bn(x))))  # type: ignore[no-any-return]


def hooked() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.register_forward_hook(lambda module, args, output: None)
    return Block(norm, MMSELayer(8))


def replaced() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.forward = norm.forward  # type: ignore[method-assign]
    return Block(norm, MMSELayer(8))


class Doubling(timm.layers.SEModule):
    """Does more than SE."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Keeping(MMSELayer):
    """SE that stores its gates."""

    def forward(self, x: Tensor) -> Tensor:
        self.gates = self.conv2(self.conv1(self.global_avgpool(x))).detach()
        return x * self.gates


class Observing(nn.Module):
    """Observes the gradient of a map, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.act, self.se, self.seen = nn.BatchNorm2d(8), nn.SiLU(), MMSELayer(8), [0]

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(x))
        if y.requires_grad:
            y.register_hook(self.seen.append)
        return self.se(y)  # type: ignore[no-any-return]


LEFT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "convolution": (lambda: Block(MMSELayer(8)), "it follows a Conv2d, not a batch norm"),
    "another norm": (lambda: Block(nn.GroupNorm(2, 8), MMSELayer(8)), "it follows a GroupNorm, not a batch norm"),
    "synchronized": (
        lambda: Block(nn.SyncBatchNorm(8), MMSELayer(8)),
        "it follows a SyncBatchNorm, which may do more than a batch norm",
    ),
    "another activation": (lambda: Block(nn.BatchNorm2d(8), nn.GELU(), MMSELayer(8)), "GELU, which is not fused"),
    "two activations": (
        lambda: Block(timm.layers.BatchNormAct2d(8), nn.ReLU(), MMSELayer(8)),
        "two activations precede it",
    ),
    "convolution after an activation": (
        lambda: Block(timm.layers.BatchNormAct2d(8), nn.Conv2d(8, 8, 3, padding=1), MMSELayer(8)),
        "it follows a Conv2d, not a batch norm",
    ),
    "pool": (lambda: Block(nn.BatchNorm2d(8), nn.AvgPool2d(2), MMSELayer(8)), "AvgPool2d, which is not fused"),
    "dropout": (lambda: Block(nn.BatchNorm2d(8), nn.Dropout(0.5), MMSELayer(8)), "Dropout"),
    "dropout at a rate of 0": (
        lambda: Block(nn.BatchNorm2d(8), nn.ReLU(), timm.layers.DropPath(0.0), MMSELayer(8)),
        "dropout (DropPath) precedes it",
    ),
    "dropout in the batch norm": (
        lambda: Block(timm.layers.BatchNormAct2d(8, drop_layer=nn.Dropout), MMSELayer(8)),
        "its BatchNormAct2d has dropout",
    ),
    "used twice": (Twice, "the output of blocks.0.bn, before it, is used elsewhere too"),
    "function": (Activated, 'it follows the operation "relu" in the forward of Activated'),
    "shared": (Shared, "modules before it are shared with other parts of the network"),
    "hooks": (hooked, "blocks.0.1 has hooks"),
    "forward": (replaced, "the forward of blocks.0.1 was replaced"),
    "more than SE": (
        lambda: Block(nn.BatchNorm2d(8), Doubling(8, rd_channels=4)),
        "does more than scale a map by gates",
    ),
    "stored gates": (
        lambda: Block(nn.BatchNorm2d(8), nn.SiLU(), Keeping(8)),
        "the code of Keeping stores a tensor",
    ),
    "gradient of a map": (Observing, "the code of Observing observes gradients of tensors"),
    "maximum": (
        lambda: Block(nn.BatchNorm2d(8), timm.layers.SEModule(8, add_maxpool=True)),
        'its squeeze is "avg+max"',
    ),
    "SEBatchNorm": (
        lambda: Block(senet.SEBatchNorm(8, se=senet.SqueezeExcitation(8, 4))),
        "it is part of an SEBatchNorm, which is fused already",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_left_unchanged(case: str, fused: list[Any]) -> None:
    make, reason = LEFT[case]
    model, x = Net(make()), torch.randn(4, 3, 8, 8)
    model.eval()(x)
    kinds = [type(module) for module in model.modules()]
    report = senet.fuse(model, example=x).fuse_report
    assert report.rows
    assert not report.fused
    assert all(reason in row.reason for row in report.left), str(report)
    assert [type(module) for module in model.modules()] == kinds
    model.eval()(x)
    assert not fused


def test_function_dropout_is_seen_in_training() -> None:
    class Dropping(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.se(torch.dropout(self.bn(x), 0.5, self.training))  # type: ignore[no-any-return]

    model = Net(Dropping())
    model.eval()(torch.randn(2, 3, 8, 8))
    state = torch.get_rng_state()
    report = senet.fuse(model).fuse_report
    assert (len(report.fused), len(report.left)) == (0, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["timm efficientnet", "senet"])
def test_the_default_device_is_another_one(name: str) -> None:
    model, _ = build(name)
    with torch.device("meta"):
        report = senet.fuse(model).fuse_report
    assert (len(report.fused), len(report.left)) == NETWORKS[name][2:], str(report)


def test_a_module_that_is_not_called() -> None:
    class Unused(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(x)  # type: ignore[no-any-return]

    model = Net(Unused())
    model.eval()(torch.randn(2, 3, 8, 8))
    assert senet.fuse(model).fuse_report.left[0].reason == "the network did not call it in a run"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["timm efficientnet", "timm seresnet"])
def test_errors_are_those_of_the_original(name: str, dtype: torch.dtype) -> None:
    exact, _ = build(name)
    x, model = torch.randn(4, 3, 64, 48, dtype=torch.float64), copy.deepcopy(exact).float()
    fused = senet.fuse(copy.deepcopy(model))
    expected, errors = run(exact, x), []
    for one in (model, fused):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = run(one, x.float())
        errors.append([float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)])
    assert all(error <= 2 * theirs for error, theirs in zip(errors[1], errors[0], strict=True)), errors


def test_gradients_of_gradients() -> None:
    results = []
    model, x = build("mmpretrain")
    for one in (model, senet.fuse(copy.deepcopy(model))):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(one(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), [x, *one.blocks.parameters()]))
    for mine, theirs in zip(*results, strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-10 * max(float(t.abs().max()) for t in results[0])


def test_channels_last_and_small_maps(fused: list[Any]) -> None:
    model, x = build("timm efficientnet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    check_same(model, before, x.contiguous(memory_format=torch.channels_last))
    senet.set_fused("auto")
    try:
        fused.clear()
        check_same(model, before, x)
        assert not fused  # maps of fewer elements
        senet.set_fused("off")
        check_same(model, before, x)
    finally:
        senet.set_fused("aten")
    assert not fused


def test_functional_se_calls_its_layers() -> None:
    model = Net(Block(nn.BatchNorm2d(8), nn.SiLU(), FunctionalSE(8)))
    model(torch.randn(2, 3, 8, 8))
    seen: list[Any] = []
    senet.fuse(model)
    model.blocks[0][3].up.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model(torch.randn(2, 3, 8, 8))
    assert seen == [(2, 8)]


@pytest.mark.parametrize("with_cp", [True, False])
def test_checkpoint_inside_a_block(with_cp: bool, fused: list[Any]) -> None:
    model = Net(MMInvertedResidual(8, nn.SiLU(), with_cp), MMBottleneck(8, with_cp)).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model.eval()(x)
    before = copy.deepcopy(model.train())
    senet.fuse(model)
    run(model, x)
    assert len(fused) == 4
    model.load_state_dict(before.state_dict())
    check_same(model, before, x)


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "efficientnet_b0", TypeError, "expected a network, a torch.nn.Module, got 'efficientnet_b0'"),
        (lambda: nn.DataParallel(build("mmpretrain")[0]), ValueError, "fuse SE first, then wrap, DataParallel("),
        (lambda: torch.compile(build("mmpretrain")[0]), ValueError, r"torch.compile(senet.fuse(model))"),
        (lambda: build("mmpretrain")[0].to("meta"), ValueError, "create its weights with model.to_empty, then fuse"),
        (
            lambda: torch.jit.trace(build("mmpretrain")[0].eval(), build("mmpretrain")[1]),
            ValueError,
            "was compiled by TorchScript, which runs no Python: fuse before torch.jit.trace",
        ),
        (lambda: Net(Block(nn.BatchNorm2d(8), MMSELayer(8))), ValueError, "run the network once first"),
    ],
)
def test_bad_networks(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        senet.fuse(make())
    assert message in str(raised.value)


def test_bad_examples_leave_the_network_unchanged() -> None:
    model, x = build("mmpretrain")
    senet.fuse(model)
    kinds, report = [type(module) for module in model.modules()], model.fuse_report
    with pytest.raises(TypeError, match="example must be a tensor"):
        senet.fuse(model, example=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not run on example"):
        senet.fuse(model, example=x[:, :2])
    assert [type(module) for module in model.modules()] == kinds
    assert model.fuse_report is report
    check_same(model, senet.unfuse(copy.deepcopy(model)), x)


def test_a_network_that_runs_on_no_image() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build("mmpretrain")[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x["image"])  # type: ignore[no-any-return]

    with pytest.raises(senet.SenetError, match="give example=, an input of the network"):
        senet.fuse(Tokens())
    with pytest.raises(TypeError, match="got 3"):
        senet.unfuse(3)  # type: ignore[arg-type]
