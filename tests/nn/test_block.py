import copy
import io
import pickle

import pytest
import timm.layers
import torch
import torchvision.ops
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from senet import SqueezeExcitation
from senet.nn.block import ACTIVATIONS, GATES, SQUEEZES, hidden_width
from tests.helpers import assert_close, randomise


def by_hand(se: SqueezeExcitation, u: Tensor) -> Tensor:
    """Equations 2 to 4 for one image and one position at a time, from the weights alone."""
    weights = [se.fc1.weight, se.fc2.weight]
    biases = [layer.bias if layer.bias is not None else 0.0 for layer in (se.fc1, se.fc2)]
    functions = {
        "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
        "tanh": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
        "relu": lambda x: torch.where(x > 0, x, 0.0),
        "hard_sigmoid": lambda x: torch.clamp((x + 3) / 6, 0, 1),
    }
    gain = 1.0 if se.gain is None else float(se.gain)

    def gates(z: Tensor) -> Tensor:
        hidden = functions["relu"](weights[0] @ z + biases[0])
        return functions[se.gate_name](weights[1] @ hidden + biases[1]) * gain

    out = u.clone()
    for n in range(u.shape[0]):
        positions = u[n].flatten(1)
        if se.squeeze == "none":
            columns = [gates(positions[:, i]) * positions[:, i] for i in range(positions.shape[1])]
            out[n] = torch.stack(columns, 1).view_as(u[n])
        else:
            z = positions.sum(1) / positions.shape[1] if se.squeeze == "avg" else positions.max(1).values
            out[n] = (gates(z)[:, None] * positions).view_as(u[n])
    return out


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), *[st.integers(1, 4)] * 3),
    rank=st.integers(3, 5),
    squeeze=st.sampled_from(SQUEEZES),
    gate=st.sampled_from(sorted(GATES)),
    bias=st.booleans(),
    gain=st.sampled_from([1.0, 2.0, -0.5]),
    reduction=st.sampled_from([1, 2, 3.5, 16]),
)
def test_is_the_papers_equations(
    shape: tuple[int, ...], rank: int, squeeze: str, gate: str, bias: bool, gain: float, reduction: float
) -> None:
    u = torch.randn(shape[:rank], dtype=torch.float64)
    se = SqueezeExcitation(shape[1], reduction, squeeze=squeeze, gate=gate, bias=bias, gain=gain)
    se = randomise(se).double()
    assert_close(se(u), by_hand(se, u))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activation_stands_between_the_layers(activation: str) -> None:
    se = randomise(SqueezeExcitation(6, 2, activation=activation)).double()
    z = torch.randn(4, 6, dtype=torch.float64)
    assert_close(se.excite(z), torch.sigmoid(se.fc2(ACTIVATIONS[activation]()(se.fc1(z)))))


@pytest.mark.parametrize(
    ("channels", "reduction", "hidden"),
    [(64, 16, 4), (256, 16, 16), (24, 16, 2), (40, 16, 3), (20, 16, 1), (4, 16, 1), (10, 2.5, 4)],
)
def test_hidden_width(channels: int, reduction: float, hidden: int) -> None:
    assert hidden_width(channels, reduction) == hidden
    assert SqueezeExcitation(channels, reduction).fc1.out_features == hidden
    assert SqueezeExcitation(channels, hidden_channels=7).fc1.out_features == 7


@pytest.mark.parametrize(
    "theirs",
    [timm.layers.SEModule(32, rd_channels=8), torchvision.ops.SqueezeExcitation(32, 8)],
    ids=["timm", "torchvision"],
)
def test_loads_other_libraries_blocks(theirs: nn.Module) -> None:
    theirs = theirs.double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = SqueezeExcitation(32, hidden_channels=8).double()
    ours.load_state_dict(theirs.state_dict())
    u = torch.randn(2, 32, 5, 7, dtype=torch.float64)
    assert_close(ours(u), theirs(u))


def test_only_axes_of_length_one_are_dropped_on_load() -> None:
    se = SqueezeExcitation(8, 2)
    state = se.state_dict()
    state["fc1.weight"] = torch.zeros(4, 8, 3, 3)
    with pytest.raises(RuntimeError, match="size mismatch for fc1.weight"):
        se.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype: torch.dtype) -> None:
    se = SqueezeExcitation(2, 1).to(dtype)
    seen = []
    se.fc1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    u = torch.full((1, 2, 128, 128), 100.0, dtype=dtype)
    assert se(u).dtype == dtype
    assert torch.equal(seen[0], torch.full((1, 2), 100.0, dtype=dtype))


