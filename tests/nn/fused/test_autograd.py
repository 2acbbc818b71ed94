"""The whole operation in its corners, by a backend of PyTorch's own operations."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from senet import SEBatchNorm, SqueezeExcitation, freeze_batch_norm
from senet.nn.fused import autograd as whole
from senet.nn.fused.memory_format import dense
from senet.nn.fused.operations import like
from senet.nn.sum_relu import sum_relu
from tests.helpers import assert_close, noting, randomise
from tests.nn.fused.reference_backend import Reference
from tests.syncs import no_host_sync

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Reference:
    """What computes the whole operation on this CPU, as if it had been chosen by name."""
    made = Reference()
    monkeypatch.setattr(whole, "whole_backend", lambda y: made)
    monkeypatch.setattr(whole, "fused_choice", lambda: "triton")
    return made


def module(channels: int = 6, gain: float = 1.0, **options: Any) -> Any:
    """An SEBatchNorm with statistics as of a trained network."""
    return randomise(SEBatchNorm(channels, se=SqueezeExcitation(channels, 2, gain=gain), **options))


def parts(fused: SEBatchNorm) -> nn.Sequential:
    """A batch norm and SE of the same weights, and not the same parameters."""
    other = copy.deepcopy(fused)
    return nn.Sequential(other.to_batch_norm(), other.se)


def maps(*shape: int) -> Tensor:
    return torch.randn(*(shape or (3, 6, 5, 4)))


def test_gradients_only_where_required(backend: Reference) -> None:
    """The prototype computed all of them."""
    fused = module()
    names = ["weight", "bias", "se.fc1.weight", "se.fc1.bias", "se.fc2.weight", "se.fc2.bias"]
    for name in names:
        for parameter_name, parameter in fused.named_parameters():
            parameter.requires_grad_(parameter_name == name)
        other = parts(fused)
        y = maps()
        for network in (fused, other):
            network(y).square().sum().backward()
        needs = backend.needs.pop()
        assert [needs.weight, needs.bias, needs.w1, needs.b1, needs.w2, needs.b2] == [one == name for one in names]
        assert not needs.y
        assert not needs.skip
        for one, two in zip(fused.parameters(), other.parameters(), strict=True):
            assert (one.grad is None) == (two.grad is None)
            if one.grad is not None:
                assert_close(one.grad, two.grad, 1e-4)
                one.grad = None


def test_nothing_requires_gradients(backend: Reference) -> None:
    fused = module().requires_grad_(False)
    output = fused(maps())
    assert not output.requires_grad
    assert backend.calls == {"forward": 1}


@pytest.mark.parametrize("with_skip", [False, True])
@pytest.mark.parametrize("trained", [None, ("y",), ("se.fc2.bias",), ("weight", "skip")])
def test_gradients_of_gradients(backend: Reference, with_skip: bool, trained: tuple[str, ...] | None) -> None:
    """The prototype returned gradients without a graph."""
    fused = module()
    other = parts(fused)
    y, skip = maps(), maps()
    found = []
    for network in (fused, other):
        values = {
            "y": y.clone(),
            "skip": skip.clone(),
            **{k.replace("1.", "se."): p for k, p in network.named_parameters()},
        }
        values = {key.removeprefix("0.").replace("se.fcse.", "se.fc1."): value for key, value in values.items()}
        inputs = [x.requires_grad_(trained is None or key in trained) for key, x in values.items()]
        inputs = [x for x in inputs if x.requires_grad and (with_skip or x is not values["skip"])]
        if network is fused:
            out = sum_relu(fused, values["y"], values["skip"]) if with_skip else fused(values["y"])
        else:
            out = (other(values["y"]) + values["skip"]).relu() if with_skip else other(values["y"])
        assert out is not None
        first = torch.autograd.grad((out + 1).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs, allow_unused=True)
        found.append([g.detach() for g in (*first, *second) if g is not None])
    assert backend.calls["forward"] == 1
    for one, two in zip(*found, strict=True):
        assert_close(one, two, 2e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # PyTorch's own use
def test_gradients_in_batches(backend: Reference) -> None:
    fused = module()
    other = parts(fused)
    y = maps(3, 6, 2, 2).requires_grad_()
    rows = torch.eye(y.numel()).reshape(-1, *y.shape)
    found = [torch.autograd.grad(one(y), y, rows, is_grads_batched=True)[0] for one in (fused, other)]
    assert_close(found[0], found[1], 1e-4)
    assert backend.calls == {"forward": 1}  # kernels would read one gradient


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_count_as_changed(backend: Reference, momentum: float | None) -> None:
    """The prototype changed them without a version, so that autograd used what was no longer there."""
    fused = module(momentum=momentum)
    versions = {name: x._version for name, x in fused.named_buffers(recurse=False)}
    saved = (maps(1, 6, 1, 1).requires_grad_() * fused.running_mean.reshape(1, 6, 1, 1)).sum()
    fused(maps())
    for name, x in fused.named_buffers(recurse=False):
        assert x._version > versions[name], name
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()


def test_a_parameter_changed_before_backward_is_refused(backend: Reference) -> None:
    fused = module()
    output = fused(maps())
    with torch.no_grad():
        fused.se.fc2.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_no_step_waits_for_the_device(
    backend: Reference, momentum: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cumulative average read the count of batches on the host."""
    monkeypatch.setattr(backend, "forward", lambda y, *rest: (y.clone(), y.new_empty(3)))
    monkeypatch.setattr(backend, "backward", lambda g, *rest: (g, *[None] * 7))
    monkeypatch.setattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)  # the watch itself is a dispatch mode
    fused = module(momentum=momentum, gain=2.0)
    y = maps().requires_grad_()
    with no_host_sync():
        output = fused(y)
        output.sum().backward()
    assert torch.equal(output, y)  # of the stand-ins: it was they that computed
    assert torch.equal(y.grad, torch.ones_like(y))


