import pytest
import torch
from timm.layers.squeeze_excite import SqueezeExciteCl
from torch import nn

from senet import SqueezeExcitation, insert
from senet.graph.se_modules import find_se
from senet.graph.tracing import kind_of, shape_of, trace_network
from senet.models import ResNet, ResNetSpec
from senet.utils.errors import GatesError
from tests.helpers import randomise

SMALL = ResNetSpec(
    units=(1, 1), channels=(8, 16), widths=(8, 16), bottleneck=False, stem="conv3", stem_channels=8, pool="none"
)


def small() -> nn.Module:
    return insert(randomise(ResNet(SMALL, num_classes=5)), reduction=4, init="paper")


def test_trace_tells_where_each_block_acts() -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace = trace_network(model, torch.randn(1, 3, 16, 16))
    assert list(trace.units) == list(trace.products) == ["layer1.0.bn2.se", "layer2.0.bn2.se"]
    for name, (product,) in trace.products.items():
        assert kind_of(product) == "mul"
        assert shape_of(product)[1] == trace.units[name].channels
    for node, name in trace.tensors.items():  # of SE, nothing is left in the trace
        batches = "num_batches_tracked" in name
        assert len(node.users) == (0 if ".se." in name or batches else 1), name
    assert len(trace.tensors) == len(list(model.parameters())) + len(list(model.buffers()))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.training
    assert [unit.name for unit in find_se(model)] == list(trace.units)


def test_traces_in_training_mode_what_is_done_in_evaluation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.9), SqueezeExcitation(4, 2))
    (product,) = trace_network(model, torch.randn(1, 3, 4, 4)).products["2"]
    assert {kind_of(node) for node in product.all_input_nodes} == {"convolution", "view"}


def test_a_block_that_runs_twice_has_two_places() -> None:
    se = SqueezeExcitation(4, 2)
    trace = trace_network(nn.Sequential(se, nn.ReLU(), se, nn.Conv2d(4, 2, 1)), torch.ones(1, 4, 2, 2))
    assert [len(products) for products in trace.products.values()] == [2]


def test_channels_may_be_last() -> None:
    model = nn.Sequential(SqueezeExciteCl(8))
    trace = trace_network(model, torch.randn(1, 4, 5, 8))
    assert trace.axes == {"0": -1}
    assert len(trace.products["0"]) == 1


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
        trace_network(model(), torch.randn(1, 3, 16, 16))