@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize(("rank", "memory_format"), [(4, torch.channels_last), (5, torch.channels_last_3d)])
def test_memory_format_stays(squeeze: str, rank: int, memory_format: torch.memory_format) -> None:
    u = torch.randn(2, 8, *[5] * (rank - 2)).contiguous(memory_format=memory_format)
    se = randomise(SqueezeExcitation(8, 2, squeeze=squeeze))
    out = se(u)
    assert out.is_contiguous(memory_format=memory_format)
    assert_close(out, se(u.contiguous()), 1e-6)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_empty_batch(squeeze: str) -> None:
    u = torch.randn(0, 8, 4, 4, requires_grad=True)
    se = SqueezeExcitation(8, 2, squeeze=squeeze)
    out = se(u)
    out.sum().backward()
    assert out.shape == u.shape == u.grad.shape
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in se.parameters())


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_gradients(squeeze: str) -> None:
    se = randomise(SqueezeExcitation(4, 2, squeeze=squeeze)).double()
    u = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(se, (u,))
    assert torch.autograd.gradgradcheck(se, (u,))


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_autocast_keeps_the_maps_dtype(squeeze: str) -> None:
    se = SqueezeExcitation(8, 2, squeeze=squeeze)
    u = torch.randn(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert se(u).dtype == torch.float32
        assert se(u.bfloat16()).dtype == torch.bfloat16
    assert_close(se(u), by_hand(se, u), 1e-5)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_vmap(squeeze: str) -> None:
    se = randomise(SqueezeExcitation(6, 2, squeeze=squeeze)).double()
    u = torch.randn(3, 2, 6, 4, 5, dtype=torch.float64)
    assert_close(torch.vmap(se)(u), torch.stack([se(one) for one in u]))


@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_copies(squeeze: str, gain: float) -> None:
    se = randomise(SqueezeExcitation(6, 2, squeeze=squeeze, gain=gain))
    u = torch.randn(2, 6, 4, 5)
    file = io.BytesIO()
    torch.save(se.state_dict(), file)
    file.seek(0)
    rebuilt = SqueezeExcitation(**se.options)
    rebuilt.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(se), pickle.loads(pickle.dumps(se)), rebuilt):
        assert torch.equal(other(u), se(u))
        assert repr(other) == repr(se)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_compiles_whole(traced: None, squeeze: str) -> None:
    se = randomise(SqueezeExcitation(6, 2, squeeze=squeeze, gain=2.0))
    u = torch.randn(2, 6, 4, 5, requires_grad=True)
    compiled = torch.compile(se, fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(se(u).square().sum(), u)
    (compiled_gradient,) = torch.autograd.grad(compiled(u).square().sum(), u)
    assert_close(compiled(u), se(u), 1e-6)
    assert_close(compiled_gradient, gradient, 1e-6)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_exports_with_dynamic_shapes(traced: None, squeeze: str) -> None:
    se = randomise(SqueezeExcitation(6, 2, squeeze=squeeze)).eval()
    n, h, w = (torch.export.Dim(name, min=1, max=64) for name in "nhw")
    program = torch.export.export(se, (torch.randn(3, 6, 4, 5),), dynamic_shapes=({0: n, 2: h, 3: w},))
    for shape in ((3, 6, 4, 5), (2, 6, 9, 7)):
        u = torch.randn(shape)
        assert_close(program.module()(u), se(u), 1e-6)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_traces_with_fx(traced: None, squeeze: str) -> None:
    se = randomise(SqueezeExcitation(6, 2, squeeze=squeeze, gain=2.0))
    graph = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(se)))
    u = torch.randn(2, 6, 4, 5)
    assert torch.equal(graph(u), se(u))
    called = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    assert called == {"fc1", "activation", "fc2", "gate"}


def test_excite_calls_modules_so_that_hooks_see_them() -> None:
    se, seen = SqueezeExcitation(6, 2), []
    for name, module in se.named_children():
        module.register_forward_hook(lambda module, args, output, name=name: seen.append(name))
    se(torch.randn(2, 6, 4, 5))
    assert seen == ["fc1", "activation", "fc2", "gate"]


