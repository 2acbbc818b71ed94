import copy
import subprocess
import sys

import pytest
import timm
import timm.layers
import timm.models._efficientnet_blocks
import timm.models.hgnet
import timm.models.senet
import torch
import torchvision
from torch import Tensor, nn

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.graph.se_modules import SEUnit, find_se, own_se, watch_gates
from senet.nn import batch_norm_forward
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, noting, randomise
from tests.networks import FAMILIES
from tests.se_by_hand import FORMS, OTHERS, FixedPool, MostUsed, Net

# By name, the class of its SE modules, from the library itself.
NETWORKS: dict[str, type[nn.Module]] = {
    "timm/seresnet50": timm.layers.SEModule,
    "timm/regnety_016": timm.layers.SEModule,
    "timm/efficientnet_b0": timm.models._efficientnet_blocks.SqueezeExcite,
    "timm/mobilenetv3_large_100": timm.models._efficientnet_blocks.SqueezeExcite,
    "timm/legacy_seresnet18": timm.models.senet.SEModule,
    "timm/ese_vovnet19b_dw": timm.layers.EffectiveSEModule,
    "timm/hgnet_tiny": timm.models.hgnet.EseModule,
    "torchvision/efficientnet_v2_s": torchvision.ops.SqueezeExcitation,
    "torchvision/mobilenet_v3_large": torchvision.ops.SqueezeExcitation,
    "torchvision/regnet_y_400mf": torchvision.ops.SqueezeExcitation,
}
NAMES = pytest.mark.parametrize("name", NETWORKS)


def gates_seen(units: list[SEUnit]) -> dict[str, list[Tensor]]:
    """The gates of each unit as they are computed, from now on."""
    seen: dict[str, list[Tensor]] = {unit.name: [] for unit in units}
    for unit in units:
        watch_gates(unit, seen[unit.name].append)
    return seen


