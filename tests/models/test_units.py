from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.models import PadShortcut, PostActivationUnit, PreActivationUnit
from tests.helpers import assert_close, randomise


def convolutions(*channels: int, stride: int = 1) -> list[nn.Conv2d]:
    strides = [stride] + [1] * (len(channels) - 2)
    return [nn.Conv2d(a, b, 3, s, 1, bias=False) for (a, b), s in zip(pairwise(channels), strides, strict=True)]


def test_pad_shortcut_takes_every_stride_th_position_between_zero_channels() -> None:
    x = torch.arange(2 * 3 * 5 * 4, dtype=torch.float64).view(2, 3, 5, 4)
    out = PadShortcut(3, 6, 2)(x)
    assert out.shape == (2, 6, 3, 2)
    assert_close(out[:, 1:4], x[:, :, ::2, ::2])
    assert not out[:, [0, 4, 5]].any()
    assert not list(PadShortcut(3, 6, 2).state_dict())


def test_pre_activation_unit_projects_what_is_activated() -> None:
    projection = nn.Conv2d(4, 8, 1, 2, bias=False)
    unit = randomise(PreActivationUnit(convolutions(4, 6, 8, stride=2), projection)).double().eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    h = torch.relu(unit.bn1(x))
    expected = unit.conv2(torch.relu(unit.bn2(unit.conv1(h)))) + projection(h)
    assert_close(unit(x), expected)


def test_pre_activation_unit_passes_x_itself_elsewhere() -> None:
    unit = randomise(PreActivationUnit(convolutions(4, 4, 8, stride=2), PadShortcut(4, 8, 2))).double().eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    branch = unit.conv2(torch.relu(unit.bn2(unit.conv1(torch.relu(unit.bn1(x))))))
    assert_close(unit(x), branch + PadShortcut(4, 8, 2)(x))


def test_drop_path_is_on_the_branch_alone() -> None:
    class Drop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(PostActivationUnit(convolutions(4, 4, 4), drop_path=Drop())(x), torch.relu(x))
    assert torch.equal(PreActivationUnit(convolutions(4, 4, 4), drop_path=Drop())(x), x)


@pytest.mark.parametrize("se", [False, True])
@pytest.mark.parametrize("name", ["bn1", "bn2", "relu", "drop_path"])
def test_a_forward_that_is_set_on_a_part_is_called(name: str, se: bool) -> None:
    unit = randomise(PostActivationUnit(convolutions(4, 4, 4))).eval()
    if se:
        senet.insert(unit, at="bn2", reduction=2)
    x, part = torch.randn(2, 4, 6, 6), unit.get_submodule(name)
    part.forward = lambda map_: type(part).forward(part, map_) + 1.0
    calls = [unit.bn1, unit.relu, unit.conv2, unit.bn2, unit.drop_path]
    y = unit.conv1(x)
    for call in calls:
        y = call(y)
    assert_close(unit(x), unit.relu(y + x))
