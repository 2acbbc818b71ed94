import re
from functools import cache, partial

import pytest
import timm
import torch
import torchvision
from torch import nn

import senet
from senet import Site, find_sites
from senet.insertion import network_runs
from senet.insertion import sites as sites_module
from senet.insertion.sites import PLACEMENTS
from senet.nn.inserted_se import find_inserted_se
from tests.networks import FAMILIES, units
from tests.slow import fast_if

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
@fast_if(lambda name: name.endswith(("18", "18d", "t", "50", "50d", "50_32x4d")))
def test_named_networks_have_a_site_in_each_unit(name: str) -> None:
    library, name = name.split("/")
    with torch.device("meta"):
        model = getattr(torchvision.models, name)() if library == "torchvision" else timm.create_model(name)
    names = [n for n, m in model.named_modules() if m in units(model)]
    for placement in PLACEMENTS:
        sites = find_sites(model, placement)
        assert [site.unit for site in sites] == names
        assert {site.stage for site in sites} == {2, 3, 4, 5}
        senet.insert(model, placement)  # in addition to those of the placements before


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
    assert find_sites(model, at="layers.1") == [Site("layers.1", 16, None, "batch_norm", "standard", "layers.1", "at")]
    assert find_sites(model, "pre", at="layers.3")[0] == Site("layers.3", 16, None, "input", "pre", "layers.3", "at")
    with pytest.raises(ValueError, match=r"channels of the output of 'layers.2' \(ReLU\) is unknown.*example="):
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
        ({"stages": {7}}, r"invalid stages=\[7\]: this network has the stages \[2, 3\]"),
        ({"stages": {2, 7}}, r"invalid stages=\[2, 7\]: this network has"),
        ({"stages": set()}, r"invalid stages=\[\]: this network has"),
        ({"at": "layer9.*"}, r"at= 'layer9.\*'; did you mean"),
        ({"at": []}, "at= is empty"),
        (
            {"at": "relu", "placement": "identity"},
            r"at=\['relu'\]: not in residual units.*use standard, pre or post",
        ),
        ({"at": "bn1", "stages": 2}, "the stage of 'bn1' is unknown: give example="),
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
        ({"at": 3}, r"at must be names or globs such as 'layer3.\*', got 3"),
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
    with pytest.raises(ValueError, match=r"of 'pair' \(Pair\) was a \w+ and not a tensor"):
        find_sites(pairs, at="pair", example=example)
    holder = nn.ModuleDict({"inside": nn.ModuleList([nn.Conv2d(3, 3, 1)])})
    with pytest.raises(ValueError, match=r"'inside' \(ModuleList\) is a container, and would run SE as another child"):
        find_sites(holder, at="inside")


def test_refuses_a_network_without_units() -> None:
    message = (
        r"no convolutional units in VisionTransformer \('patch_embed': stem: .*'blocks': attention.*at=.patch_embed"
    )
    with pytest.raises(ValueError, match=message):
        find_sites(timm.create_model("vit_tiny_patch16_224", depth=2))


@pytest.mark.parametrize(
    ("name", "attention"), [("ecaresnet26t", r"se .*\(EcaModule\)"), ("resnest14d", r"conv2 .*\(SplitAttn\)")]
)
def test_refuses_units_with_attention_of_another_kind(name: str, attention: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=rf"layer1.0.{attention}.*the plain"):
        find_sites(model)


@pytest.mark.parametrize("name", ["seresnet50", "legacy_seresnet50"])
def test_refuses_networks_with_se_of_their_own(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=r"layer1.0.se\w* is SE of the network's own.*take the plain network"):
        find_sites(model)


# --- channels on another axis ---


def of_timm(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


class Permuted(nn.Module):
    """A CNN whose middle has the channels last, as many of them as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.mlp = nn.Conv2d(3, 16, 3, 2, 1), nn.LayerNorm(16), nn.Linear(16, 16)
        self.act, self.last = nn.GELU(), nn.Conv2d(16, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))))
        return self.last(x.movedim(-1, 1))


class Tokens(nn.Module):
    """A transformer over (L, N, C), the batch second, whose block is a module of the user's own."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.attn = nn.LayerNorm(8), nn.MultiheadAttention(8, 2)
            self.out_channels = 8

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x)
            return x + self.attn(y, y, y)[0]

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block, self.head = nn.Conv2d(3, 8, 8, 8), self.Block(), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))


