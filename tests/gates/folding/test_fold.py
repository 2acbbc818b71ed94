import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import senet
from senet import SqueezeExcitation, create_model, insert
from senet.gates.folding import fold as folding
from senet.gates.folding.fold import can_fold, fold_gates
from senet.graph.se_modules import find_se
from senet.insertion.sites import PLACEMENTS
from senet.nn.inserted_se import find_inserted_se
from senet.utils.errors import GatesError
from tests.helpers import assert_close, randomise
from tests.networks import FAMILIES
from tests.se_by_hand import FORMS, Net
from tests.slow import fast_if


@contextmanager
def constant(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The network with the gates of some blocks replaced, as they come out of their modules: everything else runs."""

    def give(value: Tensor, last: bool) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            gates = value.to(output)
            return (gates if last else gates.view(-1, *[1] * (output.ndim - 2))).expand_as(output)

        return hook

    handles = []
    for unit in find_se(model):
        if unit.name in values:
            hook = give(values[unit.name] / unit.gain, isinstance(unit.expand, nn.Linear))
            handles.append(unit.gate.register_forward_hook(hook))
    yield
    for handle in handles:
        handle.remove()


def some_gates(model: nn.Module, low: float = 0.1, high: float = 1.5) -> dict[str, Tensor]:
    return {u.name: torch.empty(u.channels, dtype=torch.float64).uniform_(low, high) for u in find_se(model)}


def check(
    model: nn.Module,
    x: Tensor,
    blocks: Collection[str] | None = None,
    gates: dict[str, Tensor] | None = None,
    relative: float = 1e-12,
) -> nn.Module:
    """Fold, and compare with the network with its gates replaced."""
    gates = some_gates(model) if gates is None else gates
    names = list(gates) if blocks is None else list(blocks)
    folded = fold_gates(model, gates, blocks=blocks, example=x)
    with constant(model, {name: gates[name] for name in names}):
        expected = model(x)
    assert_close(folded(x), expected, relative)
    assert not torch.allclose(expected, model(x))
    left = [unit.name for unit in find_se(model) if unit.name not in names]
    assert [unit.name for unit in find_se(folded)] == left
    return folded


def double(network: nn.Module) -> nn.Module:
    return randomise(network).double().eval()


def image(channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(2, channels, side, side, dtype=torch.float64)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("ours")])
@fast_if(
    lambda family, placement: placement == "standard" or family in ("ours basic", "ours pre-activation bottleneck")
)
def test_placements(family: str, placement: str) -> None:
    model = double(insert(FAMILIES[family](), placement, reduction=4, init="paper"))
    x = image()
    reasons = can_fold(model, example=x)
    assert list(reasons) == [unit.name for unit in find_se(model)]
    possible = [name for name, reason in reasons.items() if not reason]
    refused = {name: reason for name, reason in reasons.items() if reason}
    if placement in ("standard", "pre", "conv3x3"):
        assert not refused
        folded = check(model, x)
        assert list(folded.state_dict()) == [key for key in model.state_dict() if ".se." not in key]
        return
    # An identity skip takes the map that a sum has to have, or whose other reader is the branch.
    assert any(name.startswith("layer1.1.") for name in refused) or placement == "post"
    assert all("would be scaled too; not into the layers behind it, as " in r or "_pad_" in r for r in refused.values())
    if possible:
        check(model, x, possible)
    for name, reason in list(refused.items())[:1]:
        with pytest.raises(GatesError, match=f"the gates of '{name}' cannot be folded: ") as caught:
            fold_gates(model, some_gates(model), blocks=[name], example=x)
        assert reason in str(caught.value)


def test_what_is_refused_in_residual_units() -> None:
    skip = double(insert(FAMILIES["torchvision basic"](), "identity"))
    reasons = can_fold(skip, example=image(side=32))
    assert [name for name, reason in reasons.items() if not reason] == [
        f"layer{n}.0.downsample.1.se"
        for n in (2, 3, 4)  # a projection is a layer of its own
    ]
    assert reasons["layer1.1.downsample.se"] == (
        "not into the layers before it, as layer1.1.conv1 takes the same map and would be scaled too; not into the "
        "layers behind it, as a sum takes the map, through which no factor passes"
    )
    post = can_fold(double(insert(FAMILIES["torchvision basic"](), "post")), example=image(side=32))
    # The others are followed by a convolution and a projection, or by the classifier.
    assert [name for name, reason in post.items() if reason] == ["layer1.0.post.se"]


def small_vgg(batch_norm: bool) -> nn.Module:
    from torchvision.models.vgg import VGG, make_layers

    model = VGG(make_layers([8, "M", 8, 16, "M"], batch_norm), num_classes=3, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(nn.Linear(16 * 4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3))
    return insert(model, reduction=4, init="paper")


def inserted(network: nn.Module, **options: Any) -> nn.Module:
    return insert(network, init="paper", **options)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg": partial(small_vgg, False),
    "vgg with batch norm": partial(small_vgg, True),
    "bn_inception": partial(create_model, "se_bn_inception", num_classes=3),
    "mobilenet": lambda: inserted(timm.create_model("mobilenetv1_100", num_classes=3)),
    "shufflenet": partial(create_model, "se_shufflenet", num_classes=3),
    "timm seresnet": partial(timm.create_model, "legacy_seresnet18", num_classes=3),
    "timm seresnext": partial(
        timm.models.resnet.ResNet,
        timm.models.resnet.Bottleneck,
        (1, 1, 1, 1),
        num_classes=3,
        cardinality=4,
        base_width=8,
        block_args={"attn_layer": "se"},
    ),
    "timm efficientnet": partial(timm.create_model, "efficientnet_b0", num_classes=3),
    "timm effective SE": partial(timm.create_model, "ese_vovnet19b_dw", num_classes=3),
    "torchvision mobilenetv3": partial(torchvision.models.mobilenet_v3_small, num_classes=3),
}

SLOW = ("bn_inception", "mobilenet", "timm seresnet", "timm seresnext", "timm efficientnet")


@pytest.mark.parametrize("name", NETWORKS)
@fast_if(lambda name: name not in SLOW)
def test_networks(name: str) -> None:
    model = double(NETWORKS[name]())
    folded = check(model, image(side=32))
    se = sum(p.numel() for unit in find_se(model) for p in unit.module.parameters())
    assert sum(p.numel() for p in folded.parameters()) == sum(p.numel() for p in model.parameters()) - se


class Branches(nn.Module):
    """Modules as in an Inception: one branch is a pool, the other a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.first, self.second = nn.Conv2d(4, 5, 1), nn.Conv2d(9, 3, 1, groups=3)
        self.cat1, self.cat2 = nn.Identity(), nn.Identity()
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.head = nn.Linear(12 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.cat1(torch.cat((self.first(x), x), 1))
        x = self.cat2(torch.cat((torch.relu(self.second(x)), self.pool(x)), 1))
        return self.head(x.flatten(1))


@pytest.mark.parametrize("squeeze", ["avg", "max", "none", "avg over windows"])
@pytest.mark.parametrize(
    "folded", [["cat1.standard.se"], ["cat2.standard.se"], ["cat1.standard.se", "cat2.standard.se"]]
)
def test_through_a_block_that_stays(squeeze: str, folded: list[str]) -> None:
    # The first factor passes the pool and the second block, whose squeeze must be corrected.
    x = image(side=4)
    how, _, windows = squeeze.partition(" ")
    model = insert(Branches(), at=["cat1", "cat2"], reduction=2, squeeze=how, init="paper", example=x.float())
    for se in model.modules() if windows else ():
        if isinstance(se, SqueezeExcitation):
            se.window = (1, 2)
    check(double(model), x, folded)


class Head(nn.Module):
    """SE between an activation that stops a factor and whatever reads the map."""

    def __init__(self, *readers: nn.Module, channels: int = 12) -> None:
        super().__init__()
        self.stem, self.act, self.se = nn.Conv2d(3, channels, 1), nn.SiLU(), SqueezeExcitation(channels, 2)
        self.readers = nn.ModuleList(readers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.se(self.act(self.stem(x)))
        return [reader(x).flatten(1) for reader in self.readers]


def heads(model: Head, x: Tensor, values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    folded = fold_gates(model, {"se": values}, example=x)
    with constant(model, {"se": values}):
        return folded(x), model(x)


READERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(12, 5, 3, padding=1),
    "groups": lambda: nn.Conv2d(12, 8, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(12, 24, 3, groups=12),
    "batch norm": lambda: nn.BatchNorm2d(12),
    "batch norm without weights": lambda: nn.BatchNorm2d(12, affine=False),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 3)),
    "pool and linear": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3, bias=False)),
    "average pool": lambda: nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(12, 5, 1)),
}
MONOTONE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(12, 5, 1)),
    "maximum": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(12, 5, 1)),
}


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_whatever_reads_the_map(data: st.DataObject) -> None:
    numbers = st.floats(-3, 3).filter(lambda s: s == 0 or abs(s) > 1e-3)
    values = torch.tensor(data.draw(st.lists(numbers, min_size=12, max_size=12)), dtype=torch.float64)
    known = READERS if (values < 0).any() else READERS | MONOTONE
    names = data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    model = double(Head(*(known[name]() for name in names)))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):  # below eps too, where statistics cannot take a factor
            norm.running_var[::3] = 1e-6
    for actual, expected in zip(*heads(model, image(side=4), values), strict=True):
        assert_close(actual, expected)