def test_shapes_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError, match="z"):
        SqueezeExcitation(8).excite(torch.ones(2, 8, dtype=torch.int64))


def test_gain_guards_a_checkpoint() -> None:
    plain, doubled = SqueezeExcitation(6, 2), SqueezeExcitation(6, 2, gain=2.0)
    assert "gain" not in plain.state_dict()
    with pytest.raises(RuntimeError, match=r'Missing key.*"gain"'):
        doubled.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"gain"'):
        plain.load_state_dict(doubled.state_dict())


def test_gain_on_the_meta_device() -> None:
    """It was known as a buffer alone, which has no value there, and memory that is not initialized after `to_empty`."""
    with torch.device("meta"):
        se = SqueezeExcitation(6, 2, gain=2.0)
    assert se.options["gain"] == 2.0
    assert "gain=2" in repr(se)
    assert SqueezeExcitation(**se.options).gain == 2.0
    assert copy.deepcopy(se).options["gain"] == 2.0
    assert copy.deepcopy(se).to_empty(device="cpu").gain == 2.0
    se.to_empty(device="cpu")
    se.gain.fill_(float("nan"))
    se.reset_parameters()
    assert se.gain == 2.0
    assert se.gain_value == 2.0


@pytest.mark.parametrize("assign", [False, True])
def test_gain_follows_what_is_loaded(assign: bool) -> None:
    other = SqueezeExcitation(6, 2, gain=-0.5)
    se = SqueezeExcitation(6, 2, gain=2.0)
    se.load_state_dict(other.state_dict(), assign=assign)
    for loaded in (se, copy.deepcopy(se), pickle.loads(pickle.dumps(se)), se.half(), se.double()):
        assert loaded.options["gain"] == loaded.gain == -0.5
    se.reset_parameters()
    assert se.gain == -0.5
    with torch.device("meta"):
        meta = SqueezeExcitation(6, 2, gain=2.0)
    meta.load_state_dict(other.state_dict(), assign=True)
    assert meta.options["gain"] == meta.gain == -0.5


def test_gain_of_a_block_in_an_old_pickle() -> None:
    """Where it was a buffer alone."""
    for gain in (1.0, 2.0):
        se = SqueezeExcitation(6, 2, gain=gain)
        se.__dict__.pop("_gain", None)
        se = pickle.loads(pickle.dumps(se))
        assert se.options["gain"] == gain
        se.reset_parameters()
        assert se.options["gain"] == gain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"squeeze": "average"}, "unknown squeeze 'average'; did you mean 'avg'"),
        ({"gate": "sigmod"}, "unknown gate 'sigmod'; did you mean 'sigmoid'"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"reduction": 0.5}, "reduction must be a finite number of 1 or more, got 0.5"),
        ({"reduction": float("nan")}, "reduction must be a finite number of 1 or more, got nan"),
        ({"channels": 0}, "channels must be 1 or more, got 0"),
        ({"hidden_channels": 0}, "hidden_channels must be 1 or more, got 0.*omit it"),
        ({"gain": 0.0}, "gain must be finite and not 0, got 0.0"),
        ({"gain": float("inf")}, "gain must be finite and not 0, got inf"),
    ],
)
def test_refuses_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SqueezeExcitation(**{"channels": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": "8"}, "channels must be an integer, got '8'"),
        ({"channels": 8.0}, "channels must be an integer, got 8.0"),
        ({"reduction": "16"}, "reduction must be a number, got '16'"),
        ({"hidden_channels": 2.5}, "hidden_channels must be an integer, got 2.5"),
        ({"bias": "no"}, "bias must be True or False, got 'no'"),
        ({"gain": "2"}, "gain must be a number, got '2'"),
    ],
)
def test_refuses_types(traced: None, options: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SqueezeExcitation(**{"channels": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8), r"with a spatial axis, got shape \(2, 8\)"),
        ((2, 4, 3, 3), r"expected 8 channels.*\(2, 4, 3, 3\).*with 4"),
    ],
)
def test_refuses_inputs(traced: None, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SqueezeExcitation(8)(torch.randn(shape))