@pytest.mark.parametrize(
    ("build", "side", "at", "shape", "axis"),
    [
        ("timm/swin_tiny_patch4_window7_224", 224, "layers.0.blocks.0", (1, 56, 56, 96), "96 channels on axis 3"),
        ("timm/swin_tiny_patch4_window7_224", 224, "layers.3", (1, 7, 7, 768), "768 channels on axis 3"),
        ("timm/vit_tiny_patch16_224", 224, "blocks.1", (1, 197, 192), "192 channels on axis 2"),
        ("timm/vit_tiny_patch16_224", 224, "blocks.1.norm1", (1, 197, 192), "192 channels on axis 2"),
        ("timm/convnext_tiny", 64, "stages.1.blocks.0.mlp", (1, 8, 8, 192), "192 channels on axis 3"),
        ("timm/mixer_s32_224", 224, "blocks.0.mlp_channels", (1, 49, 512), "512 channels on axis 2"),
        ("timm/mixer_s32_224", 224, "blocks.0", (1, 49, 512), "parameters around it disagree"),
        ("torchvision/swin_t", 64, "features.1.0", (1, 16, 16, 96), "96 channels on axis 3"),
        ("torchvision/vit_b_32", 224, "encoder.layers.encoder_layer_0", (1, 50, 768), "768 channels on axis 2"),
        ("torchvision/convnext_tiny", 64, "features.1.0.block.3", (1, 16, 16, 384), "384 channels on axis 3"),
        (Permuted, 32, "norm", (1, 16, 16, 16), "16 channels on axis 3"),
        (Permuted, 32, "act", (1, 16, 16, 16), "16 channels on axis 3"),
        (Tokens, 64, "block", (64, 1, 8), "8 channels on axis 2"),
        (Tokens, 64, "block.norm", (64, 1, 8), "8 channels on axis 2"),
    ],
)
@fast_if(lambda build, at: not isinstance(build, str) or at in ("blocks.1", "stages.1.blocks.0.mlp", "blocks.0"))
def test_refuses_maps_whose_channels_are_not_on_axis_1(
    build: object, side: int, at: str, shape: tuple[int, ...], axis: str
) -> None:
    if isinstance(build, str):
        with torch.device("meta"):
            library, name = build.split("/")
            model = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
    else:
        model = build().to("meta")  # type: ignore[operator]
    message = re.escape(f"'{at}' (") + r".*" + re.escape(f"has the shape {shape}, ") + f".*{axis}.*name a module"
    with pytest.raises(ValueError, match=message):
        senet.insert(model, at=at, example=on_meta(1, 3, side, side))
    assert not find_inserted_se(model)


def test_takes_maps_with_channels_on_axis_1_in_such_networks() -> None:
    for model, at, expected in (
        (of_timm("convnext_atto"), "stages.1.blocks.0", (80, 3)),
        (of_timm("swin_tiny_patch4_window7_224"), "patch_embed.proj", (96, 2)),
        (Permuted().to("meta"), "last", (32, 1)),
    ):
        side = 64 if at == "last" else 224
        (site,) = find_sites(model, at=at, example=on_meta(1, 3, side, side))
        assert (site.channels, site.stage) == expected


def test_a_class_of_the_users_does_not_say_where_its_channels_are() -> None:
    """`out_channels` is an attribute of convolutions; a class that gives (L, N, C) may have it too."""
    with pytest.raises(ValueError, match=r"'block' \(Block\) has the shape \(\d+, 1, 8\), with its 8 channels on axis"):
        find_sites(Tokens(), at="block")


@pytest.mark.parametrize(
    ("model", "shape", "channels", "stage"),
    [
        (nn.Sequential(nn.Conv1d(2, 16, 3, 2, 1), nn.ReLU()), (1, 2, 64), 16, 1),
        (nn.Sequential(nn.Conv3d(2, 16, 3, 2, 1), nn.ReLU()), (1, 2, 8, 8, 8), 16, 1),
        (nn.Sequential(nn.Conv3d(2, 16, 3, (1, 2, 2), 1), nn.ReLU()), (1, 2, 8, 8, 8), 16, 1),
        (nn.Sequential(nn.Conv3d(2, 16, 3, (1, 4, 4), 1), nn.ReLU()), (1, 2, 8, 16, 16), 16, 1),
        (nn.Sequential(nn.Conv3d(2, 16, 3, (1, 8, 8), 1), nn.ReLU()), (1, 2, 8, 16, 16), 16, 2),
        (nn.Sequential(nn.Conv2d(2, 16, 3, (1, 4), 1), nn.ReLU()), (1, 2, 16, 32), 16, 1),
    ],
)
def test_a_stage_is_that_of_the_mean_stride_over_all_axes(
    model: nn.Module, shape: tuple[int, ...], channels: int, stage: int
) -> None:
    (site,) = find_sites(model, at="1", example=torch.randn(shape))
    assert (site.channels, site.stage) == (channels, stage)


