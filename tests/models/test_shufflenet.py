import pytest
import torch
from pytorchcv.models.shufflenet import shufflenet_g3_w1
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from senet import SEBatchNorm, insert
from senet.models.shufflenet import ShuffleNet, ShuffleNetSpec, ShuffleUnit
from tests.helpers import assert_close, randomise
from tests.models.test_resnet import assert_same_logits, load_in_order


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def branch_ends(model: ShuffleNet) -> list[str]:
    return [name for name, _ in model.named_modules() if name.endswith("bn3")]


def test_has_the_parameters_of_the_paper_of_se() -> None:
    """Table 3, by count: 1.866 M plain, and 2.477 M with SE on the branches' ends, without biases."""
    with torch.device("meta"):
        model = ShuffleNet()
        theirs = shufflenet_g3_w1()
    assert parameters(model) == parameters(theirs) == 1_865_728
    insert(model, at=branch_ends(model), init="paper", bias=False)
    assert round(parameters(model) / 1e6, 3) == 2.477


def test_has_the_cost_of_the_paper_of_se() -> None:
    """137.5 M multiply-adds of convolutions and classifier."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ShuffleNet()(torch.randn(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2 / 1e6, 1) == 137.5


def test_is_pytorchcvs_network() -> None:
    theirs, ours = randomise(shufflenet_g3_w1()), ShuffleNet()
    load_in_order(ours, theirs)
    assert_same_logits(ours, theirs, 224)


def unit_by_hand(unit: ShuffleUnit, x: Tensor, end: nn.Module) -> Tensor:
    """A unit written out, with what stands at the branch's end."""
    y = torch.relu(unit.bn1(unit.conv1(x)))
    groups = y.chunk(3, 1)
    y = torch.stack([group[:, i] for i in range(groups[0].shape[1]) for group in groups], 1)
    y = end(unit.conv3(unit.bn2(unit.conv2(y))))
    if unit.stride == 1:
        return torch.relu(y + x)
    windows = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
    return torch.relu(torch.cat((y, windows.mean((-1, -2))), 1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("with_se", [False, True])
@pytest.mark.parametrize("in_channels", [12, 24])
def test_unit_is_the_papers(in_channels: int, with_se: bool, training: bool) -> None:
    """Figure 2, with SE on the branch before the sum or the concatenation; values and gradients."""
    unit = randomise(ShuffleUnit(in_channels, 24, 3, 3)).double()
    twin = randomise(ShuffleUnit(in_channels, 24, 3, 3)).double()
    twin.load_state_dict(unit.state_dict())
    end: nn.Module = twin.bn3
    if with_se:
        insert(unit, at="bn3", init="paper", reduction=2)
        assert type(unit.bn3) is SEBatchNorm
        end = nn.Sequential(twin.bn3, unit.bn3.se)
    x = torch.randn(2, in_channels, 6, 6, dtype=torch.float64)
    gradients = []
    for forward in (unit.train(training), lambda x: unit_by_hand(twin.train(training), x, end)):
        leaf = x.clone().requires_grad_()
        out = forward(leaf)
        out.square().sum().backward()
        gradients.append((out, leaf.grad))
    side = 6 if in_channels == 24 else 3
    assert gradients[0][0].shape == (2, 24, side, side)
    assert_close(gradients[0][0], gradients[1][0])
    assert_close(gradients[0][1], gradients[1][1], 1e-11)
    assert_close(unit.conv1.weight.grad, twin.conv1.weight.grad, 1e-11)


@pytest.mark.parametrize("watched", ["bn3", "relu"])
def test_unit_calls_what_is_watched(watched: str) -> None:
    unit = randomise(ShuffleUnit(24, 24, 3, 3)).eval()
    x = torch.randn(2, 24, 6, 6)
    expected = unit(x)
    calls = []
    unit.get_submodule(watched).register_forward_hook(lambda module, args, output: calls.append(output.shape))
    assert torch.equal(unit(x), expected)
    assert (2, 24, 6, 6) in calls


def test_only_the_first_convolution_has_no_groups() -> None:
    with torch.device("meta"):
        model = ShuffleNet()
    units = [unit for name in model.stage_names for unit in getattr(model, name)]
    assert [unit.conv1.groups for unit in units] == [1] + [3] * 15
    assert {unit.conv3.groups for unit in units} == {3}
    assert [unit.stride for unit in units] == [2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert {unit.bn3.num_features for unit in model.layer1} == {216, 240}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": (4, 8)}, r"one number for each stage, got \(4, 8\) and \(240, 480, 960\)"),
        ({"channels": (240, 240, 960)}, r"channels must increase from stem_channels=24 on.*got \(240, 240, 960\)"),
        ({"channels": (240, 484, 960)}, "a multiple of 4 times groups=3"),
        ({"stem_channels": 16}, "differ from the one before by a multiple of groups"),
    ],
)
def test_spec_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleNetSpec(**options)
