from itertools import pairwise
from typing import Any

import pytest
import torch
from pytorchcv.models.bninception import bninception
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senet import SqueezeExcitation, insert
from senet.models.bn_inception import BNInception, BNInceptionSpec, Inception, InceptionSpec
from tests.helpers import assert_close, randomise
from tests.models.test_resnet import load_in_order

MODULES = ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def on_meta() -> BNInception:
    with torch.device("meta"):
        return BNInception()


def test_has_the_releases_parameters_with_se_on_every_module(on_meta: BNInception) -> None:
    plain = parameters(on_meta)
    insert(on_meta, at=[f"inception_{name}" for name in MODULES], init="paper")
    blocks = [m for m in on_meta.modules() if isinstance(m, SqueezeExcitation)]
    assert [b.channels for b in blocks] == [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    assert [b.hidden_channels for b in blocks] == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]
    assert parameters(on_meta) == 11_931_622
    assert plain == 11_931_622 - sum(
        2 * b.channels * hidden + b.channels + hidden for b in blocks for hidden in [b.hidden_channels or 0]
    )


def test_has_the_releases_cost(on_meta: BNInception) -> None:
    """2.033 G multiply-adds of convolutions and linear layers, of which SE has 0.6 M."""
    insert(on_meta, at=list(on_meta.stages), init="paper")
    with FlopCounterMode(display=False) as counter:
        on_meta(torch.randn(1, 3, 224, 224, device="meta"))
    assert round(counter.get_total_flops() / 2 / 1e9, 3) == 2.033


def test_is_pytorchcvs_network_but_for_biases() -> None:
    """Theirs has a bias in each convolution, which the mean of the batch norm behind it takes away again."""
    theirs = randomise(bninception()).double().eval()
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    ours = BNInception().double().eval()
    with torch.no_grad():
        biases = 0
        for layer in theirs.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.bias, std=0.1)
                biases += layer.bias.numel()
        assert parameters(theirs) == parameters(ours) + biases
        expected = theirs(x)
        for layer, behind in pairwise(theirs.modules()):
            if isinstance(layer, nn.Conv2d):
                behind.running_mean -= layer.bias
                layer.bias = None
        load_in_order(ours, theirs)
        assert_close(ours(x), expected, 1e-9)


def test_names_are_the_releases() -> None:
    with torch.device("meta"):
        model = BNInception()
    assert list(model.stages) == [f"inception_{name}" for name in MODULES]
    assert list(model.stages.values()) == [3, 3, 4, 4, 4, 4, 4, 5, 5, 5]
    assert [name for name, _ in model.inception_3a.named_children()] == [
        *("conv1x1", "conv3x3_reduce", "conv3x3", "double3x3_reduce", "double3x3a", "double3x3b", "pool", "pool_proj")
    ]
    assert [info["num_chs"] for info in model.feature_info] == [64, 192, 320, 608, 1024]
    assert [info["reduction"] for info in model.feature_info] == [2, 4, 8, 16, 32]


def layer_by_hand(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(layer.bn(nn.functional.conv2d(x, layer.conv.weight, None, layer.conv.stride, layer.conv.padding)))


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_module_concatenates_its_branches(pool: str) -> None:
    module = randomise(Inception(6, InceptionSpec(2, 3, 4, 5, 7, 8, pool=pool))).double().eval()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    padded = nn.functional.pad(x, (1, 1, 1, 1), value=0 if pool == "avg" else -torch.inf)
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    pooled = windows.mean(-1) if pool == "avg" else windows.amax(-1)
    h = layer_by_hand
    double = h(module.double3x3b, h(module.double3x3a, h(module.double3x3_reduce, x)))
    branches = [
        h(module.conv1x1, x),
        h(module.conv3x3, h(module.conv3x3_reduce, x)),
        double,
        h(module.pool_proj, pooled),
    ]
    assert [branch.shape[1] for branch in branches] == [2, 4, 7, 8]
    assert module.out_channels == 21
    assert_close(module(x), torch.cat(branches, 1))


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (8, 5), (1, 1)])
def test_module_with_a_stride_takes_any_size(size: tuple[int, int]) -> None:
    """The pool's last windows reach over the end; the release's pool would be a row short where a size is odd."""
    module = randomise(Inception(6, InceptionSpec(0, 3, 4, 5, 7, 0, pool="max", stride=2))).double().eval()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    rows, columns = ([slice(i, i + 3) for i in range(0, n, 2)] for n in size)
    pooled = torch.stack([torch.stack([x[:, :, r, c].amax((2, 3)) for c in columns], -1) for r in rows], -2)
    h = layer_by_hand
    double = h(module.double3x3b, h(module.double3x3a, h(module.double3x3_reduce, x)))
    assert_close(module(x), torch.cat((h(module.conv3x3, h(module.conv3x3_reduce, x)), double, pooled), 1))
    if not (size[0] % 2 or size[1] % 2):
        assert torch.equal(module.pool(x), nn.functional.max_pool2d(x, 3, 2, ceil_mode=True))


@pytest.mark.parametrize(
    ("numbers", "options", "message"),
    [
        ((1, 1, 1, 1, 1, 1), {"pool": "mean"}, "unknown pool 'mean'.*avg, max"),
        ((1, 1, 1, 1, 1, 1), {"stride": 3}, "stride must be 1 or 2, got 3"),
        ((1, 1, 1, 1, 1, 0), {}, "four branches: conv1x1 and pool_proj must be 1 or more, got 1 and 0"),
        ((4, 1, 1, 1, 1, 0), {"pool": "max", "stride": 2}, "must be 0 and pool 'max', got 4, 0 and 'max'"),
        ((0, 1, 1, 1, 1, 0), {"stride": 2}, "must be 0 and pool 'max', got 0, 0 and 'avg'"),
    ],
)
def test_module_refuses(numbers: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InceptionSpec(*numbers, **options)


def test_network_refuses_to_have_no_modules() -> None:
    with pytest.raises(ValueError, match="modules must have one Inception module or more, got none"):
        BNInceptionSpec(modules=())
