import pytest
import torch
from torch import nn

from senet.graph.example_runs import search_run
from senet.graph.recorder import trace_example
from senet.graph.shapes import Map, Maps


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(5, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_maps_of_a_run_on_an_example() -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = Maps(trace_example(model, torch.randn(2, 5, 16, 8)))
    assert maps.at("0", "input") == Map("Tensor", (2, 5, 16, 8), 1, 0.0, 1)
    assert maps.at("0", "output") == Map("Tensor", (2, 8, 8, 4), 1, 1.0, 1)
    assert maps.at("3", "output") == Map("Tensor", (2, 8), 1, None, 1)
    assert maps.at("4", "output") is None
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_run_without_an_example_computes_nothing() -> None:
    model = network().half()
    seen: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    before = model.state_dict(keep_vars=True)
    assert Maps(search_run(model, None)).at("0", "output") == Map("Tensor", (1, 8, 256, 256), 1, 1.0, 1)
    assert (seen[0].device.type, seen[0].dtype) == ("meta", torch.float16)
    after = model.state_dict(keep_vars=True)
    assert all(after[key] is before[key] for key in before)


@pytest.mark.parametrize(
    ("conv", "shape"), [(nn.Conv1d(2, 8, 3, 4, 1), (1, 8, 128)), (nn.Conv3d(2, 8, 3, 4, 1), (1, 8, 16, 16, 16))]
)
def test_a_run_without_an_example_has_as_many_axes_as_the_first_convolution(
    conv: nn.Module, shape: tuple[int, ...]
) -> None:
    assert Maps(search_run(nn.Sequential(conv), None)).at("0", "output") == Map("Tensor", shape, 1, 2.0, 1)