def test_the_statistics_of_a_batch_norm_take_the_factor() -> None:
    """(x - mean / s) / sqrt((var + eps) / s^2); weight and bias take it where that has no variance of 0 or more."""
    model = double(Head(nn.BatchNorm2d(12)))
    norm: Any = model.readers[0]
    norm.running_var[::3] = 1e-6  # below eps
    values = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    values[1], values[4], values[5] = -0.5, 0.0, 1e3
    new = fold_gates(model, {"se": values}, example=image()).readers[0]
    by_weight = torch.tensor([0, 1, 3, 4, 5, 6, 9])
    by_statistics = torch.tensor([2, 7, 8, 10, 11])
    for key in ("running_mean", "running_var"):
        assert torch.equal(getattr(new, key)[by_weight], getattr(norm, key)[by_weight])
    assert_close(new.weight[by_weight], (norm.weight * values)[by_weight])
    assert torch.equal(new.weight[by_statistics], norm.weight[by_statistics])
    assert torch.equal(new.bias[by_statistics], norm.bias[by_statistics])
    assert_close(new.running_mean[by_statistics], (norm.running_mean / values)[by_statistics])
    expected = (norm.running_var + norm.eps) / values.square()
    assert_close((new.running_var + norm.eps)[by_statistics], expected[by_statistics])