@pytest.mark.parametrize(
    "change",
    [
        lambda se: se.load_state_dict({**se.state_dict(), "gain": torch.tensor(3.0)}),
        lambda se: se.gain.fill_(3.0),
        lambda se: se.register_buffer("gain", torch.tensor(3.0)),
    ],
    ids=["loaded", "in place", "replaced"],
)
def test_the_gain_follows_its_buffer(backend: Reference, change: Any) -> None:
    """The prototype kept the first."""
    fused = module(gain=2.0)
    y = maps()
    fused(y)
    change(fused.se)
    assert fused.se.gain_value == 3
    assert_close(fused(y), parts(fused)(y), 1e-5)
    assert backend.calls["forward"] == 2
    again = copy.deepcopy(fused)
    again.se.gain.fill_(0.5)
    assert_close(again(y), parts(again)(y), 1e-5)


def test_a_gain_that_is_copied_every_step_is_read_once(backend: Reference) -> None:
    """As DistributedDataParallel copies buffers: reading it would wait for the device in every block and step."""
    fused = module(gain=2.0)
    fused(maps())
    for step in range(3):
        fused.se.gain.copy_(fused.se.gain.clone())
        if step == 0:
            assert fused.se.gain_value == 2
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "__float__", lambda x: pytest.fail("read again"))
            fused(maps())


