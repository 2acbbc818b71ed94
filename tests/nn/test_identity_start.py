"""An identity start learns: of SE at 400 seeds, every one has a gradient at `fc2.weight`, and then at `fc1`."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from senet import SqueezeExcitation, insert
from senet.nn.block import SQUEEZES
from tests.helpers import randomise
from tests.slow import fast_if


def biased(channels: int) -> nn.Module:
    bn = nn.BatchNorm2d(channels)
    nn.init.normal_(bn.bias, std=0.3)
    nn.init.uniform_(bn.weight, 0.5, 1.5)
    return bn


GATES = ("sigmoid", "hard_sigmoid", "relu")
# Modules at whose output SE acts.
ENDS = {
    "batch norm": nn.BatchNorm2d,
    "batch norm with bias": biased,
    "relu": lambda channels: nn.ReLU(),
    "group norm with bias": lambda channels: randomise_bias(nn.GroupNorm(4, channels)),
}


def randomise_bias(module: nn.Module) -> nn.Module:
    nn.init.normal_(module.bias, std=0.3)
    return module


def network(channels: int, end: str, **options: object) -> tuple[nn.Module, SqueezeExcitation]:
    model = nn.Sequential(nn.Conv2d(3, channels, 1, bias=False), ENDS[end](channels)).train()
    insert(model, at="1", example=torch.zeros(2, 3, 2, 2), **options)  # type: ignore[arg-type]
    return model, next(m for m in model.modules() if isinstance(m, SqueezeExcitation))


def learns(model: nn.Module, se: SqueezeExcitation, x: Tensor) -> tuple[bool, bool]:
    """Whether `fc2.weight` has a gradient at the first step, and `fc1.weight` at the second."""
    factor = torch.randn_like(model(x).detach())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (model(x) * factor).mean().backward()
    first = bool(se.fc2.weight.grad.any())
    optimizer.step()
    optimizer.zero_grad()
    (model(x) * factor).mean().backward()
    return first, bool(se.fc1.weight.grad.any())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("end", ENDS)
@fast_if(lambda channels, bias: (channels, bias) in [(16, True), (64, False)])
def test_every_block_learns(end: str, channels: int, bias: bool) -> None:
    for seed in range(25):  # the slow test has 400
        check_seed(seed, end, channels, bias=bias)


@pytest.mark.slow
@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize(("gate", "bias"), [(gate, bias) for gate in GATES for bias in (True, False)])
@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("end", ENDS)
def test_every_block_learns_whatever_its_options(end: str, channels: int, gate: str, bias: bool, squeeze: str) -> None:
    if gate == "relu" and not bias:
        pytest.skip("no identity start")
    options = {"gate": gate, "bias": bias, "squeeze": squeeze}
    found = [of_seed(seed, end, channels, **options) for seed in range(400)]
    if channels > 16 or bias:
        assert found == [(True, True)] * 400
    else:
        # Nothing but the signs of its weights opens a single unit without a bias. Behind a batch norm it is open at the
        # first step, and may be shut by the step of the norm's bias; behind a group norm it follows the data.
        assert found.count((True, True)) >= 398
        assert "batch norm" not in end or all(first for first, _ in found)


def check_seed(seed: int, end: str, channels: int, **options: object) -> None:
    assert of_seed(seed, end, channels, **options) == (True, True), seed


def of_seed(seed: int, end: str, channels: int, **options: object) -> tuple[bool, bool]:
    torch.manual_seed(seed)
    model, se = network(channels, end, **options)
    assert se.fc1.out_features == channels // 16
    assert torch.equal(se.excite(torch.randn(4, channels)), torch.ones(4, channels))
    return learns(model, se, torch.randn(2, 3, 3, 3))


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_two_units_are_open_for_every_input(sign: int) -> None:
    """Of any sign, as behind sums and convolutions; with biases for zero too."""
    for channels in (32, 64):
        _, se = network(channels, "relu")
        z = sign * torch.rand(50, channels) if sign else torch.randn(50, channels)
        z[0] = 0
        assert bool((se.fc1(z) > 0).any(1).all())
        _, without = network(channels, "relu", bias=False)
        assert bool((without.fc1(z[1:]) > 0).any(1).all())


def test_a_plain_checkpoint_that_is_loaded_later() -> None:
    """The batch norm's bias, and with it the squeeze's mean, is another then."""
    for seed in range(50):
        torch.manual_seed(seed)
        model, se = network(16, "batch norm", bias=False)
        bias = torch.randn(16)
        state = {f"1.{key}": value for key, value in biased(16).state_dict().items()} | {"1.bias": bias}
        model.load_state_dict(state, strict=False)
        assert bool((se.fc1.weight.sign() == bias.sign()).all())
        assert learns(model, se, torch.randn(2, 3, 3, 3)) == (True, True)
        nn.init.normal_(se.fc2.weight)  # trained
        before = se.fc1.weight.clone()
        model.load_state_dict(state | {"1.bias": -bias}, strict=False)
        assert torch.equal(se.fc1.weight, before)


@pytest.mark.parametrize("order", ["parents first", "children first", "as FSDP does"])
@pytest.mark.parametrize(("gate", "channels"), list(itertools.product(GATES, [16, 64])))
def test_comes_back_from_the_meta_device(gate: str, channels: int, order: str) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels), nn.Conv2d(channels, 3, 1), nn.ReLU())
    insert(model, at=["1", "3"], gate=gate, example=torch.zeros(1, 3, 2, 2, device="meta"))
    insert(model, "pre", at="2", gate=gate)
    modules = list(model.modules())
    if order == "as FSDP does":
        for module in modules:
            if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                module.to_empty(device="cpu", recurse=False)
                spoil(module)
                module.reset_parameters()
    else:
        model.to_empty(device="cpu")
        spoil(model)
        for module in modules if order == "parents first" else reversed(modules):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    blocks = [m for m in modules if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == 3
    for se in blocks:
        z = torch.randn(4, se.channels)
        assert torch.equal(se.excite(z), torch.ones(4, se.channels))
        se.excite(torch.rand(4, se.channels)).sum().backward()
        assert bool(se.fc2.weight.grad.any())


def spoil(module: nn.Module) -> None:
    """What memory that is not initialized may hold."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.detach().fill_(torch.tensor(float("nan")).to(tensor.dtype) if tensor.is_floating_point() else 7)


def test_the_papers_start_comes_back_too() -> None:
    with torch.device("meta"):
        se = SqueezeExcitation(64, gate="tanh")
    se.to_empty(device="cpu")
    for module in se.modules():
        if hasattr(module, "reset_parameters"):
            torch.manual_seed(0)
            module.reset_parameters()
    torch.manual_seed(0)
    assert torch.equal(se.fc1.weight, nn.init.kaiming_normal_(torch.empty(4, 64)))
    assert not se.fc1.bias.any()


def test_copies_reset_their_own_layers() -> None:
    se = SqueezeExcitation(16, gain=2.0)
    se.initialize_as_identity()
    other = randomise(copy.deepcopy(se))
    before = se.fc1.weight.clone()
    other.fc2.reset_parameters()
    other.fc1.reset_parameters()
    assert torch.equal(other.excite(torch.randn(2, 16)), torch.ones(2, 16))
    assert torch.equal(se.fc1.weight, before)