def maps_seen(units: list[SEUnit]) -> dict[str, tuple[Tensor, Tensor]]:
    """What each SE module takes and gives, from now on; copies, as what follows may work in place."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for unit in units:

        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor, name: str = unit.name) -> None:
            seen[name] = (args[0].clone(), output.clone())

        unit.module.register_forward_hook(hook)
    return seen


@NAMES
def test_gates_of_other_libraries_are_what_scales_the_map(name: str) -> None:
    model = senet.create_model(name, num_classes=3).eval()
    units = find_se(model)
    assert [u.name for u in units] == [n for n, m in model.named_modules() if type(m) is NETWORKS[name]]
    assert units
    gates, maps = gates_seen(units), maps_seen(units)
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    for unit in units:
        (gate,), (taken, given) = gates[unit.name], maps[unit.name]
        assert gate.shape == (2, unit.channels) == taken.shape[:2]
        assert torch.equal(taken * gate[..., None, None], given)


@NAMES
def test_the_layers_of_other_libraries_compute_the_gate(name: str) -> None:
    model = senet.create_model(name, num_classes=3).eval().double()
    unit = find_se(model)[-1]
    x = torch.randn(2, unit.channels, 3, 3, dtype=torch.float64)
    z = x.mean((2, 3), keepdim=True)
    if unit.reduce is not None and unit.activation is not None:
        z = unit.activation(unit.reduce(z))
        assert z.shape[1] == unit.hidden_channels
    else:
        assert unit.hidden_channels is None
    assert_close(unit.module(x), x * unit.gate(unit.expand(z)))
    assert (unit.norm, unit.squeeze, unit.site, unit.gain) == (None, "avg", None, 1.0)


@NAMES
def test_insert_refuses_networks_with_se_of_their_own(name: str) -> None:
    with torch.device("meta"):
        model = senet.create_model(name)
    first = next(n for n, m in model.named_modules() if type(m) is NETWORKS[name])
    for options in ({}, {"at": first}):
        with pytest.raises(ValueError, match=f"{first} is SE of the network's own: .*take the plain network"):
            senet.insert(model, **options)
    with pytest.raises(ValueError, match="SE of the network's own"), torch.device("meta"):
        senet.create_model(f"se_{name}")


@pytest.mark.parametrize(
    ("module", "shape", "squeeze"),
    [
        (timm.layers.SEModule(16, rd_channels=4, add_maxpool=True), (2, 16, 3, 3), "avg+max"),
        (timm.layers.SEModule(16, rd_channels=4, norm_layer=nn.BatchNorm2d), (2, 16, 3, 3), "avg"),
        (timm.layers.squeeze_excite.SqueezeExciteCl(16, rd_channels=4), (2, 3, 3, 16), "avg"),
        (SqueezeExcitation(16, 4, squeeze="max"), (2, 16, 3, 3), "max"),
        (SqueezeExcitation(16, 4, gain=2.0), (2, 16, 3), "avg"),
    ],
)
def test_variants(module: nn.Module, shape: tuple[int, ...], squeeze: str) -> None:
    units = find_se(nn.Sequential(randomise(module)).eval())
    assert [(u.name, u.channels, u.hidden_channels, u.squeeze, u.site) for u in units] == [("0", 16, 4, squeeze, None)]
    seen = gates_seen(units)["0"]
    x = torch.randn(shape)
    given = module(x)
    aligned = seen[0].reshape(2, 16, *[1] * (len(shape) - 2))
    assert torch.equal(given, x * (aligned.movedim(1, -1) if shape[-1] == 16 else aligned))


def test_a_norm_between_the_layers_is_reported() -> None:
    with_norm, without = (find_se(timm.layers.SEModule(16, norm_layer=norm))[0] for norm in (nn.BatchNorm2d, None))
    assert isinstance(with_norm.norm, nn.BatchNorm2d)
    assert without.norm is None


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity"])
def test_ours_are_found_where_insert_put_them(placement: str) -> None:
    model = senet.insert(FAMILIES["ours basic"](), placement, reduction=2).eval()
    units, expected = find_se(model), find_inserted_se(model)
    assert [u.site for u in units] == [i.name for i in expected]
    assert [u.module for u in units] == [i.se for i in expected]
    assert all(model.get_submodule(u.name) is u.module for u in units)
    assert {u.kind for u in units} == {"senet.nn.block.SqueezeExcitation"}
    assert {u.gain for u in units} == {2.0}
    assert own_se(model) is None
    seen = gates_seen(units)
    model(torch.randn(2, 3, 8, 8))
    assert len(seen) == 3
    # The gain is in them: the identity's gates are 1.
    assert all(
        torch.equal(gates[0], torch.ones(2, unit.channels)) for unit, gates in zip(units, seen.values(), strict=True)
    )


def test_gates_at_each_position() -> None:
    se = SqueezeExcitation(4, 2, squeeze="none")
    seen: list[Tensor] = []
    handle = watch_gates(find_se(se)[0], seen.append)
    u = torch.randn(2, 4, 3, 5)
    assert torch.equal(se(u), u * seen[0].movedim(-1, 1))
    assert seen[0].shape == (2, 3, 5, 4)
    handle.remove()
    se(u)
    assert len(seen) == 1


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_fused_training_shows_its_gates(gain: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of batch norm, then SE, in float64 by hand; and what the fused operation scales the map by."""
    bn = randomise(SEBatchNorm(8, se=randomise(SqueezeExcitation(8, 2, gain=gain))))
    fused: list[bool] = []
    of = batch_norm_forward.normalize_fused
    monkeypatch.setattr(batch_norm_forward, "normalize_fused", noting(fused, lambda *_: True, of))
    seen: list[Tensor] = []
    watch_gates(find_se(bn)[0], seen.append)
    y = torch.randn(4, 8, 64, 64)
    output = bn(y)
    assert fused == [True]
    assert [gates.shape for gates in seen] == [(4, 8)]
    u = nn.functional.batch_norm(y.double(), None, None, bn.weight.double(), bn.bias.double(), training=True)
    fc1, fc2 = copy.deepcopy(bn.se.fc1).double(), copy.deepcopy(bn.se.fc2).double()
    expected = gain * torch.sigmoid(fc2(torch.relu(fc1(u.mean((2, 3))))))
    assert_close(seen[0].double(), expected, 1e-6)
    assert_close(output.double(), u * expected[..., None, None], 1e-6)


