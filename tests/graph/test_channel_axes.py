import pytest
import torch
from torch import Tensor, nn

from senet.graph.channel_axes import AMBIGUOUS, channel_axes
from senet.graph.recorder import trace_example
from senet.insertion.sites import find_sites


class Steps(nn.Module):
    """Modules with a function between each two, and the axis of the output of each."""

    def __init__(self, *steps: object) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList([step for step in steps if isinstance(step, nn.Module)])

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)  # type: ignore[operator]
        return x


def axis_after(*steps: object, shape: tuple[int, ...] = (2, 3, 6, 6)) -> int | None:
    run = trace_example(Steps(*steps), torch.randn(shape))
    given = run.calls[0].given
    assert given is not None
    return channel_axes(run).get(given.number)


@pytest.mark.parametrize(
    ("steps", "axis"),
    [
        ([nn.Conv2d(3, 6, 1), nn.ReLU(), nn.MaxPool2d(2)], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x.permute(0, 2, 3, 1)], 3),  # as many channels as rows and columns
        ([nn.Conv2d(3, 6, 1), lambda x: x.transpose(1, 2)], 2),
        ([nn.Conv2d(3, 6, 1), lambda x: x.permute(0, 2, 3, 1), nn.LayerNorm(6), lambda x: x.movedim(-1, 1)], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x.flatten(2)], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x.flatten(2).mT], 2),
        ([nn.Conv2d(3, 6, 1), lambda x: x.flatten(2).permute(2, 0, 1), nn.Linear(6, 4)], 2),
        ([nn.Conv2d(3, 6, 1), lambda x: x[:, :, None]], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x[:, None]], 2),
        ([nn.Conv2d(3, 6, 1), lambda x: x.unbind(2)[0]], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: torch.cat((x, x), 1)], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x.mean(3)], 1),
        ([nn.Conv2d(3, 6, 1), lambda x: x.amax(1)], None),
        ([nn.Conv2d(3, 8, 1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(2, 2, 1)], 1),
        ([nn.GroupNorm(1, 3), nn.Upsample(scale_factor=2)], 1),
        ([nn.Linear(6, 6)], 3),
        ([lambda x: x * 2], 1),  # the image itself
        ([nn.Conv2d(3, 6, 1), lambda x: x + nn.functional.linear(x, torch.eye(6))], 1),
        ([nn.Conv2d(3, 6, 1), nn.Linear(6, 6), lambda x: x.transpose(1, 3), nn.Conv2d(6, 6, 1)], 1),
    ],
)
def test_the_axis_follows_from_parameters_and_operations(steps: list[object], axis: int | None) -> None:
    assert axis_after(*steps) == axis


class Einsum(nn.Module):
    """A product with a matrix of parameters that no module holds."""

    def __init__(self, equation: str, *shape: int) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.weight)


@pytest.mark.parametrize(
    ("equation", "weight", "shape", "axis"),
    [
        ("nlc,cd->nld", (8, 8), (2, 5, 8), 2),
        ("nlc,dc->nld", (4, 8), (2, 5, 8), 2),
        ("nhwc,cd->nhwd", (8, 4), (2, 5, 5, 8), 3),
        ("ncl,dc->ndl", (4, 8), (2, 8, 5), 1),
        ("nchw,dc->ndhw", (4, 8), (2, 8, 5, 5), 1),
    ],
)
def test_products_with_a_matrix_of_parameters(
    equation: str, weight: tuple[int, ...], shape: tuple[int, ...], axis: int
) -> None:
    assert axis_after(nn.ReLU(), Einsum(equation, *weight), shape=shape) == axis
    run = trace_example(Steps(nn.ReLU(), Einsum(equation, *weight)), torch.randn(shape))
    (read,) = [call.given for call in run.calls if isinstance(call.module, nn.ReLU)]
    assert read is not None
    assert channel_axes(run)[read.number] == axis


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention])
def test_recurrent_layers_and_attention_have_their_channels_last(kind: type[nn.Module]) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (6, 2) if kind is nn.MultiheadAttention else (6, 6)
            self.before, self.layer, self.after = nn.GELU(), kind(*sizes, batch_first=True), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            inputs = (x, x, x) if kind is nn.MultiheadAttention else (x,)
            return self.after(self.layer(*inputs)[0])  # type: ignore[no-any-return]

    for at in ("before", "after"):
        with pytest.raises(
            ValueError, match=r"the shape \(2, 5, 6\), (with its 6 channels on axis 2|and no parameters)"
        ):
            find_sites(Network(), at=at, example=torch.randn(2, 5, 6))


def test_makers_that_disagree() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.tokens, self.channels = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.tokens(self.norm(x).mT).mT
            return x + self.channels(self.norm(x))

    assert axis_after(nn.Linear(6, 6), Mixer(), shape=(2, 6, 6)) == AMBIGUOUS


def test_what_reads_a_map_decides_where_nothing_made_it() -> None:
    run = trace_example(nn.Sequential(nn.Identity(), nn.Linear(6, 4)), torch.randn(2, 5, 6))
    assert channel_axes(run)[run.inputs[0].number] == 2
    run = trace_example(nn.Sequential(nn.Identity(), nn.Conv1d(5, 4, 1)), torch.randn(2, 5, 6))
    assert channel_axes(run)[run.inputs[0].number] == 1