@pytest.mark.parametrize(
    "change",
    [
        lambda se: se.fc1.register_forward_hook(lambda module, args, output: 2 * output),
        lambda se: se.fc2.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
        lambda se: se.gate.register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],)),
        lambda se: se.activation.register_full_backward_pre_hook(lambda module, grad_out: (2 * grad_out[0],)),
        lambda se: parametrize.register_parametrization(se.fc1, "weight", nn.Sequential(nn.Tanh())),
        lambda se: nn.utils.parametrizations.weight_norm(se.fc2),
        lambda se: setattr(se.fc1, "forward", lambda z: 2 * nn.Linear.forward(se.fc1, z)),
        lambda se: setattr(se, "fc2", nn.Sequential(se.fc2, nn.Dropout(0.0))),
        lambda se: setattr(se, "gate", nn.Softsign()),
        lambda se: setattr(se, "activation", nn.Mish()),
        lambda se: setattr(se, "activation", nn.LeakyReLU(0.3)),
        lambda se: setattr(se, "squeeze", "max"),
    ],
    ids=["hook", "pre-hook", "backward hook", "backward pre-hook", "parametrized", "weight norm", "forward",
         "adapter", "gate", "activation", "slope", "maximum"],
)  # fmt: skip
def test_the_general_path_calls_what_is_inside_a_block(backend: Reference, change: Any) -> None:
    fused = module()
    change(fused.se)
    other = parts(fused) if "forward" not in fused.se.fc1.__dict__ else None
    if other is None:  # a method of the instance is not copied with it
        other = parts(module())
        other.load_state_dict(parts_state(fused))
        change(other[1])
    y = maps()
    inputs = [y.clone().requires_grad_() for _ in range(2)]
    outputs = [network(x) for network, x in zip((fused, other), inputs, strict=True)]
    for output in outputs:
        output.square().sum().backward()
    assert not backend.calls
    assert_close(outputs[0], outputs[1], 1e-5)
    assert_close(inputs[0].grad, inputs[1].grad, 1e-4)
    for one, two in zip(fused.parameters(), other.parameters(), strict=True):
        assert_close(one.grad, two.grad, 1e-4)


def parts_state(fused: SEBatchNorm) -> dict[str, Tensor]:
    state = fused.state_dict()
    return {("1." + key[3:] if key.startswith("se.") else "0." + key): value for key, value in state.items()}


@pytest.mark.parametrize("name", ["forward", "excite"])
def test_a_method_of_the_block_itself_is_obeyed(backend: Reference, name: str) -> None:
    """As libraries that move weights set it."""
    fused = module()
    y = maps()
    bn = copy.deepcopy(fused.to_batch_norm())
    setattr(fused.se, name, (lambda u: 3 * u) if name == "forward" else (lambda z: 3 * torch.ones_like(z)))
    assert_close(fused(y), 3 * bn(y), 1e-6)
    assert not backend.calls


def test_a_hook_on_every_module_sees_those_inside(backend: Reference) -> None:
    fused, seen = module(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(type(module)))
    try:
        fused(maps())
    finally:
        handle.remove()
    assert {nn.Linear, nn.ReLU, nn.Sigmoid} <= set(seen)
    assert not backend.calls


@pytest.mark.parametrize("what", ["float64 maps", "float64 weight", "wide", "subclass"])
def test_the_general_path_takes_what_kernels_cannot(backend: Reference, what: str) -> None:
    fused, y = module(), maps()
    expected = parts(fused).double()(y.double())
    if what == "float64 maps":
        fused, y = fused.double(), y.double()
    elif what == "float64 weight":
        fused.weight = nn.Parameter(fused.weight.double())
    elif what == "wide":
        backend.most = 2
    else:
        weight = fused.se.fc1.weight.detach().as_subclass(type("Other", (Tensor,), {}))
        fused.se.fc1.weight = nn.Parameter(weight)
    assert_close(fused(y).as_subclass(Tensor).double(), expected, 1e-5)
    assert not backend.calls


