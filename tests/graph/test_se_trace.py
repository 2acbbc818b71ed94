import pytest
import torch
from timm.layers.squeeze_excite import SqueezeExciteCl
from torch import nn

from senet import SqueezeExcitation, insert
from senet.graph.operations import MODULE_CALL
from senet.graph.se_modules import find_se
from senet.graph.se_trace import trace_se
from senet.models import ResNet, ResNetSpec
from senet.utils.errors import GatesError
from tests.helpers import randomise

SMALL = ResNetSpec(
    units=(1, 1), channels=(8, 16), widths=(8, 16), bottleneck=False, stem="conv3", stem_channels=8, pool="none"
)


def small() -> nn.Module:
    return insert(randomise(ResNet(SMALL, num_classes=5)), reduction=4, init="paper")


def test_each_block_is_one_operation() -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace = trace_se(model, torch.randn(1, 3, 16, 16))
    assert list(trace.units) == ["layer1.0.bn2.se", "layer2.0.bn2.se"]
    for name, unit in trace.units.items():
        (product,) = trace.products(name)
        (source,) = product.inputs
        assert product.name == MODULE_CALL
        assert trace.unit_of(product) == name
        assert source.shape == product.outputs[0].shape
        assert source.shape[1] == unit.channels
    read = [value.number for operation in trace.run.operations for value in operation.inputs]
    for number, name in trace.run.tensors.items():  # of SE, nothing is left in the trace
        batches = "num_batches_tracked" in name
        assert read.count(number) == (0 if ".se." in name or batches else 1), name
    assert len(trace.run.tensors) == len(list(model.parameters())) + len(list(model.buffers()))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.training
    assert [unit.name for unit in find_se(model)] == list(trace.units)


def test_traces_in_training_mode_what_is_done_in_evaluation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.9), SqueezeExcitation(4, 2))
    trace = trace_se(model, torch.randn(1, 3, 4, 4))
    (product,) = trace.products("2")
    assert [trace.run.producer(value).name for value in product.inputs] == ["convolution"]


def test_a_block_that_runs_twice_has_two_places() -> None:
    se = SqueezeExcitation(4, 2)
    trace = trace_se(nn.Sequential(se, nn.ReLU(), se, nn.Conv2d(4, 2, 1)), torch.ones(1, 4, 2, 2))
    assert len(trace.products("0")) == 2


def test_channels_may_be_last() -> None:
    model = nn.Sequential(SqueezeExciteCl(8))
    trace = trace_se(model, torch.randn(1, 4, 5, 8))
    assert trace.units["0"].axis == -1
    assert len(trace.products("0")) == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: ResNet(SMALL, num_classes=5), "ResNet has no SE: there are no gates to fold in it"),
        (lambda: SqueezeExcitation(3, 1), "SqueezeExcitation is an SE module itself"),
        (
            lambda: nn.Sequential(nn.Linear(7, 3), SqueezeExcitation(3, 1)),
            r"Sequential did not run on an input \(1, 3, 16, 16\): .*give example=",
        ),
    ],
)
def test_refuses(model: object, message: str) -> None:
    with pytest.raises(GatesError, match=message):
        trace_se(model(), torch.randn(1, 3, 16, 16))