def test_ours_alone_are_the_networks_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), SqueezeExcitation(4, 2))
    assert own_se(model) is not None
    with pytest.raises(ValueError, match="1 is SE of the network's own"):
        senet.insert(model, at="0")
    with pytest.raises(ValueError, match="SqueezeExcitation is SE of the network's own"):
        senet.find_sites(model[1])
    assert find_se(torchvision.models.squeezenet1_1()) == []


def test_subclasses_are_known() -> None:
    class Mine(timm.layers.SEModule):
        pass

    unit = find_se(nn.Sequential(Mine(16)))[0]
    assert unit.kind == "timm.layers.squeeze_excite.SEModule"


def test_no_library_is_imported_to_look() -> None:
    code = (
        "import sys; from torch import nn; from senet.graph.se_modules import find_se\n"
        "from senet.insertion.families import family_of\n"
        "assert find_se(nn.Linear(2, 2)) == [] and family_of(nn.Linear(2, 2)) is None\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated", "ignore:.*quantize_dynamic:DeprecationWarning"
)
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_se_of_a_network_whose_linear_layers_are_quantized(placement: str) -> None:
    model = senet.create_model("se_resnet20", placement=placement, reduction=4).eval()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert not isinstance(find_se(quantized)[0].reduce, nn.Linear)
    assert [(u.name, u.channels, u.hidden_channels) for u in find_se(quantized)] == [
        (u.name, u.channels, u.hidden_channels) for u in find_se(model)
    ]
    assert all(u.site is not None for u in find_se(quantized))


# --- recognized by what it does ---


@pytest.mark.parametrize("name", FORMS)
def test_se_by_hand_is_found_by_what_it_does(name: str) -> None:
    build, form, expected = FORMS[name]
    model = randomise(Net(build())).double().eval()
    (unit,) = find_se(model)
    assert (unit.name, unit.form, unit.channels, unit.hidden_channels, unit.site) == (expected, form, 16, 4, None)
    assert unit.squeeze == ("avg+max" if name == "normalized" else "avg")
    assert (unit.norm is None) == (name != "normalized")
    assert own_se(model) is not None
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    seen: list[Tensor] = []
    handle = watch_gates(unit, seen.append)
    given = model(x)
    handle.remove()
    assert_close(seen[0].squeeze(), model.block.gates(model.stem(x)))
    assert torch.equal(model(x), given)
    assert len(seen) == 1
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("options", [{}, {"at": "block"}, {"at": "stem"}, {"placement": "post"}])
def test_insert_refuses_networks_with_se_by_hand(name: str, options: dict[str, str]) -> None:
    build, _, expected = FORMS[name]
    model = Net(build())
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=f"{expected} is SE of the network's own: .*take the plain network"):
        senet.insert(model, example=torch.randn(1, 3, 32, 32), **options)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_se_is_not_recognized(name: str) -> None:
    model = Net(OTHERS[name]())
    assert find_se(model) == []
    senet.insert(model, at="stem", example=torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("child", "form"),
    [
        *(("se_layer", "most used"), ("SE", "functional"), ("attn", "sequence"), ("attention", "most used")),
        *(("se_block", "hard functional"), ("squeeze", "gate alone"), ("cse", "normalized"), ("x", "sequence")),
    ],
)
def test_se_of_any_name_in_a_residual_unit(child: str, form: str) -> None:
    class Unit(torchvision.models.resnet.BasicBlock):
        def __init__(self) -> None:
            super().__init__(16, 16)
            block = FORMS[form][0]()
            setattr(self, child, block.gate if FORMS[form][1] == "gate" else block)

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            scaled = getattr(self, child)(y)
            y = scaled if scaled.shape == y.shape else y * scaled
            return self.relu(y + x)

    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Sequential(Unit(), torchvision.models.resnet.BasicBlock(16, 16)))
    assert [unit.name for unit in find_se(model)] == [f"1.0.{child}"]
    for options in ({}, {"at": "1.0.bn2"}, {"at": "1.1"}):
        with pytest.raises(ValueError, match=rf"1.0.{child} is SE of the network's own"):
            senet.insert(model, **options)