class Decoder(nn.Module):
    """A generator: its maps grow from a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ConvTranspose2d(4, 8, 4), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 8, 4, 2, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z[:, :, None, None])  # type: ignore[no-any-return]


def test_a_map_without_a_stride_has_no_stage() -> None:
    example = torch.randn(2, 4)
    assert find_sites(Decoder(), at="layers.1", example=example)[0].stage is None
    with pytest.raises(ValueError, match=r"'layers.1' has no stage: .* choose sites with at="):
        find_sites(Decoder(), at="layers.1", stages=1, example=example)


def test_stages_of_a_video_network() -> None:
    with torch.device("meta"):
        model = torchvision.models.video.r3d_18()
    sites = find_sites(model, at=["stem", *(f"layer{n}.0" for n in (1, 2, 3, 4))], example=on_meta(1, 3, 16, 64, 64))
    # Units have their own sites; another module comes after them.
    assert [(site.channels, site.stage) for site in sites] == [(64, 1), (128, 2), (256, 3), (512, 4), (64, 1)]
    assert [site.name for site in sites][:2] == ["layer1.0.conv2.1", "layer2.0.conv2.1"]


# --- modules that run several times ---


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.relu = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.other(self.relu(self.one(x))))


@pytest.mark.parametrize("example", [torch.randn(1, 3, 8, 8), None])
def test_refuses_a_module_that_is_called_twice(example: torch.Tensor | None) -> None:
    model = Reused()
    with pytest.raises(
        ValueError, match=r"'other' is a module, a Conv2d, that is called 2 times.* a module of its own"
    ):
        senet.insert(model, at="other", example=example)
    assert find_sites(model, at="one", example=example)[0].channels == 8


def test_refuses_units_that_are_called_twice() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = FAMILIES["torchvision basic"]()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + self.net(x)

    with pytest.raises(ValueError, match=r"'net.layer1.0.bn2' is a module, a BatchNorm2d, that is called 2 times"):
        senet.insert(Loop())
    shared = FAMILIES["torchvision basic"]()
    shared.layer1[1] = shared.layer1[0]
    with pytest.raises(ValueError, match="'layer1.0' and 'layer1.1' are one module.*called 2 times"):
        senet.insert(shared, "post")


# --- what is no residual unit, though its children have the names ---


class Encoder(nn.Module):
    """A block of a U-Net's encoder: the pool is called `downsample`, and the output is a tuple."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.downsample = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> object:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.downsample(x), x


