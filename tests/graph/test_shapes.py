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


class FromTokens(nn.Module):
    """Maps of tokens, or of a vector, which have no spatial axes."""

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.embed, self.stem = nn.Embedding(5, 4), nn.Conv1d(4, 8, 3, padding=1)
        self.last = nn.ConvTranspose1d(8, 8, 2, 2) if up else nn.Conv1d(8, 8, 3, 2, 1)
        self.head = nn.Conv1d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.stem(self.embed(x).transpose(1, 2))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("up", "strides"), [(False, (0.0, 1.0)), (True, (None, None))])
def test_strides_where_no_input_is_a_map(up: bool, strides: tuple[float | None, ...]) -> None:
    """They count from the input of the first convolution; a generator has none."""
    maps = Maps(trace_example(FromTokens(up), torch.zeros(2, 16, dtype=torch.long)))
    found = [maps.at(name, "output") for name in ("stem", "last")]
    assert tuple(None if one is None else one.octaves for one in found) == strides


def test_strides_of_images_on_two_batch_axes() -> None:
    """A video (N, T, C, H, W) whose frames are images of a 2-D network."""
    model = nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1))
    found = Maps(trace_example(model, torch.randn(1, 2, 3, 8, 8))).at("2", "output")
    assert found == Map("Tensor", (2, 8, 4, 4), 1, 1.0, 1)