@pytest.mark.parametrize("attention", ["CBAM channel", "ECA"])
@pytest.mark.parametrize("child", ["attn", "attention", "eca", "whatever"])
def test_other_attention_to_channels_in_a_residual_unit_is_refused(attention: str, child: str) -> None:
    class Unit(torchvision.models.resnet.BasicBlock):
        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(getattr(self, child)(self.bn2(self.conv2(y))) + x)

    unit = Unit(16, 16)
    setattr(unit, child, OTHERS[attention]())
    with pytest.raises(ValueError, match=rf"1.0.{child} is attention of the network's own .*the plain network"):
        senet.insert(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Sequential(unit)))


def test_other_numbers_of_axes_and_channels_last() -> None:
    class Line(nn.Module):
        def __init__(self, conv: type[nn.Module], pool: nn.Module) -> None:
            super().__init__()
            self.conv = conv(3, 16, 3)  # type: ignore[call-arg]
            self.se = nn.Sequential(pool, conv(16, 4, 1), nn.ReLU(), conv(4, 16, 1), nn.Sigmoid())  # type: ignore[call-arg]

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * self.se(x)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 4), nn.Linear(4, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.b(torch.nn.functional.gelu(self.a(x.mean((1, 2), keepdim=True)))).sigmoid()

    for model in (Line(nn.Conv1d, nn.AdaptiveAvgPool1d(1)), Line(nn.Conv3d, nn.AdaptiveAvgPool3d(1))):
        (unit,) = find_se(model)
        assert (unit.name, unit.form, unit.axis, unit.gate_axis) == ("se", "gate", 1, 1)
    (unit,) = find_se(nn.Sequential(nn.Identity(), Last()))
    assert (unit.name, unit.form, unit.axis, unit.gate_axis) == ("1", "block", -1, -1)


def test_several_inline_in_one_forward() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.a1, self.a2, self.b1, self.b2 = (nn.Linear(*s) for s in ((8, 2), (2, 8), (8, 4), (4, 8)))

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x = x * torch.sigmoid(self.a2(torch.relu(self.a1(x.mean((2, 3))))))[..., None, None]
            return x * torch.sigmoid(self.b2(torch.relu(self.b1(x.mean((2, 3))))))[..., None, None]

    units = find_se(Two())
    assert [(unit.name, unit.form, unit.hidden_channels) for unit in units] == [
        ("a2", "inline", 2),
        ("b2", "inline", 4),
    ]
    assert [unit.parts for unit in units] == [[units[0].reduce, units[0].expand], [units[1].reduce, units[1].expand]]


def test_a_least_number_of_hidden_units_above_the_channels() -> None:
    block = MostUsed()
    block.fc = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.Sigmoid())
    (unit,) = find_se(Net(block))
    assert (unit.name, unit.channels, unit.hidden_channels) == ("block", 16, 32)
    with pytest.raises(ValueError, match=r"block is SE of the network's own"):
        senet.insert(Net(block), at="stem")