class Straight(Encoder):
    """The same names, a tensor, and nothing added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[0]  # type: ignore[index]


class Conditioned(Encoder):
    """A residual unit that takes a second input, so that it does not run by itself."""

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        assert t is not None, "no time"
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)) + t)))
        return torch.relu(y + x)


class Net(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 1), block

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> object:
        return self.block(self.stem(x)) if t is None else self.block(self.stem(x), t)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("block", "why"),
    [
        (Encoder, r"its output is a tuple and not a tensor"),
        (Straight, r"nothing is added to the output of '.*bn2' before its own output"),
    ],
)
@pytest.mark.parametrize("example", [None, torch.randn(1, 3, 8, 8)])
def test_a_block_that_adds_nothing_is_no_residual_unit(
    placement: str, block: type[nn.Module], why: str, example: torch.Tensor | None
) -> None:
    model = Net(block(8, 8))  # type: ignore[call-arg]
    if block is Encoder and placement in ("standard", "post"):  # a site at each of its norms, before a ReLU of F
        sites = find_sites(model, placement, example=example)
        assert [(site.name, site.rule) for site in sites] == [("block.bn1", "block"), ("block.bn2", "block")]
        return
    kind = rf"'block' \({block.__name__}\) has the children of a residual unit"
    message = rf"no units in Net: {kind}, but {why}.*at=\['block.bn1', 'block.bn2'\]"
    with pytest.raises(ValueError, match=message):
        senet.insert(model, placement, example=example)
    assert not find_inserted_se(model)


def test_real_units_next_to_such_blocks_are_found() -> None:
    model = nn.Sequential(FAMILIES["torchvision basic"](), Encoder(8, 8))
    assert {site.unit.partition(".")[0] for site in find_sites(model)} == {"0"}


def test_a_unit_that_does_not_run_by_itself_needs_an_example() -> None:
    model = Net(Conditioned(8, 8))
    with pytest.raises(ValueError, match=r"'block' \(Conditioned\) .*does not run by itself.*no time; give example="):
        find_sites(model)
    for example in ((torch.randn(1, 3, 8, 8), torch.zeros(())), {"x": torch.randn(1, 3, 8, 8), "t": torch.zeros(())}):
        assert [site.name for site in find_sites(model, example=example)] == ["block.bn2"]


def test_units_of_the_users_are_units() -> None:
    class Mine(torchvision.models.resnet.BasicBlock):
        pass

    model = torchvision.models.resnet.ResNet(Mine, [1, 1, 1, 1])
    for placement in PLACEMENTS:
        assert len(find_sites(model, placement)) == 4


class Unit(nn.Module):
    """A residual unit whose `downsample` is whatever it is given."""

    def __init__(self, downsample: object, use: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.downsample, self.use = downsample, use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        skip = self.downsample(x) if self.use and callable(self.downsample) else x
        return torch.relu(y + skip)


@pytest.mark.parametrize(("placement", "child"), [("identity", "downsample"), ("standard", "bn2")])
def test_an_empty_sequence_in_a_unit_is_named_with_the_unit(placement: str, child: str) -> None:
    unit = Unit(nn.Sequential())
    if child == "bn2":
        unit.bn2 = nn.Sequential()  # type: ignore[assignment]
    model = nn.ModuleDict({"layer1": nn.Sequential(Unit(None), unit)})
    with pytest.raises(ValueError, match=rf"'layer1.1.{child}' \(Sequential\) is empty.*put a torch.nn.Identity there"):
        find_sites(model, placement)


@pytest.mark.parametrize(
    ("downsample", "kind"),
    [
        (lambda x: x, "function"),
        (partial(torch.nn.functional.avg_pool2d, kernel_size=1), "partial"),
        (torch.relu, "builtin_function_or_method"),
        (False, "bool"),
        ("none", "str"),
    ],
)
def test_a_skip_that_is_no_module_is_refused(downsample: object, kind: str) -> None:
    model = Net(Unit(downsample))
    with pytest.raises(
        ValueError, match=rf"unit 'block': its 'downsample' is a {kind} .*not a module.*torch.nn.Module"
    ):
        senet.insert(model, "identity")
    assert [site.name for site in find_sites(model)] == ["block.bn2"]


def test_an_empty_skip_that_no_module_would_be_called_in_is_refused() -> None:
    model = Net(Unit(None, use=False))
    with pytest.raises(ValueError, match=r"unit 'block' \(Unit\) does not call a module in its empty 'downsample'"):
        senet.insert(model, "identity")
    assert model.block.downsample is None
    keys = list(model.state_dict())
    assert list(senet.remove(senet.insert(Net(Unit(None)), "identity")).state_dict()) == keys


def test_a_convolution_that_does_not_say_its_channels_is_refused() -> None:
    model = Net(Unit(None))
    model.block.conv1 = nn.Sequential(model.block.conv1)
    with pytest.raises(ValueError, match=r"unit 'block': its 'conv1' \(Sequential\) has no attribute out"):
        find_sites(model, "conv3x3")
    (site,) = find_sites(model, "conv3x3", example=torch.randn(1, 3, 8, 8))
    assert (site.name, site.channels) == ("block.bn1", 8)


# --- examples and outputs ---


class Pair(nn.Module):
    """Two images in, a dict out, and a module that gives a tuple."""

    class Split(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.split = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), self.Split()

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        one, other = self.split(self.relu(self.conv(left + right)))
        return {"out": one + other}


@pytest.mark.parametrize("as_dict", [False, True])
def test_examples_of_several_inputs(as_dict: bool) -> None:
    left, right = torch.randn(2, 1, 3, 16, 16)
    example = {"left": left, "right": right} if as_dict else (left, right)
    model = Pair().eval()
    before = model(left, right)["out"]
    assert find_sites(model, at="relu", example=example)[0].stage == 1
    senet.insert(model, at="relu", example=example)
    assert torch.equal(model(left, right)["out"], before)
    with pytest.raises(ValueError, match=r"the output of 'split' \(Split\) was a tuple and not a tensor"):
        find_sites(model, at="split", example=example)
    with pytest.raises(ValueError, match=r"'' \(Pair\)|Pair does not run on example .*missing 1 required positional"):
        find_sites(model, at="relu", example=left)
    with pytest.raises(TypeError, match="example must be a tensor, a tuple of inputs, or a dict"):
        find_sites(model, at="relu", example="images")


def test_networks_of_several_images_and_of_other_outputs() -> None:
    images = on_meta(1, 3, 128, 128)
    with torch.device("meta"):
        raft = torchvision.models.optical_flow.raft_small()
        googlenet = torchvision.models.googlenet(init_weights=False)
        segmenter = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None)
    (site,) = find_sites(raft, at="feature_encoder.layer1", example=(images, images, 2))
    assert (site.name, site.channels, site.stage) == ("feature_encoder.layer1.1", 32, 1)
    with pytest.raises(ValueError, match=r"of 'update_block' \(UpdateBlock\) was a tuple and not a tensor"):
        find_sites(raft, at="update_block", example={"image1": images, "image2": images, "num_flow_updates": 2})
    with pytest.raises(ValueError, match="'mask_predictor|'update_block.flow_head' is a module.* called 2 times"):
        find_sites(raft, at="update_block.flow_head", example=(images, images, 2))
    assert len(find_sites(googlenet, example=images)) == 9
    assert len(find_sites(segmenter, example=images)) == 16


# --- many networks ---

SWEEP = [
    *("resnest14d", "resnest50d_1s4x24d", "skresnet18", "resnetblur18", "resnetrs50", "ecaresnet26t", "seresnet18"),
    *("resnetv2_50", "gcresnet33ts", "lambda_resnet26t", "botnet26t_256", "res2net50_14w_8s", "selecsls42", "dla34"),
    *("densenet121", "repvgg_a0", "mobileone_s0", "regnetx_002", "nf_resnet26", "dpn68", "hrnet_w18_small"),
    *("convnext_atto", "swin_tiny_patch4_window7_224", "mixer_s32_224", "poolformer_s12", "test_resnet", "cspresnet50"),
]
PLAIN = ["resnetblur18", "resnetv2_50", "densenet121", "repvgg_a0", "mobileone_s0", "regnetx_002", "dla34", "dpn68"]


@pytest.mark.parametrize(
    "name", [*SWEEP[::3], *(pytest.param(n, marks=pytest.mark.slow) for n in (*SWEEP[1::3], *SWEEP[2::3]))]
)
def test_a_network_has_sites_or_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No placement fails with another exception, whatever parts a library's units lack."""
    for module, search in ((sites_module, "own_se"), (network_runs, "search_run")):  # both take seconds
        monkeypatch.setattr(module, search, cache(getattr(module, search)))
    model = of_timm(name)
    assert name not in PLAIN or senet.graph.se_modules.find_se(model) == []
    reasons = []
    for placement in PLACEMENTS:
        try:
            assert all(site.channels > 0 for site in find_sites(model, placement))
        except ValueError as error:
            reasons.append(str(error))
    known = (
        "SE of the network's own",
        "no convolutional units",
        "attention of",
        "is unknown",
        "has no attribute",
        "only in residual units",
        "needs a projection in each skip",
    )
    assert all(any(part in reason for part in known) for reason in reasons), reasons


def test_an_example_is_run_once() -> None:
    """Blocks of the tables, other units and modules named by at= share one run: a detector takes seconds."""
    resnet = torchvision.models.resnet18()
    del resnet.fc, resnet.avgpool, resnet.layer3, resnet.layer4
    resnet.forward = lambda x: resnet.layer2(resnet.layer1(resnet.conv1(x)))
    model = nn.Sequential(resnet, torchvision.models.mobilenet_v2().features[2:4], nn.Conv2d(24, 8, 1))
    model[1][0].conv[0][0] = nn.Conv2d(128, 96, 1)
    runs: list[nn.Module] = []
    model.register_forward_pre_hook(lambda module, args: runs.append(module))
    sites = find_sites(model, example=torch.randn(1, 3, 32, 32))
    assert [site.rule for site in sites] == ["table"] * 4 + ["sibling", "residual"]
    assert len(runs) == 1
    find_sites(model, at=["0.*", "2"], example=torch.randn(1, 3, 32, 32))
    assert len(runs) == 2