@pytest.mark.parametrize("name", MONOTONE)
def test_negative_gates(name: str) -> None:
    model = double(Head(MONOTONE[name]()))
    values = torch.ones(12)
    assert can_fold(model, example=image()) == can_fold(model, {"se": values}, example=image()) == {"se": ""}
    values[3] = -0.5
    with pytest.raises(GatesError, match=r"a gate is negative, and \w+ follows the sign"):
        fold_gates(model, {"se": values}, example=image())
    assert "a gate is negative" in can_fold(model, {"se": values}, example=image())["se"]


@pytest.mark.parametrize(
    "network",
    [
        lambda: insert(FAMILIES["ours bottleneck"](), reduction=4, init="paper"),
        lambda: insert(FAMILIES["ours pre-activation basic"](), "pre", reduction=4, init="paper"),
        lambda: Head(nn.Sequential(nn.BatchNorm2d(12, eps=1e-20), nn.Conv2d(12, 4, 1))),
    ],
)
def test_trains_on_from_the_same_function(network: Callable[[], nn.Module]) -> None:
    # Batch statistics after a factor are those of the scaled map: nothing else may change them.
    model = double(network())
    gates = some_gates(model, 0.5)
    x = image()
    folded = fold_gates(model, gates, example=x).train()
    model.train()
    with constant(model, gates):
        expected = model(x)
    for actual, wanted in zip(*([y] if isinstance(y, Tensor) else y for y in (folded(x), expected)), strict=True):
        assert_close(actual, wanted, 1e-11)
    # Running statistics continue from those of the folded network.
    folded.eval(), model.eval()
    with constant(model, gates):
        expected = model(x)
    for actual, wanted in zip(*([y] if isinstance(y, Tensor) else y for y in (folded(x), expected)), strict=True):
        assert_close(actual, wanted, 1e-11)


