import pytest
import timm
import timm.data
import torch
import torchvision
from torch import nn

from senet.block import SqueezeExcitation
from senet.models import CATALOGUE, create_model, list_models, plain_name
from senet.sites import PLACEMENTS

# Larger networks run forward and backward with the slow tests.
SMALL = [
    pytest.param(name, marks=[] if CATALOGUE[plain_name(name)].size == 32 or name.endswith("18") else pytest.mark.slow)
    for name in list_models()
]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count(name: str, **options: object) -> int:
    with torch.device("meta"):
        return parameters(create_model(name, **options))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("se_resnet50", 28_088_024),
        ("se_resnet101", 49_326_872),
        ("se_resnet152", 66_821_848),
        ("se_resnext50_32x4d", 27_559_896),
        ("se_resnext101_32x4d", 48_955_416),
        ("senet154", 115_088_984),
    ],
)
def test_released_networks_have_their_parameters(name: str, parameters: int) -> None:
    assert count(name) == parameters


@pytest.mark.parametrize(("reduction", "millions"), [(2, 45.68), (4, 35.62), (8, 30.59), (16, 28.07), (32, 26.81)])
def test_table_10(reduction: int, millions: float) -> None:
    assert round(count("se_resnet50", reduction=reduction, bias=False) / 1e6, 2) == millions


# The paper's figures of stage 4 and of the 3x3 placement count the 53,120 running statistics of batch norm.
@pytest.mark.parametrize(
    ("options", "statistics", "millions"),
    [
        ({"stages": 2}, 0, 25.6),
        ({"stages": 3}, 0, 25.7),
        ({"stages": 4}, 53_120, 26.4),
        ({"placement": "conv3x3"}, 53_120, 25.8),
        ({"squeeze": "none"}, 0, 28.1),
    ],
)
def test_tables_13_15_and_16(options: dict[str, object], statistics: int, millions: float) -> None:
    assert round((count("se_resnet50", bias=False, **options) + statistics) / 1e6, 1) == millions


def test_plain_networks_have_the_parameters_of_other_libraries() -> None:
    with torch.device("meta"):
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"):
            assert count(name) == parameters(getattr(torchvision.models, name)())
        assert count("resnext101_32x4d") == parameters(timm.create_model("resnext101_32x4d"))


@pytest.mark.parametrize("name", CATALOGUE)
def test_se_adds_what_the_paper_says(name: str) -> None:
    """(2 / r) times the sum over stages of N_s C_s^2, where r divides C_s (paper section 4)."""
    spec = CATALOGUE[name].spec
    extra = count(CATALOGUE[name].se_name, bias=False) - count(name)
    assert extra == sum(n * 2 * c * c // 16 for n, c in zip(spec.units, spec.channels, strict=True))


@pytest.mark.parametrize(
    ("name", "depth", "width"),
    [
        ("resnet20", 20, 1),
        ("resnet32", 32, 1),
        ("resnet44", 44, 1),
        ("resnet56", 56, 1),
        ("resnet110", 110, 1),
        ("preresnet110", 110, 1),
        ("preresnet164", 164, 1),
        ("wrn_16_8", 16, 8),
    ],
)
def test_depth_counts_the_layers_with_weights(name: str, depth: int, width: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    kernels = (1, 3) if model.spec.bottleneck else (3,)
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    assert all(layer.kernel_size[0] in kernels for layer in layers)
    # He et al. count convolutions and the classifier; Zagoruyko and Komodakis also the three projections, less one.
    assert len(layers) + 1 + (2 if width > 1 else 0) == depth
    assert model.spec.widths == (16 * width, 32 * width, 64 * width)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_runs_learns_and_round_trips(name: str) -> None:
    model = create_model(name, num_classes=3)
    size = 32 if CATALOGUE[plain_name(name)].size == 32 else 64
    x = torch.randn(2, 3, size, size)
    logits = model(x)
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    twin = create_model(name, num_classes=3)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), model.eval()(x))
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == (0 if name in CATALOGUE else sum(model.spec.units))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_is_an_option(placement: str) -> None:
    model = create_model("se_resnet20", placement=placement, stages={3, 4}, reduction=4, gate="tanh", squeeze="max")
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == 6
    assert {(b.gate_name, b.squeeze, b.gain is None) for b in blocks} == {("tanh", "max", True)}


def test_start_is_the_papers_unless_told_otherwise() -> None:
    assert not any(key.endswith("gain") for key in create_model("se_resnet20").state_dict())
    torch.manual_seed(1)
    plain = create_model("resnet20").eval()
    torch.manual_seed(1)
    model = create_model("se_resnet20", start="identity").eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))


def test_list_models() -> None:
    names = list_models()
    assert len(names) == 2 * len(CATALOGUE)
    assert len(set(names)) == len(names)
    assert list_models("se_resnet1*") == ["se_resnet18", "se_resnet101", "se_resnet152", "se_resnet110"]
    assert list_models("nothing*") == []
    assert plain_name("senet154") == "senet154_plain"


def test_pretrained_cfg_is_timms() -> None:
    model = create_model("se_resnet20", num_classes=4)
    assert timm.data.resolve_model_data_config(model) == {
        "input_size": (3, 32, 32),
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    assert model.pretrained_cfg["num_classes"] == 4
    assert len(create_model("se_resnet20", in_channels=1).pretrained_cfg["mean"]) == 1
    with torch.device("meta"):
        large = create_model("senet154")
    for key in ("first_conv", "classifier"):
        assert isinstance(large.get_submodule(large.pretrained_cfg[key]), nn.Conv2d | nn.Linear)


def test_weights_of_a_file(tmp_path: object) -> None:
    model = create_model("se_resnet20")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = create_model("se_resnet20", weights=tmp_path / "weights.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    with pytest.raises(ValueError, match="does not fit the network: 36 unexpected"):
        create_model("resnet20", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("se_resnet5", {}, ValueError, "unknown network 'se_resnet5'; did you mean 'se_resnet56'"),
        ("resnet20", {"in_chans": 1}, TypeError, "no option 'in_chans': it is in_channels= here"),
        ("resnet20", {"pretrained": True}, TypeError, "no option 'pretrained': it is weights= here"),
        ("se_resnet20", {"redaction": 8}, TypeError, "unknown option 'redaction'; did you mean 'reduction'"),
        ("resnet20", {"placement": "pre"}, ValueError, "placement= is an option of SE, and 'resnet20' is plain; 'se_"),
        ("resnet20", {"out_indices": (1,)}, ValueError, "out_indices picks the maps of features_only=True"),
        (
            "resnet20",
            {"features_only": True, "out_indices": (4,)},
            ValueError,
            r"among 0 to 3, or negative from the last, got \(4,\)",
        ),
        ("resnet20", {"stride_in": "conv2"}, ValueError, "stride_in='conv2' is for bottlenecks"),
        ("se_resnet20", {"stages": 7}, ValueError, r"stages=\[7\] are not all among .* \[2, 3, 4\]"),
    ],
)
def test_refuses(name: str, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(name, **options)
