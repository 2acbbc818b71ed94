"""Constants in place of gates, against networks computed by hand."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

import senet
from senet.gates.diagnosis.gate_overrides import GateOverrides, override_gates
from senet.graph.se_modules import find_se, watch_gates
from senet.insertion.sites import PLACEMENTS
from tests.helpers import assert_close, randomise
from tests.se_by_hand import FORMS, Net


def _constants(model: nn.Module) -> dict[str, torch.Tensor]:
    return {unit.name: torch.rand(unit.channels, dtype=torch.float64) + 0.1 for unit in find_se(model)}


@pytest.mark.parametrize("squeeze", ["avg", "max", "none", "max over windows"])
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_block(squeeze: str, gain: float) -> None:
    """A block of ours scales by the constants, and as before afterwards."""
    how, _, windows = squeeze.partition(" ")
    block = senet.SqueezeExcitation(6, 2, squeeze=how, gain=gain, window=(3, 2) if windows else None)
    model = nn.Sequential(block).double().eval()
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    before, values = model(x), torch.randn(6, dtype=torch.float64)
    with override_gates(model, {"0": values}):
        assert_close(model(x), x * values[:, None, None])
    assert torch.equal(model(x), before)
    assert not model[0].gate._forward_hooks


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.layers.SEModule(32),
        lambda: timm.layers.EffectiveSEModule(32),
        lambda: timm.layers.squeeze_excite.SqueezeExciteCl(32),
        lambda: timm.models._efficientnet_blocks.SqueezeExcite(32),
        lambda: torchvision.ops.SqueezeExcitation(32, 8),
    ],
)
def test_other_libraries(build: object) -> None:
    """Theirs scale by the constants too, wherever the channels are."""
    model = nn.Sequential(build()).double()  # type: ignore[operator]
    last = isinstance(model[0], timm.layers.squeeze_excite.SqueezeExciteCl)
    x, values = torch.randn(2, 5, 5, 32, dtype=torch.float64), torch.rand(32, dtype=torch.float64)
    with override_gates(model, {"0": values}):
        actual = model(x if last else x.movedim(-1, 1))
    assert_close(actual if last else actual.movedim(1, -1), x * values)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placements(placement: str) -> None:
    """Gates of 1 everywhere give the plain network, wherever SE stands."""
    model = randomise(torchvision.models.resnet18(num_classes=5))
    senet.insert(model, placement=placement, init="paper")
    values = {unit.name: torch.ones(unit.channels) for unit in find_se(model)}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        with override_gates(model.double().eval(), values):
            actual = model(x)
        different = model(x)
        senet.remove(model)
        expected = model(x)
    assert_close(actual, expected)
    assert (different - expected).abs().max() > 1e-6


def test_only_those_named() -> None:
    """Gates of other blocks are computed; a hook that comes later sees the constant."""
    model = senet.create_model("se_resnet20", num_classes=4).eval()
    units = find_se(model)
    values = torch.rand(units[3].channels)
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), override_gates(model, {units[3].name: values}):
        handles = [watch_gates(unit, partial(seen.__setitem__, unit.name)) for unit in units[2:5]]
        model(torch.randn(2, 3, 32, 32))
        for handle in handles:
            handle.remove()
    assert_close(seen[units[3].name], values.expand(2, -1), 1e-7)
    assert (seen[units[2].name][0] != seen[units[2].name][1]).any()


def test_changes_as_it_runs() -> None:
    """What is active may change while the hooks stand."""
    model = nn.Sequential(senet.SqueezeExcitation(4, 2), senet.SqueezeExcitation(4, 2)).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    constants = _constants(model)
    overrides, plain = GateOverrides(model, constants), model(x)
    with overrides.attached():
        assert torch.equal(model(x), plain)
        overrides.active = ["1"]
        assert_close(model(x), model[0](x) * constants["1"][:, None, None])
        overrides.active = ["0", "1"]
        assert_close(model(x), x * (constants["0"] * constants["1"])[:, None, None])


def test_gone_after_an_error() -> None:
    """The network is as before even where it fails inside."""
    model = nn.Sequential(senet.SqueezeExcitation(4, 2))
    with pytest.raises(ValueError, match="channels"), override_gates(model, {"0": torch.ones(4)}):
        model(torch.randn(2, 5, 3, 3))
    assert not model[0].gate._forward_hooks


def test_bad_values() -> None:
    """Names, numbers and values that cannot be, before anything is hooked."""
    model = nn.Sequential(senet.SqueezeExcitation(4, 2))
    for values, message in (
        ({"1": torch.ones(4)}, "unknown SE module '1'.*0"),
        ({"0": torch.ones(5)}, "expected 4 finite gates for '0', one for each channel, got 5 of shape"),
        ({"0": torch.ones(4, 1)}, "got 4 of shape"),
        ({"0": torch.tensor([1.0, 1, 1, torch.nan])}, "finite"),
    ):
        with pytest.raises(ValueError, match=message), override_gates(model, values):
            pass
    assert not model[0].gate._forward_hooks


@pytest.mark.parametrize("name", FORMS)
def test_se_written_by_hand(name: str) -> None:
    build, form, unit = FORMS[name]
    model = randomise(Net(build())).double().eval()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    values = torch.rand(16, dtype=torch.float64) + 0.5
    before = model(x)
    seen: list[torch.Tensor] = []
    with override_gates(model, {unit: values}):
        handle = model.block.register_forward_hook(lambda module, args, output: seen.extend((args[0], output)))
        model(x)
        handle.remove()
    taken, given = seen
    scaled = taken if form != "gate" else model.block.conv(taken)
    scaled = model.block.map(taken) if name == "inline" else scaled
    expected = scaled * values[:, None, None]
    if name == "inline":
        expected = torch.relu(taken + expected)
    elif form == "gate" or name == "residual":
        expected = taken + expected
    assert_close(given, expected)
    assert torch.equal(model(x), before)