def test_what_is_kept() -> None:
    model = insert(randomise(FAMILIES["ours basic"]()), reduction=4, init="paper").half()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    model.layer2[0].bn2.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gates = some_gates(model)
    folded = fold_gates(model, gates, blocks=["layer2.0.bn2.se", "layer1.0.bn2.se"])
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert [unit.name for unit in find_se(folded)] == ["layer1.1.bn2.se"]
    assert {p.dtype for p in folded.parameters()} == {torch.float16}
    # Once rounded, from float64.
    expected = (before["layer2.0.bn2.weight"].double() * gates["layer2.0.bn2.se"]).half()
    assert torch.equal(folded.layer2[0].bn2.weight, expected)
    modes = {name: module.training for name, module in model.named_modules()}
    asks = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(module.training == modes[name] for name, module in folded.named_modules())
    assert all(parameter.requires_grad == asks[name] for name, parameter in folded.named_parameters())
    assert all(parameter.is_leaf for parameter in folded.parameters())
    sites = [i.name for i in find_inserted_se(folded)]
    insert(folded, at="layer2.0")  # and there is room again
    assert [i.name for i in find_inserted_se(folded)] == [*sites, "layer2.0.bn2"]


def test_nothing_to_fold_is_a_copy() -> None:
    model = create_model("se_resnet20")
    folded = fold_gates(model, some_gates(model), blocks=[])
    assert folded is not model
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), model.parameters(), strict=True))


def test_folded_library_network_has_identities() -> None:
    model = timm.create_model("legacy_seresnet18", num_classes=3).eval()
    gates = some_gates(model)
    folded = fold_gates(model, gates, example=image(side=32))
    assert type(folded.layer1[0].se_module) is nn.Identity
    assert not folded.layer1[0].se_module.training
    x = image(side=32).float()
    with constant(model, gates):
        assert_close(folded(x), model(x), 1e-4)


def shared_convolution() -> nn.Module:
    model = insert(FAMILIES["ours pre-activation basic"](), "pre", at="layer1.0")
    model.layer1[1].conv1 = model.layer1[0].conv1
    return model


def shared_block() -> nn.Module:
    se = SqueezeExcitation(4, 2)
    return nn.Sequential(nn.Conv2d(3, 4, 1), se, nn.Conv2d(4, 4, 1), se, nn.Conv2d(4, 2, 1))


def tied_weights() -> nn.Module:
    first, last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    last.weight = first.weight
    return nn.Sequential(first, SqueezeExcitation(3, 1), nn.SiLU(), last)


def normalized_weight() -> nn.Module:
    layer = parametrizations.weight_norm(nn.Conv2d(3, 4, 1))
    return nn.Sequential(layer, SqueezeExcitation(4, 2), nn.SiLU())


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class MapAndGated(nn.Sequential):
    """A network whose output holds the map before the SE module, too."""

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self[0](x)
        return [x, self[2](self[1](x))]


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), Squared(), nn.Conv2d(3, 2, 1)),
            "a product takes the map",
        ),
        (
            lambda: nn.Sequential(
                nn.Conv2d(3, 4, 1), Function(lambda x: torch.cat((x, x), 1)), SqueezeExcitation(8, 2), nn.SiLU()
            ),
            "a map is concatenated with itself",
        ),
        (
            lambda: MapAndGated(nn.Conv2d(3, 4, 1), SqueezeExcitation(4, 2), nn.SiLU()),
            "the network's output takes the same map and would be scaled too",
        ),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 2, 1)),
            "constant_pad_nd takes the map",
        ),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), Function(lambda x: x[:, :2]), nn.Conv2d(2, 2, 1)),
            "slice takes the map",
        ),
        (shared_convolution, "runs 2 times in a forward pass, and a factor has one place"),
        (shared_block, "it runs 2 times in a forward pass, and a factor has one place"),
        (tied_weights, "0.weight is used more than once"),
        (normalized_weight, "a layer's weight is computed from others"),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), nn.GELU()),
            "SiLU stands between.*GELU takes the map",
        ),
        (
            lambda: nn.Sequential(SqueezeExcitation(3, 1)),
            "the network's input stands between.*the network's output takes",
        ),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
            "a batch norm has neither statistics nor weights to change",
        ),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), nn.ConvTranspose2d(3, 4, 1)),
            "2 takes the map, through which no factor passes",
        ),
        (
            lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(3, 1), nn.PixelUnshuffle(2), nn.Conv2d(12, 2, 1)),
            "behind it",
        ),
    ],
)
def test_refusals(network: Callable[[], nn.Module], reason: str) -> None:
    model = randomise(network()).double().eval()
    (name, *_) = (unit.name for unit in find_se(model))
    with pytest.raises(GatesError, match=f"the gates of '{name}' cannot be folded: .*{reason}"):
        fold_gates(model, some_gates(model), blocks=[name], example=image())
    assert can_fold(model, example=image())[name]


