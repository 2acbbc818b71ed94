import pytest
import timm
import torch
import torchvision
from torch import nn

import senet
from senet import Site, find_sites
from senet.sites import PLACEMENTS
from tests.networks import FAMILIES, units

TORCHVISION = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
]
TIMM = [
    *("resnet10t", "resnet14t", "resnet18", "resnet18d", "resnet26", "resnet26d", "resnet26t"),
    *("resnet34", "resnet50", "resnet50d", "resnet101", "resnet152", "resnet200d", "resnetaa50", "resnetblur50"),
    *("resnext50_32x4d", "resnext50d_32x4d", "resnext101_32x8d", "wide_resnet50_2"),
]


@pytest.mark.parametrize("name", [*(f"torchvision/{n}" for n in TORCHVISION), *(f"timm/{n}" for n in TIMM)])
def test_named_networks_have_a_site_in_each_unit(name: str) -> None:
    library, name = name.split("/")
    with torch.device("meta"):
        model = getattr(torchvision.models, name)() if library == "torchvision" else timm.create_model(name)
    names = [n for n, m in model.named_modules() if m in units(model)]
    for placement in PLACEMENTS:
        sites = find_sites(model, placement)
        assert [site.unit for site in sites] == names
        assert sorted({site.stage for site in sites}) == [2, 3, 4, 5]
        senet.insert(model, placement)  # beside those of the placements before


def test_sites_of_a_bottleneck() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    expected = {
        "standard": Site("layer1.0.bn3", 256, 2, "batch_norm", "standard", "layer1.0"),
        "pre": Site("layer1.0.conv1", 64, 2, "input", "pre", "layer1.0"),
        "post": Site("layer1.0", 256, 2, "output", "post", "layer1.0"),
        "identity": Site("layer1.0.downsample.1", 256, 2, "batch_norm", "identity", "layer1.0"),
        "conv3x3": Site("layer1.0.bn2", 64, 2, "batch_norm", "conv3x3", "layer1.0"),
    }
    for placement, site in expected.items():
        assert find_sites(model, placement)[0] == site
    assert find_sites(model, "identity")[1].how == "skip"
    last = find_sites(model)[-1]
    assert (last.name, last.channels, last.stage) == ("layer4.2.bn3", 2048, 5)


@pytest.mark.parametrize(
    ("family", "standard", "conv3x3"),
    [
        ("ours pre-activation basic", ("layer1.0.conv2", "output"), ("layer1.0.bn2", "batch_norm")),
        ("ours pre-activation bottleneck", ("layer1.0.conv3", "output"), ("layer1.0.bn3", "batch_norm")),
        ("ours basic", ("layer1.0.bn2", "batch_norm"), ("layer1.0.bn1", "batch_norm")),
    ],
)
def test_sites_depend_on_the_order_of_batch_norm_and_convolution(
    family: str, standard: tuple[str, str], conv3x3: tuple[str, str]
) -> None:
    model = FAMILIES[family]()
    for placement, expected in (("standard", standard), ("conv3x3", conv3x3)):
        site = find_sites(model, placement)[0]
        assert (site.name, site.how) == expected


def test_stages_count_within_a_larger_model() -> None:
    model = nn.ModuleDict({"left": FAMILIES["ours basic"](), "right": FAMILIES["ours basic"]()})
    assert [(s.unit, s.stage) for s in find_sites(model)] == [
        (f"{side}.{unit}", stage)
        for side in ("left", "right")
        for unit, stage in (("layer1.0", 2), ("layer1.1", 2), ("layer2.0", 3))
    ]


def test_only_batch_norm_itself_is_replaced() -> None:
    """A subclass, another norm, or one with a user's hook stays, and SE acts on its output."""

    def how(model: nn.Module) -> set[str]:
        return {site.how for site in find_sites(model)}

    model = FAMILIES["torchvision basic"]
    assert how(model()) == {"batch_norm"}
    assert how(nn.SyncBatchNorm.convert_sync_batchnorm(model())) == {"output"}
    frozen = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    assert how(frozen) == {"output"}
    hooked = model()
    hooked.layer1[0].bn2.register_forward_hook(lambda module, args, output: None)
    assert [site.how for site in find_sites(hooked)][:2] == ["output", "batch_norm"]


