"""Gates that scale the weights of a 1x1 convolution, against SE on its input and output in float64."""

import copy

import pytest
import torch
from torch import nn

from senet import SqueezeExcitation
from senet.deployment.rewriting import Forms, rewrite
from senet.deployment.rewriting.modules import InferenceSE, PointwiseSE
from senet.deployment.rewriting.scaled_conv import ScaledConv
from tests.helpers import assert_close, randomise


def network(scales: str, *, channels: int = 8, outputs: int = 10, **options: object) -> nn.Sequential:
    """SE before or after a 1x1 convolution and a batch norm."""
    layers = [nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
    se = SqueezeExcitation(channels if scales == "input" else outputs, hidden_channels=3, **options)  # type: ignore[arg-type]
    found = nn.Sequential(nn.Conv2d(3, channels, 3), *((se, *layers) if scales == "input" else (*layers, se)))
    randomise(found)
    return found.double().eval()


@pytest.mark.parametrize("scales", ["input", "output"])
def test_it_equals_se_on_a_map_of_any_batch_and_size(scales: str) -> None:
    model = network(scales, gain=1.5)
    new, report = rewrite(model, torch.randn(1, 3, 9, 9, dtype=torch.float64), Forms(weights="both"))
    (scaled,) = (module for module in new.modules() if isinstance(module, ScaledConv))
    assert scaled.scales == scales
    assert [row.action for row in report.rows if row.kind == "SqueezeExcitation"] == [
        "weights" if scales == "input" else "moved"
    ]
    for shape in ((1, 3, 9, 9), (3, 3, 7, 12)):
        x = torch.randn(shape, dtype=torch.float64)
        assert_close(new(x), model(x), 1e-12)


@pytest.mark.parametrize(("scales", "kind"), [("input", InferenceSE), ("output", PointwiseSE)])
def test_small_maps_are_scaled_themselves(scales: str, kind: type[nn.Module]) -> None:
    """18 positions, and 9 weights of each channel."""
    model = network(scales, channels=9, outputs=9)
    new, _ = rewrite(model, torch.randn(1, 3, 5, 8, dtype=torch.float64), Forms(weights="both"))
    assert [type(module) for module in new.modules() if isinstance(module, kind | ScaledConv)] == [kind]
    larger, _ = rewrite(model, torch.randn(1, 3, 5, 9, dtype=torch.float64), Forms(weights="both"))
    assert any(isinstance(module, ScaledConv) for module in larger.modules())


class Branching(nn.Module):
    """The output of SE has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.se = SqueezeExcitation(4, hidden_channels=2)
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.se(x)
        return self.conv(y) + y  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(SqueezeExcitation(4, hidden_channels=2), nn.Conv2d(4, 4, 3, padding=1)),
        nn.Sequential(SqueezeExcitation(4, hidden_channels=2), nn.Conv2d(4, 4, 1, groups=2)),
        nn.Sequential(SqueezeExcitation(4, hidden_channels=2), nn.Conv2d(4, 4, 1, stride=2)),
        Branching(),
    ],
    ids=["3x3", "groups", "stride", "branch"],
)
def test_other_convolutions_keep_se_before_them(model: nn.Module) -> None:
    randomise(model)
    model = copy.deepcopy(model).double().eval()
    x = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    new, _ = rewrite(model, x, Forms(weights="both"))
    assert not any(isinstance(module, ScaledConv) for module in new.modules())
    assert_close(new(x), model(x), 1e-12)


@pytest.mark.parametrize("squeeze", ["kernel", "pool", "mean"])
@pytest.mark.parametrize("product", ["broadcast", "resized"])
@pytest.mark.parametrize("scales", ["input", "output"])
def test_squeeze_and_product_have_equal_forms(squeeze: str, product: str, scales: str) -> None:
    model = network(scales, gain=1.5)
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    new, _ = rewrite(model, x, Forms(squeeze, "conv", product=product))  # type: ignore[arg-type]
    (se,) = (module for module in new.modules() if isinstance(module, InferenceSE | PointwiseSE))
    assert (se.gates.squeeze, se.resized) == (squeeze, product == "resized")
    assert_close(new(x), model(x), 1e-12)


@pytest.mark.parametrize("options", [{"squeeze": "none"}, {"window": 5}])
def test_gates_with_a_spatial_axis_are_neither_resized_nor_in_weights(options: dict[str, object]) -> None:
    model = network("input", **options)
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    new, _ = rewrite(model, x, Forms("kernel", "conv", product="resized", weights="both"))
    (se,) = (module for module in new.modules() if isinstance(module, InferenceSE | ScaledConv))
    assert isinstance(se, InferenceSE)
    assert not se.resized
    assert_close(new(x), model(x), 1e-12)


def test_the_convolution_before_se_keeps_its_weights() -> None:
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    for scales, kind in (("input", ScaledConv), ("output", PointwiseSE)):
        new, _ = rewrite(network(scales), x, Forms(weights="next"))
        assert [type(module) for module in new.modules() if isinstance(module, PointwiseSE | ScaledConv)] == [kind]


@pytest.mark.parametrize(
    ("layers", "resized"),
    [
        ([nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU()], True),
        ([nn.Conv2d(3, 8, 3), nn.SiLU()], True),
        ([nn.Conv2d(3, 32, 3), nn.Hardswish()], False),
        ([nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=2)], True),
        ([nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=4)], False),
        ([nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=32)], True),
        ([nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, groups=24), nn.BatchNorm2d(24)], False),
        ([nn.ConvTranspose2d(3, 32, 3)], False),
        ([], False),
    ],
)
def test_maps_that_are_not_in_the_blocked_layout_keep_a_mean(layers: list[nn.Module], resized: bool) -> None:
    """ONNX Runtime has no blocked HardSwish, for example: a pool after it would rearrange the map."""
    channels = next((m.out_channels for m in reversed(layers) if hasattr(m, "out_channels")), 3)
    model = nn.Sequential(*layers, SqueezeExcitation(channels, hidden_channels=2), nn.Conv2d(channels, 4, 3))
    randomise(model)
    model = model.double().eval()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    new, _ = rewrite(model, x, Forms("kernel", "conv", product="resized"))
    (se,) = (module for module in new.modules() if isinstance(module, InferenceSE))
    assert (se.gates.squeeze, se.resized) == (("kernel", True) if resized else ("mean", False))
    assert_close(new(x), model(x), 1e-12)