def test_refuses_gates_of_another_network() -> None:
    model = create_model("se_resnet20")
    name = "layer1.0.bn2.se"
    for gates, blocks, message in (
        ({}, [name], f"the gates of '{name}' are missing; record them"),
        ({name: torch.ones(3)}, None, f"expected 16 finite gates for '{name}', .* got shape \\(3,\\)"),
        ({name: torch.full((16,), torch.nan)}, None, "expected 16 finite gates .* 0 of them finite"),
        (
            {"layer1.0.bn3.se": torch.ones(16)},
            None,
            "unknown SE module 'layer1.0.bn3.se'; did you mean 'layer1.0.bn2.se'",
        ),
        ({name: torch.ones(16)}, ["se"], "unknown SE module 'se'"),
        ({name: torch.ones(16)}, "se", "unknown SE module 'se'"),  # a name, and not its letters
    ):
        with pytest.raises(GatesError, match=message):
            fold_gates(model, gates, blocks=blocks)
    with pytest.raises(TypeError, match=r"gates must be a recording of senet.record_gates, or a dict .*, got None"):
        fold_gates(model, None)  # type: ignore[arg-type]
    with pytest.raises(GatesError, match="ResNet has no SE"):
        fold_gates(create_model("resnet20"), {"a": torch.ones(1)}, blocks=None)


@pytest.mark.parametrize("wrong", ["nothing", "half"])
def test_nothing_wrong_is_given_out(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    model = create_model("se_resnet20").eval()
    right = folding.changes_of
    monkeypatch.setattr(folding, "changes_of", lambda *args: [] if wrong == "nothing" else right(*args) * 2)
    with pytest.raises(RuntimeError, match="internal error: the folded network differs by .*nothing was folded"):
        fold_gates(model, some_gates(model), blocks=["layer1.0.bn2.se"])


def test_output_that_is_not_finite() -> None:
    model = create_model("se_resnet20").eval()
    nn.init.constant_(model.fc.bias, torch.inf)
    with pytest.raises(GatesError, match="output is not finite"):
        fold_gates(model, some_gates(model))


def test_in_a_file_and_cheaper(tmp_path: Any) -> None:
    model = randomise(create_model("se_resnet20", reduction=4)).eval()
    folded = fold_gates(model, some_gates(model), blocks=["layer3.2.bn2.se"])
    senet.save(folded, tmp_path / "folded.safetensors")
    loaded = senet.load(tmp_path / "folded.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), folded(x))
    before, after = (senet.cost(m, (3, 32, 32), activations=False) for m in (model, loaded))
    assert before.params - after.params == 2 * 64 * 16 + 64 + 16
    assert before.macs - after.macs == 2 * 64 * 16
    assert copy.deepcopy(loaded)(x).requires_grad


@pytest.mark.parametrize("name", FORMS)
def test_se_written_by_hand(name: str) -> None:
    """A module that gives the scaled map is folded; SE in the forward of another module is refused with the reason."""
    build, form, unit = FORMS[name]
    model = randomise(Net(build())).double().eval()
    reasons = can_fold(model, example=image())
    if form == "block":
        assert reasons == {unit: ""}
        folded = fold_gates(model, some_gates(model), example=image())
        assert find_se(folded) == []
        return
    where = "the forward of" if form == "inline" else "the module around it"
    assert where in reasons[unit]
    with pytest.raises(
        GatesError, match=f"the gates of '{unit}' cannot be folded: its gates multiply the map in {where}"
    ):
        fold_gates(model, some_gates(model), example=image())


@pytest.mark.parametrize("as_dict", [False, True])
def test_networks_of_several_inputs(as_dict: bool) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)

        def forward(self, left: Tensor, right: Tensor, scale: float) -> dict[str, Tensor]:
            return {"out": self.bn(self.conv(left + scale * right)).mean((2, 3))}

    left, right = image().float(), image().float()
    example: Any = {"left": left, "right": right, "scale": 2.0} if as_dict else (left, right, 2.0)
    model = randomise(insert(Pair(), at="bn", example=example, init="paper")).double().eval()
    values = some_gates(model)
    folded = fold_gates(model, values, example=example)
    with constant(model, values):
        expected = model(left.double(), right.double(), 2.0)["out"]
    assert_close(folded(left.double(), right.double(), 2.0)["out"], expected)
    with pytest.raises(GatesError, match=r"Pair did not run on an input \(\d+, 3, 16, 16\): .*missing"):
        fold_gates(model, values, example=left)