def test_a_plain_network_of_ours_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for SE costs nothing where no two layers could be SE's."""

    runs = []
    networks = [
        "resnet50",
        "resnet20",
        "preresnet110",
        "vgg16",
        "mobilenet",
        "shufflenet",
        "bn_inception",
        "inception_resnet_v2",
    ]
    with torch.device("meta"):
        models = [senet.create_model(name) for name in networks]
        models += [senet.create_model(f"se_{name}") for name in networks]
    monkeypatch.setattr("senet.graph.se_search.trace", lambda *args, **options: runs.append(args))
    for model in models:
        assert own_se(model) is None
    assert runs == []


def test_a_registered_class() -> None:
    class Odd(nn.Module):
        """Pools in a way that no operation shows to be a pool."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"down": nn.Linear(16, 4), "up": nn.Linear(4, 16)})

        def forward(self, x: Tensor) -> Tensor:
            weights = torch.full((x[0, 0].numel(),), 1 / x[0, 0].numel(), dtype=x.dtype)
            z = x.flatten(2) @ weights
            return x * torch.sigmoid(self.layers["up"](torch.relu(self.layers["down"](z))))[..., None, None]

    model = Net(Odd()).eval()
    assert find_se(model) == []
    for kind in (Odd, f"{Odd.__module__}.{Odd.__qualname__}"):
        senet.register_se(kind, reduce="layers.down", expand="layers.up")
    (unit,) = find_se(model)
    assert (unit.name, unit.channels, unit.hidden_channels) == ("block", 16, 4)
    seen: list[Tensor] = []
    watch_gates(unit, seen.append)
    x = torch.randn(2, 3, 16, 16)
    y = model.stem(x)
    assert torch.equal(model.block(y), y * seen[0][..., None, None])
    with pytest.raises(ValueError, match="block is SE of the network's own"):
        senet.insert(model, at="stem")
    with pytest.raises(ValueError, match=r"Odd is known as SE already, with the parts .*layers.down"):
        senet.register_se(Odd, reduce="layers.up", expand="layers.down")
    with pytest.raises(TypeError, match=r"expected a class of torch.nn.Module or its full name, got 3"):
        senet.register_se(3, reduce="a", expand="b")  # type: ignore[arg-type]
    senet.register_se(nn.Bilinear, reduce="nothing", expand="weight")
    with pytest.raises(ValueError, match=r"'0' is SE of the class torch.nn.modules.linear.Bilinear and lacks a part"):
        find_se(nn.Sequential(nn.Bilinear(2, 2, 2)))
    del senet.graph.se_kinds.KINDS["torch.nn.modules.linear.Bilinear"]


class Conditioned(nn.Module):
    """SE inline in a forward of two inputs, which does not run by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(16, 16, 3), nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.conv(x) + t
        return y * torch.sigmoid(self.other(torch.relu(self.one(y.mean((2, 3))))))[..., None, None]


class Both(nn.Module):
    def __init__(self, own_time: bool) -> None:
        super().__init__()
        self.stem, self.block, self.own_time = nn.Conv2d(3, 16, 3), Conditioned(), own_time

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        assert self.own_time or t is not None, "no time"
        return self.block(self.stem(x), torch.zeros((), device=x.device) if t is None else t)


def test_se_in_a_module_of_several_inputs_is_found_in_a_trace_of_the_network() -> None:
    assert [(unit.name, unit.form) for unit in find_se(Both(own_time=True))] == [("block", "inline")]
    model = Both(own_time=False)
    assert find_se(model) == []
    example = (torch.randn(1, 3, 16, 16), torch.zeros(()))
    assert [(unit.name, unit.form) for unit in find_se(model, example)] == [("block", "inline")]
    with pytest.raises(ValueError, match="block is SE of the network's own"):
        senet.insert(model, at="stem", example=example)


def test_a_pool_of_the_maps_own_size() -> None:
    (unit,) = find_se(Net(FixedPool()))
    assert (unit.name, unit.form, unit.squeeze) == ("block", "block", "avg")
