"""Tools that trace, export and quantize take a deployed network: its modules are plain."""

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from senet import SqueezeExcitation, deploy
from senet.nn import SEBatchNorm
from tests.helpers import assert_close, randomise

pytestmark = [
    pytest.mark.usefixtures("traced"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def deployed() -> nn.Module:
    """SE before a 1x1 convolution, and SE after an activation."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        SqueezeExcitation(4, 2),
        nn.Conv2d(4, 8, 1, bias=False),
        SEBatchNorm(8, se=SqueezeExcitation(8, 4)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    new = deploy(randomise(model).eval(), torch.randn(1, 3, 12, 12))
    assert len(new.report.of("moved")) == len(new.report.of("replaced")) == 1
    return new


def test_export_with_any_batch_and_size(deployed: nn.Module) -> None:
    sizes = {0: torch.export.Dim("n", min=1), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    program = torch.export.export(deployed, (torch.randn(2, 3, 12, 12),), dynamic_shapes=(sizes,))
    for shape in ((1, 3, 12, 12), (3, 3, 20, 9)):
        x = torch.randn(shape)
        assert_close(program.module()(x), deployed(x), 1e-6)


def test_torchscript_and_fx_take_other_sizes(deployed: nn.Module) -> None:
    x = torch.randn(3, 3, 20, 9)
    for other in (torch.jit.trace(deployed, torch.randn(2, 3, 12, 12)), torch.fx.symbolic_trace(deployed)):
        assert_close(other(x), deployed(x), 1e-6)


def test_fx_quantization(deployed: nn.Module) -> None:
    x = torch.randn(2, 3, 12, 12)
    prepared = prepare_fx(deployed, get_default_qconfig_mapping("x86"), (x,))
    expected = prepared(x)
    quantized = convert_fx(prepared)
    assert any("quantized" in type(module).__module__ for module in quantized.modules())
    assert_close(quantized(x), expected, 0.1)