def test_weights_of_another_shape_are_refused(backend: Reference) -> None:
    """By the layer; a kernel would read memory that is not theirs."""
    fused = module()
    fused.se.fc2.weight = nn.Parameter(torch.randn(6, 1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fused(maps())
    assert not backend.calls


def test_weights_with_gaps(backend: Reference) -> None:
    """The prototype read them as if they had none."""
    fused = module()
    for layer in (fused.se.fc1, fused.se.fc2):
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
        assert not layer.weight.is_contiguous()
    fused.weight = nn.Parameter(torch.randn(6, 2)[:, 0])
    other = parts(fused)
    y = maps()
    for network in (fused, other):
        network(y).square().sum().backward()
    for one, two in zip(fused.parameters(), other.parameters(), strict=True):
        assert_close(one.grad, two.grad, 1e-4)
    assert not backend.calls


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 6, 1, 1), (1, 6, 4, 4), (3, 6, 4, 1), (1, 6, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_no_copy_where_strides_differ_on_axes_of_length_1(
    backend: Reference, shape: tuple[int, ...], last: bool
) -> None:
    """The prototype compared strides."""
    formats = (torch.contiguous_format, torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    y, skip, g = (maps(*shape).contiguous(memory_format=formats[last]) for _ in range(3))
    strides = [1000 if n == 1 else s for n, s in zip(shape, y.stride(), strict=True)]
    skip, g = (x.as_strided(shape, strides) for x in (skip, g))
    assert like(skip, y) is skip
    for memory_format in formats:
        other = y.contiguous(memory_format=memory_format)
        if y.is_contiguous() and y.is_contiguous(memory_format=formats[1]):
            assert like(other, y).data_ptr() == other.data_ptr()
    if len(shape) == 4 and skip.shape[1] > 1:
        fused = module()
        out = sum_relu(fused, y, skip)
        assert out is not None
        assert backend.maps[1].data_ptr() == skip.data_ptr()
        out.backward(g)
        assert backend.maps[0].data_ptr() == g.data_ptr()


@pytest.mark.parametrize("dims", [4, 5])
def test_maps_of_other_layouts_are_copied(backend: Reference, dims: int) -> None:
    """Skip and gradient in the layout of y; y where it has gaps. The prototype refused channels_last_3d."""
    last = torch.channels_last if dims == 4 else torch.channels_last_3d
    fused = module(dim=dims - 2)
    other = parts(fused)
    for y in (
        maps(3, 6, 5, 4, 2, 2)[..., 0] if dims == 5 else maps(3, 6, 5, 4, 2)[..., 0],
        maps(3, 6, *[3] * (dims - 2)),
    ):
        for memory_format in (torch.contiguous_format, last):
            x = y.contiguous(memory_format=memory_format) if y.is_contiguous() else y
            inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2)]
            outputs = [network(one) for network, one in zip((fused, other), inputs, strict=True)]
            assert_close(outputs[0], outputs[1], 1e-5)
            g = torch.randn_like(y).contiguous(memory_format=last).expand_as(y)
            for output in outputs:
                output.backward(g)
            assert_close(inputs[0].grad, inputs[1].grad, 1e-4)
            found = backend.maps
            assert all(one.stride() == found[1].stride() for one in found)
            assert dense(found[1]) is found[1]
    expanded = maps(3, 6, *[3] * (dims - 2)).requires_grad_()
    fused(expanded).sum().backward()  # whose gradient is one number, expanded
    assert backend.maps[0].is_contiguous()


@pytest.mark.parametrize("dims", [3, 4, 5])
@pytest.mark.parametrize("training", [True, False])
def test_a_skip_of_another_layout_is_copied(backend: Reference, dims: int, training: bool) -> None:
    """Kernels read all maps at the offsets of y: with a graph being recorded, too."""
    fused = module(dim=dims - 2).train(training)
    other = parts(fused)
    y = maps(3, 6, *[3] * (dims - 2))
    formats = [torch.contiguous_format, {4: torch.channels_last, 5: torch.channels_last_3d}.get(dims)]
    layouts = [y.contiguous(memory_format=x) for x in formats if x is not None]
    layouts.append(y.transpose(0, -1).contiguous().transpose(0, -1))
    for x in layouts:
        for skip in layouts:
            a, b = (t.detach().clone(memory_format=torch.preserve_format).requires_grad_(training) for t in (x, skip))
            with torch.set_grad_enabled(training):
                out = sum_relu(fused, a, b)
                expected = (other(x) + skip).relu()
            assert out is not None
            assert_close(out, expected, 1e-5)
            assert backend.maps[0].stride() == backend.maps[1].stride()
            if training:
                out.sum().backward()
                assert_close(b.grad, (expected > 0).to(y.dtype), 1e-6)


def test_a_skip_of_another_dtype_is_promoted(backend: Reference) -> None:
    """The prototype wrote the sum in y's dtype."""
    fused = module()
    y, skip = maps().bfloat16(), maps()
    assert sum_relu(fused, y, skip) is None  # the unit adds it, as PyTorch does
    output = (fused(y) + skip).relu()
    assert output.dtype == torch.float32
    assert_close(output, (parts(fused).double()(y.double()) + skip).relu().float(), 2e-2)


@pytest.mark.parametrize("shape", [(0, 6, 5, 4), (3, 6, 0, 4)])
def test_nothing_at_all(backend: Reference, shape: tuple[int, ...]) -> None:
    y = maps(*shape).requires_grad_()
    module()(y).sum().backward()
    assert y.grad is not None
    assert y.grad.shape == shape
    assert not backend.calls


def test_one_value_for_each_channel(backend: Reference) -> None:
    with pytest.raises(ValueError, match=r"expected more than 1 value per channel when training, got .*\(1, 6, 1, 1\)"):
        module()(maps(1, 6, 1, 1))
    assert not backend.calls


def test_frozen_statistics_still_train_se(backend: Reference) -> None:
    """Statistics that are not the batch's are PyTorch's own batch norm."""
    fused = module()
    freeze_batch_norm(fused)
    other = parts(fused.eval())
    y = maps()
    for network in (fused.train(), other):
        network(y).square().sum().backward()
    assert not backend.calls
    assert fused.weight.grad is None
    for one, two in zip(fused.se.parameters(), other[1].parameters(), strict=True):
        assert float(one.grad.abs().sum()) > 0
        assert_close(one.grad, two.grad, 1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(backend: Reference, reentrant: bool) -> None:
    plain = module(momentum=0.0)
    again = copy.deepcopy(plain)
    y, skip = maps(), maps()
    inputs = [y.clone().requires_grad_() for _ in range(2)]
    outputs = [
        sum_relu(plain, inputs[0], skip),
        checkpoint(lambda x: sum_relu(again, x, skip), inputs[1], use_reentrant=reentrant),
    ]
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(*outputs)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_backward_twice_and_accumulated(backend: Reference) -> None:
    fused = module()
    other = parts(fused)
    y = maps()
    gradients = []
    for network in (fused, other):
        x = y.clone().requires_grad_()
        loss = network(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        network(2 * x).sum().backward()
        gradients.append([x.grad, *[parameter.grad for parameter in network.parameters()]])
    for one, two in zip(*gradients, strict=True):
        assert_close(one, two, 1e-4)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_under_autocast_gradients_of_se_stay_exact(backend: Reference) -> None:
    """PyTorch computes the excitation's layers in half precision there."""
    fused = module(32)
    other, exact = parts(fused), parts(fused).double()
    y = maps(8, 32, 6, 6).bfloat16()
    errors = []
    for network in (fused, other):
        with torch.autocast("cpu", torch.bfloat16):
            output = network(y)
        assert output.dtype == torch.bfloat16
        output.backward(torch.ones_like(output))
    exact(y.double()).sum().backward()
    for network in (fused.se, other[1]):
        pairs = zip(network.parameters(), exact[1].parameters(), strict=True)
        errors.append(max(float((a.grad - b.grad).norm() / b.grad.norm()) for a, b in pairs))
    assert errors[0] < 1e-5 < 1e-3 < errors[1]


def test_grad_scaler(backend: Reference) -> None:
    fused = module()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(fused.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in fused.parameters()]
    with torch.autocast("cpu", torch.float16):
        loss = fused(maps().half()).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert all(parameter.isfinite().all() for parameter in fused.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, fused.parameters(), strict=True))
    assert backend.calls == {"forward": 1, "backward": 1}


def test_saved_values(backend: Reference) -> None:
    """Saved are y, the output of a ReLU, parameters, and one buffer; any other output may be changed in place."""
    fused = module()
    y, skip = maps().requires_grad_(), maps()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(noting(saved, lambda x: x, lambda x: x), lambda x: x):
        out = fused(1 * y)
        assert sum(x.shape == y.shape for x in saved) == 1
        assert len(saved) == 8
        saved.clear()
        assert sum_relu(fused, 1 * y, skip) is not None
        assert sum(x.shape == y.shape for x in saved) == 2
    out.relu_().sum().backward()
    with torch.autograd.graph.save_on_cpu():
        fused(1 * y).sum().backward()


def test_transforms_and_dispatch_modes_see_the_parts(backend: Reference) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    fused = module(track_running_stats=False)
    y = maps()
    found = [torch.func.grad(lambda x, m=network: m(x).square().sum())(y) for network in (fused, parts(fused))]
    assert_close(found[0], found[1], 1e-4)
    with FlopCounterMode(display=False) as counter:
        fused(y)
    assert counter.get_total_flops() > 0
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert fused(mode.from_tensor(y)).shape == y.shape
    assert not backend.calls


def test_swapped_parameters_are_read(backend: Reference) -> None:
    fused = module()
    y = maps()
    weight = torch.randn(6, 3, requires_grad=True)
    output = torch.func.functional_call(fused, {"se.fc2.weight": weight}, (y,))
    expected = torch.func.functional_call(parts(fused), {"1.fc2.weight": weight}, (y,))
    assert_close(output, expected, 1e-5)
    found = [torch.autograd.grad(x.square().sum(), weight)[0] for x in (output, expected)]
    assert_close(found[0], found[1], 1e-4)
    assert backend.calls == {"forward": 1, "backward": 1}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_evaluation(backend: Reference, grad: bool, skip: bool) -> None:
    fused = module().eval()
    other = parts(fused)
    y, more = maps(), maps()
    with torch.set_grad_enabled(grad):
        found = sum_relu(fused, y, more) if skip else fused(y)
        expected = (other(y) + more).relu() if skip else other(y)
    assert_close(found, expected, 1e-5)
    assert backend.calls == ({} if grad else {"evaluate": 1})
    fused.se.fc1.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        assert_close(sum_relu(fused, y, more) if skip else fused(y), expected, 1e-5)
    assert backend.calls["evaluate"] == (not grad)


@pytest.mark.parametrize(("gate", "gain"), [("sigmoid", 2.0), ("hard_sigmoid", 2.0), ("relu", 1.0)])
def test_evaluation_keeps_the_bits_of_an_identity_start(backend: Reference, gate: str, gain: float) -> None:
    """While every gate is 1, it is PyTorch's batch norm; the last layer is read once, until it changes."""
    se = SqueezeExcitation(6, 2, gate=gate, gain=gain)
    se.initialize_as_identity()
    bn = randomise(nn.BatchNorm2d(6)).eval()
    fused = SEBatchNorm.from_batch_norm(bn, se)
    y, skip = maps(), maps()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(fused(y), bn(y))
            assert torch.equal(sum_relu(fused, y, skip), (bn(y) + skip).relu())  # type: ignore[arg-type]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Tensor, "all", lambda x: pytest.fail("read again"))
                fused(y)
        assert not backend.calls
        loaded = SEBatchNorm.from_batch_norm(bn, SqueezeExcitation(6, 2, gate=gate, gain=gain)).eval()
        loaded.load_state_dict(fused.state_dict())
        assert torch.equal(loaded(y), bn(y))
        se.fc2.weight[0, 0] = 1
        assert not torch.equal(fused(y), bn(y))
        assert backend.calls == {"evaluate": 1}
        se.fc2.weight.zero_()
        assert torch.equal(fused(y), bn(y))
    with torch.inference_mode():
        other = copy.deepcopy(fused)
        assert torch.equal(other(y), bn(y))


def test_training_in_inference_mode(backend: Reference) -> None:
    fused = module(gain=2.0)
    other = parts(fused)
    y = maps()
    with torch.inference_mode():
        assert_close(fused(y), other(y), 1e-5)
    assert_close(fused.running_var, other[0].running_var, 1e-5)


def test_plain_batch_norm_only_by_name(backend: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second baseline of benchmarks: sum and ReLU in batch norm's pass, without SE."""
    bn = randomise(nn.BatchNorm2d(6))
    other = copy.deepcopy(bn)
    y, skip = maps(), maps()
    assert_close(sum_relu(bn, y, skip), (other(y) + skip).relu(), 1e-5)  # type: ignore[arg-type]
    assert backend.calls == {"forward": 1}
    assert int(bn.num_batches_tracked) == 1
    monkeypatch.setattr(whole, "fused_choice", lambda: "auto")
    assert torch.equal(sum_relu(bn, y, skip), (other(y) + skip).relu())  # type: ignore[arg-type]
    assert backend.calls == {"forward": 1}
