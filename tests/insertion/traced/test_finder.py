"""Sites in networks that no table knows, found in one run; the expected sites are written by hand."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.insertion.sites import explain

IMAGE = torch.randn(1, 3, 32, 32)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.SiLU())


class Residual1d(nn.Module):
    """A unit of a one-dimensional network, whose names are in no table."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(channels, channels, 3, padding=1), nn.Conv1d(channels, channels, 1)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(F.relu(self.first(x)))))


class Bottleneck(nn.Module):
    """YOLO's: the skip is a switch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    """YOLO's: halves, of which one passes bottlenecks, and all are concatenated."""

    def __init__(self, channels: int, count: int, *, plain: bool = False) -> None:
        super().__init__()
        half = channels // 2
        self.cv1, self.cv2 = conv(channels, channels, 1), conv((2 + count) * half, channels, 1)
        self.m = nn.ModuleList(conv(half, half) if plain else Bottleneck(half) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for module in self.m:
            parts.append(module(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class UNet(nn.Module):
    """Residual units on the way down; the skips of the network are no units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = conv(3, 16), conv(16, 16, 3, 2), nn.ConvTranspose2d(16, 16, 2, 2)
        self.enc, self.mid, self.dec = Bottleneck(16), Bottleneck(16), conv(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enc(self.stem(x))
        y = self.up(self.mid(self.down(x)))
        return self.head(self.dec(torch.cat([x, y], 1)))


class Inverted(nn.Module):
    """MobileNetV2's, with a skip only at stride 1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.expand = stride, conv(channels, 4 * channels, 1)
        self.depthwise = conv(4 * channels, 4 * channels, 3, stride, groups=4 * channels)
        self.project, self.norm = nn.Conv2d(4 * channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.project(self.depthwise(self.expand(x))))
        return y if self.stride > 1 else y + x


class Rep(nn.Module):
    """RepVGG's: parallel branches of one convolution, which are no branch and skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large, self.small = (nn.Conv2d(channels, channels, k, padding=k // 2) for k in (3, 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norms[0](self.large(x)) + self.norms[1](self.small(x)) + self.norms[2](x))


class Scaled(nn.Module):
    """Residual scaling, layer scale, and a sum by FloatFunctional or in place."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.how, self.body, self.norm = how, conv(channels, channels), nn.BatchNorm2d(channels)
        self.gamma, self.sum = nn.Parameter(torch.ones(channels, 1, 1)), nn.quantized.FloatFunctional()
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.last(self.body(x)))
        if self.how == "+=":
            y += x
            return y
        if self.how == "float functional":
            return self.sum.add(x, y)  # type: ignore[no-any-return]
        if self.how == "torch.add":
            return torch.add(x, y, alpha=0.2)
        return x + self.gamma * y


class Dense(nn.Module):
    """DenseNet's layer."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def network(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(3, 16), *blocks)


def sites(model: nn.Module, placement: str = "standard", example: Tensor = IMAGE) -> list[tuple[str, str, str]]:
    return [(s.name, s.how, s.rule) for s in senet.find_sites(model, placement, example=example)]  # type: ignore[arg-type]


def test_one_dimension() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 3, 2), Residual1d(8), Residual1d(8))
    signal = torch.randn(1, 3, 64)
    assert sites(model, example=signal) == [(f"{n}.norm", "batch_norm", "residual") for n in (1, 2)]
    assert sites(model, "pre", signal) == [(f"{n}.first", "input", "residual") for n in (1, 2)]
    assert sites(model, "post", signal) == [(f"{n}", "output", "residual") for n in (1, 2)]
    assert [site.spatial for site in senet.find_sites(model, example=signal)] == [(31,), (31,)]


def test_blocks_of_yolo() -> None:
    model = network(C2f(16, 2), C2f(16, 2, plain=True))
    assert sites(model) == [
        ("1.m.0.cv2.2", "output", "residual"),  # the branch ends in an activation
        ("1.m.1.cv2.2", "output", "residual"),
        ("2", "output", "concat"),
    ]


def test_skips_of_a_unet_are_no_units() -> None:
    found = explain(UNet(), example=IMAGE)
    assert [(s.name, s.rule, s.stage) for s in found.sites] == [
        ("enc.cv2.2", "residual", 0),
        ("mid.cv2.2", "residual", 1),
    ]
    reasons = {excluded.name: excluded.reason.partition(":")[0] for excluded in found.excluded}
    assert reasons["stem"] == "stem"
    assert reasons["dec"] == "nothing joins in it, and no site comes after it"
    assert reasons["head"] == "head"


def test_an_inverted_residual_with_a_stride_has_the_place_of_its_siblings() -> None:
    model = network(Inverted(16, 1), Inverted(16, 2), Inverted(16, 1))
    rules = ("residual", "sibling", "residual")
    assert sites(model) == [(f"{n}.norm", "batch_norm", rule) for n, rule in enumerate(rules, 1)]
    assert sites(model, "conv3x3") == [(f"{n}.depthwise.1", "batch_norm", rule) for n, rule in enumerate(rules, 1)]


def test_identity_needs_a_projection_in_each_skip() -> None:
    class Projected(Scaled):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, "layer scale")
            self.skip = nn.Conv2d(channels, channels, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.skip(x) + self.norm(self.last(self.body(x)))  # type: ignore[no-any-return]

    model = network(Projected(16), Scaled(16, "+="))
    with pytest.raises(ValueError, match=r"'identity' needs a projection.*itself: 1, such as '2'"):
        sites(model, "identity")
    found = senet.find_sites(model, "identity", at="1", example=IMAGE)
    assert [(site.name, site.how) for site in found] == [("1.skip", "output")]
    assert sites(network(Projected(16)), "identity") == [("1.skip", "output", "residual")]


def test_parallel_convolutions_are_one_block() -> None:
    assert sites(network(Rep(16), Rep(16)))[-2:] == [("1", "output", "parallel"), ("2", "output", "parallel")]


@pytest.mark.parametrize("how", ["+=", "float functional", "torch.add", "layer scale"])
@pytest.mark.filterwarnings("ignore:torch.ao.quantization")
def test_sums_of_every_form(how: str) -> None:
    assert sites(network(Scaled(16, how))) == [("1.norm", "batch_norm", "residual")]


def test_dense_layers_scale_their_new_maps() -> None:
    assert sites(network(Dense(16), Dense(24), Dense(32))) == [(f"{n}.conv", "output", "dense") for n in (1, 2, 3)]


def test_networks_of_torchvision() -> None:
    with torch.device("meta"):
        models = torchvision.models
        mobile, squeeze = models.mobilenet_v2(), models.squeezenet1_1()
        shuffle, video = models.shufflenet_v2_x0_5(), models.video.r3d_18()
    assert [s.name for s in senet.find_sites(mobile)] == [
        f"features.{n}.conv.{2 if n == 1 else 3}" for n in range(1, 18)
    ]
    assert [s.unit for s in senet.find_sites(squeeze)] == [f"features.{n}" for n in (3, 4, 6, 7, 9, 10, 11, 12)]
    assert len(senet.find_sites(shuffle)) == 16
    assert [s.name for s in senet.find_sites(video)] == [f"layer{n}.{m}.conv2.1" for n in (1, 2, 3, 4) for m in (0, 1)]


def test_insertion_at_found_sites_changes_no_bit() -> None:
    model = network(C2f(16, 1), Inverted(16, 2), Scaled(16, "layer scale"), Dense(16)).eval()
    with torch.no_grad():
        expected = model(IMAGE)
        keys = list(model.state_dict())
        senet.insert(model, reduction=4, example=IMAGE)
        assert torch.equal(model(IMAGE), expected)
    assert [key for key in model.state_dict() if ".se." not in key] == keys
    senet.remove(model)
    assert list(model.state_dict()) == keys


def test_a_network_without_a_run_says_why() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network(Rep(16))

        def forward(self, x: Tensor, *, time: Tensor) -> Tensor:
            return self.body(x) + time

    with pytest.raises(ValueError, match=r"Two did not run on an image.*give example=, an input of the network"):
        senet.find_sites(Two())
    assert senet.find_sites(Two(), example={"x": IMAGE, "time": torch.zeros(())})


def test_se_is_inserted_once() -> None:
    model = senet.insert(network(C2f(16, 2), Inverted(16, 2)), reduction=4, example=IMAGE)
    keys = list(model.state_dict())
    for placement in ("standard", "pre"):
        with pytest.raises(ValueError, match=r"'1.m.0.cv2.2' already has SE; remove it first"):
            senet.insert(model, placement, example=IMAGE)  # type: ignore[arg-type]
    assert list(model.state_dict()) == keys
    senet.insert(model, at="0.1", reduction=4)
    assert len(list(model.state_dict())) > len(keys)


def test_a_value_that_does_not_depend_on_the_input_is_in_no_set() -> None:
    class Positions(nn.Module):
        """As in a transformer: a map of convolutions of a constant is added."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.embed, self.head = conv(3, 8), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.embed(torch.ones(1, 2, *x.shape[2:], device=x.device)))  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match="found no convolutional units in Positions"):
        senet.find_sites(Positions())