@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("layer1.0.bn2", ["layer1.0.bn2"]),
        (["layer2.0", "layer1.1"], ["layer1.1.bn2", "layer2.0.bn2"]),
        ("layer1.*", ["layer1.0.bn2", "layer1.1.bn2"]),
        (["*.0.bn2", "layer1.0"], ["layer1.0.bn2", "layer2.0.bn2"]),
        (["layer2.0", "bn1"], ["layer2.0.bn2", "bn1"]),
    ],
)
def test_at_picks_sites_units_and_modules(at: str | list[str], names: list[str]) -> None:
    assert [site.name for site in find_sites(FAMILIES["ours basic"](), at=at)] == names


def test_at_in_a_network_of_no_known_family() -> None:
    model = torchvision.models.mnasnet0_5()  # its `layers`: convolution, batch norm, ReLU; depthwise; pointwise; blocks
    assert find_sites(model, at="layers.1") == [Site("layers.1", 16, None, "batch_norm", "standard", "layers.1")]
    assert find_sites(model, "pre", at="layers.3")[0] == Site("layers.3", 16, None, "input", "pre", "layers.3")
    with pytest.raises(ValueError, match=r"'layers.2' \(ReLU\) does not say how many channels its output.*example="):
        find_sites(model, at="layers.2")
    before = model.layers[1].running_mean.clone()
    example = torch.randn(1, 3, 32, 32)
    sites = find_sites(model, at=["layers.2", "layers.8.2.layers.7"], example=example)
    assert [(s.name, s.channels, s.stage, s.how) for s in sites] == [
        ("layers.2", 16, 1, "output"),
        ("layers.8.2.layers.7", 16, 2, "batch_norm"),
    ]
    assert [s.name for s in find_sites(model, at=["layers.2", "layers.8.2.layers.7"], stages=2, example=example)] == [
        "layers.8.2.layers.7"
    ]
    assert model.training
    assert torch.equal(model.layers[1].running_mean, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "standart"}, "unknown placement 'standart'; did you mean 'standard'"),
        ({"stages": {7}}, r"stages=\[7\] are not all among this network's stages \[2, 3\]"),
        ({"stages": {2, 7}}, r"stages=\[2, 7\] are not all"),
        ({"stages": set()}, r"stages=\[\] are not all"),
        ({"at": "layer9.*"}, r"at= 'layer9.\*'; did you mean"),
        ({"at": []}, "at= is empty"),
        (
            {"at": "relu", "placement": "identity"},
            r"at=\['relu'\] are no residual units' sites.*use standard, pre or post",
        ),
        ({"at": "bn1", "stages": 2}, "the stage of 'bn1' is not known: give example="),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_sites(FAMILIES["ours basic"](), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": [2, "3"]}, r"stages must be whole numbers such as \{2, 3\}, got \[2, '3'\]"),
        ({"stages": "2"}, "stages must be whole numbers"),
        ({"at": [3]}, r"at must be names or globs such as 'layer3.\*', got \[3\]"),
    ],
)
def test_refuses_types(options: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        find_sites(FAMILIES["ours basic"](), **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a network, a torch.nn.Module, got 'resnet50'; senet.create_model"):
        find_sites("resnet50")  # type: ignore[arg-type]


def test_refuses_what_an_example_shows_to_be_no_map() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x}

    model, example = torchvision.models.mnasnet0_5(), torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"'classifier.0' has no spatial axis: its shape is \(1, 1280\)"):
        find_sites(model, at="classifier.0", example=example)
    pairs = nn.ModuleDict({"pair": Pair()})
    pairs.forward = lambda x: pairs["pair"](x)["x"]
    with pytest.raises(ValueError, match=r"'pair' \(Pair\) did not take a tensor and give one"):
        find_sites(pairs, at="pair", example=example)
    holder = nn.ModuleDict({"inside": nn.ModuleList([nn.Conv2d(3, 3, 1)])})
    with pytest.raises(ValueError, match=r"'inside' \(ModuleList\) is a container that runs its children by itself"):
        find_sites(holder, at="inside")


def test_refuses_a_network_without_units() -> None:
    with pytest.raises(ValueError, match=r"no residual units in DenseNet: looked for blocks .*conv1 bn1.*at=\[...\]"):
        find_sites(torchvision.models.densenet121())


def test_refuses_units_with_attention_of_another_kind() -> None:
    with torch.device("meta"):
        model = timm.create_model("ecaresnet26t")
    with pytest.raises(ValueError, match=r"layer1.0.se is attention of the network's own \(EcaModule\).*the plain"):
        find_sites(model)


@pytest.mark.parametrize("name", ["seresnet50", "legacy_seresnet50"])
def test_refuses_networks_with_se_of_their_own(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=r"layer1.0.se\w* is SE of the network's own.*take the plain network"):
        find_sites(model)
