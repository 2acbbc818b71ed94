"""The squeeze over windows, against loops over positions in float64."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from senet import SEBatchNorm, SqueezeExcitation, set_fused
from senet.nn.recalibration import attach
from senet.nn.sum_relu import sum_relu
from senet.nn.window import check_window, squeeze_windows
from tests.helpers import assert_close, randomise


def by_loops(se: SqueezeExcitation, u: Tensor) -> Tensor:
    """Each position scaled by the gates of the window around it, which is shifted into the map at its borders."""
    window = (se.window,) * (u.ndim - 2) if isinstance(se.window, int) else se.window
    assert window is not None
    columns = []
    for position in itertools.product(*[range(size) for size in u.shape[2:]]):
        slices = [slice(None), slice(None)]
        for p, length, size in zip(position, window, u.shape[2:], strict=True):
            start = p - (length - 1) // 2
            while start > 0 and start + length > size:
                start -= 1
            slices.append(slice(max(start, 0), max(start, 0) + length))
        values = u[tuple(slices)].flatten(2)
        z = values.sum(2) / values.shape[2] if se.squeeze == "avg" else values.max(2).values
        columns.append(u[(..., *position)] * se.excite(z))
    return torch.stack(columns, 2).view_as(u)


def block(channels: int, window: int | tuple[int, ...] | None, **options: object) -> SqueezeExcitation:
    options = {"reduction": 2, **options}
    se = SqueezeExcitation(channels, window=window, **options)  # type: ignore[arg-type]
    randomise(se)
    return se.double().eval()


@settings(deadline=None)
@given(
    samples=st.integers(0, 2),
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=3) | st.lists(st.integers(1, 12), min_size=1, max_size=1),
    lengths=st.lists(st.integers(1, 7), min_size=3, max_size=3),
    one=st.booleans(),
    squeeze=st.sampled_from(["avg", "max"]),
    channels_last=st.booleans(),
)
def test_is_the_window_around_each_position(
    samples: int, sizes: list[int], lengths: list[int], one: bool, squeeze: str, channels_last: bool
) -> None:
    window = lengths[0] if one else tuple(lengths[: len(sizes)])
    u = torch.randn(samples, 3, *sizes, dtype=torch.float64)
    if channels_last:
        u = u.movedim(1, -1).contiguous().movedim(-1, 1)
    se = block(3, window, squeeze=squeeze)
    out = se(u)
    assert_close(out, by_loops(se, u))
    long = [axis for axis, size in enumerate(u.shape) if size > 1]
    assert [out.stride(axis) for axis in long] == [(u * 1).stride(axis) for axis in long]


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    more=st.integers(0, 3),
    squeeze=st.sampled_from(["avg", "max"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_maps_in_training_and_no_larger_maps_are_squeezed_whole(
    sizes: list[int], more: int, squeeze: str, dtype: torch.dtype
) -> None:
    """Bitwise, so that nothing changes in a network that meets no larger maps."""
    whole = block(4, None, squeeze=squeeze).to(dtype)
    windowed = block(4, tuple(size + more for size in sizes), squeeze=squeeze).to(dtype)
    windowed.load_state_dict(whole.state_dict())
    u = torch.randn(2, 4, *sizes).to(dtype)
    assert torch.equal(windowed(u), whole(u))
    larger = torch.randn(2, 4, *[2 * size + more for size in sizes]).to(dtype)
    assert torch.equal(windowed.train()(larger), whole(larger))


@pytest.mark.parametrize("squeeze", ["avg", "max"])
def test_gradients_in_evaluation(squeeze: str) -> None:
    se = block(3, (3, 4), squeeze=squeeze)
    u = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(u)
    inputs = [u, *se.parameters()]
    for found, expected in zip(
        torch.autograd.grad(se(u), inputs, g), torch.autograd.grad(by_loops(se, u), inputs, g), strict=True
    ):
        assert_close(found, expected)
    assert torch.autograd.gradcheck(se, u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_means_keep_their_precision(dtype: torch.dtype) -> None:
    """Cumulative sums in float32 lose a thousandth here: the mean is 300 times the spread."""
    u = (torch.randn(1, 2, 300, 200) + 300).to(dtype)
    exact = nn.functional.avg_pool2d(u.double(), (56, 41), 1)
    found = squeeze_windows(u, "avg", (56, 41))
    assert found.dtype == dtype
    assert_close(found.double(), exact, 2 * torch.finfo(dtype).eps)


def test_a_value_that_is_not_finite_stays_in_its_windows() -> None:
    u = torch.randn(1, 1, 9, 9)
    u[0, 0, 0, 0] = torch.inf
    found = squeeze_windows(u, "avg", (3, 3))
    assert found.isfinite().sum() == 7 * 7 - 1


def test_gates_are_computed_once_for_each_window() -> None:
    se = block(2, 5)
    seen: list[torch.Size] = []
    se.fc1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    se(torch.randn(1, 2, 7, 4, dtype=torch.float64))
    assert seen == [(1, 3, 1, 2)]


@pytest.mark.parametrize("how", ["off", "aten"])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("statistics", [True, False])
def test_batch_norm_with_se_and_the_sum(how: str, grad: bool, statistics: bool) -> None:
    """Evaluation takes no fused pass, with running statistics or without."""
    bn = SEBatchNorm(4, se=block(4, (3, 2)), dim=2, track_running_stats=statistics)
    randomise(bn).double().eval()
    plain = bn.to_batch_norm().eval()
    y, skip = torch.randn(2, 2, 4, 6, 5, dtype=torch.float64)
    set_fused(how)
    try:
        with torch.set_grad_enabled(grad):
            expected = by_loops(bn.se, plain(y))
            assert_close(bn(y), expected)
            found = sum_relu(bn, y, skip)
            assert found is not None
            assert_close(found, (expected + skip).relu())
    finally:
        set_fused("aten")


def test_training_is_the_same_in_fused_passes() -> None:
    windowed = SEBatchNorm(4, se=block(4, (3, 2)), dim=2).train()
    whole = copy.deepcopy(windowed)
    whole.se.window = None
    y = torch.randn(2, 4, 6, 5)
    windowed.float(), whole.float()
    assert torch.equal(windowed(y), whole(y))


def test_recalibrated_module() -> None:
    conv = nn.Conv2d(3, 4, 1).double().eval()
    expected = conv(u := torch.randn(1, 3, 5, 6, dtype=torch.float64))
    se = block(4, 3)
    attach(conv, "standard", se, "output")
    assert_close(conv(u), by_loops(se, expected))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(3, 4, 3), block(4, (3, 4)).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.se(self.conv(x))  # type: ignore[no-any-return]


SMALL, LARGE, OTHER = (5, 6), (12, 9), (10, 17)


def outputs(model: nn.Module, *sizes: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """Inputs and what the network makes of them."""
    images = [torch.randn(1, 3, *size) for size in sizes]
    return [(x, model(x).detach()) for x in images]


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
def test_traces() -> None:
    """The trace of torch.jit keeps the choice between windows and whole map; torch.fx makes it at each call."""
    model = Net().eval()
    symbolic = torch.fx.symbolic_trace(model)
    for x, expected in outputs(model, SMALL, LARGE, OTHER):
        assert_close(symbolic(x).detach(), expected, 1e-6)
    traced = torch.jit.trace(model, torch.randn(1, 3, *LARGE))
    for x, expected in outputs(model, LARGE, OTHER):
        assert_close(traced(x).detach(), expected, 1e-6)
    symbolic.train(), model.train()
    for x, expected in outputs(model, LARGE):
        assert_close(symbolic(x).detach(), expected, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_compiled_and_exported() -> None:
    model = Net().eval()
    for dynamic in (None, False, True):
        compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=dynamic)
        for x, expected in outputs(model, SMALL, LARGE, OTHER):
            assert_close(compiled(x).detach(), expected, 1e-6)
        torch.compiler.reset()
    sides = {axis: torch.export.Dim(f"side{axis}", min=8, max=20) for axis in (2, 3)}
    shapes = ({0: None, 1: None, **sides},)
    exported = torch.export.export(model, (torch.randn(1, 3, *LARGE),), dynamic_shapes=shapes).module()
    for x, expected in outputs(model, LARGE, OTHER):
        assert_close(exported(x).detach(), expected, 1e-6)


def test_under_vmap_and_autocast() -> None:
    se = block(3, 2).float()
    u = torch.randn(2, 3, 4, 4)
    rows = torch.func.vmap(lambda x: se(x[None])[0])(u)
    assert_close(rows, se(u), 1e-6)
    with torch.autocast("cpu"):
        assert se(u.bfloat16()).dtype == torch.bfloat16


def test_options_repr_and_copies() -> None:
    se = block(3, (4, 5))
    assert se.options["window"] == (4, 5)
    assert "window" not in block(3, None).options
    assert "window=(4, 5)" in repr(se)
    assert "window" not in repr(block(3, None))
    for copied in (SqueezeExcitation(**se.options), copy.deepcopy(se), pickle.loads(pickle.dumps(se))):
        assert copied.window == (4, 5)
    assert SqueezeExcitation(3, window=[4, 5]).window == (4, 5)  # as a JSON file has it
    old = block(3, None)
    del old.__dict__["window"]  # a pickle of an earlier version
    assert old(torch.randn(1, 3, 4, 4, dtype=torch.float64)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("window", "options", "error", "message"),
    [
        ("7", {}, TypeError, r"window must be an integer or a tuple of integers, such as \(56, 56\), got '7'"),
        ((7, 7.0), {}, TypeError, "window must be an integer"),
        (True, {}, TypeError, "window must be an integer"),
        (0, {}, ValueError, r"window must have a length of 1 or more .* got 0; None squeezes the whole map"),
        ((), {}, ValueError, "window must have a length of 1 or more"),
        ((7, 7, 7, 7), {}, ValueError, "one to three spatial axes"),
        (7, {"squeeze": "none"}, ValueError, "squeeze=\"none\" has none; use 'avg' or 'max'"),
    ],
)
def test_refused(window: object, options: dict[str, str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_window(window, options.get("squeeze", "avg"))  # type: ignore[arg-type]
    if error is ValueError:
        with pytest.raises(error, match=message):
            SqueezeExcitation(4, window=window, **options)  # type: ignore[arg-type]


def test_a_window_of_another_rank_is_refused() -> None:
    se = block(4, (3, 3))
    with pytest.raises(ValueError, match=r"a window of 2 lengths, \(3, 3\), does not fit a map with 1 spatial axes"):
        se(torch.randn(1, 4, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"the window \(3, 3\) for maps with 3 spatial axes; give it 3 lengths"):
        SEBatchNorm(4, se=se, dim=3)
