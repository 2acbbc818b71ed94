"""Kinds of channel attention other than SE: values of timm's modules, and what holds for SE holds for them."""

import copy
from pathlib import Path

import pytest
import timm.layers
import torch
from torch import Tensor, nn

import senet
from senet.graph.se_modules import find_se, watch_gates
from senet.insertion.sites import PLACEMENTS
from senet.nn.attention import ATTENTIONS, ChannelConv
from senet.utils.choices import Attention
from senet.utils.errors import ModelFileError
from senet.weights.export import export_weights
from tests.helpers import assert_close, randomise, shallow_resnet20

THEIRS = {"eca": timm.layers.EcaModule, "ese": timm.layers.EffectiveSEModule}
KINDS = pytest.mark.parametrize("kind", list(THEIRS))


def pair(kind: Attention, channels: int) -> tuple[nn.Module, senet.SqueezeExcitation]:
    """Return timm's module with random weights, and ours with the same."""
    theirs = randomise(THEIRS[kind](channels)).double()
    ours = senet.SqueezeExcitation(channels, attention=kind).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_every_kind_has_a_reference() -> None:
    assert {*ATTENTIONS} == {"se", *THEIRS}


@KINDS
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 100, 512])
def test_values_are_those_of_timm(kind: Attention, channels: int) -> None:
    theirs, ours = pair(kind, channels)
    u = torch.randn(2, channels, 3, 5, dtype=torch.float64)
    assert_close(ours(u), theirs(u))


def test_ecas_filter_is_as_long_as_timms() -> None:
    channels = (*(2**n for n in range(13)), 24, 96, 144, 240, 672)
    lengths = [ChannelConv(count, bias=False).kernel_size for count in channels]
    assert lengths == [timm.layers.EcaModule(count).conv.kernel_size for count in channels]
    assert {*lengths} == {(3,), (5,), (7,)}


def test_concurrent_channel_se_is_se_with_half_of_the_channels() -> None:
    layers = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Sigmoid()]
    theirs = nn.Sequential(*layers).double()  # Roy et al. 2018, equations 2 and 3
    ours = senet.SqueezeExcitation(16, 2).double()
    ours.load_state_dict({f"fc{1 + int(k[0]) // 3}{k[1:]}": v for k, v in theirs.state_dict().items()})
    u = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    assert_close(ours(u), u * theirs(u))


@KINDS
def test_batch_norm_and_attention_in_training(kind: Attention) -> None:
    theirs, ours = pair(kind, 16)
    bn = randomise(nn.BatchNorm2d(16)).double()
    fused = senet.SEBatchNorm.from_batch_norm(copy.deepcopy(bn), ours)
    here, there = (torch.randn(4, 16, 5, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    there.data.copy_(here.data)
    grad = torch.randn(4, 16, 5, 3, dtype=torch.float64)
    out, expected = fused(here), theirs(bn(there))
    assert_close(out, expected)
    out.backward(grad)
    expected.backward(grad)
    assert here.grad is not None
    assert there.grad is not None
    assert_close(here.grad, there.grad, 1e-10)
    for p, q in zip(fused.parameters(), [*bn.parameters(), *theirs.parameters()], strict=True):
        assert_close(p.grad, q.grad.reshape(p.shape), 1e-10)


@KINDS
def test_windows_and_no_squeeze_gate_each_position(kind: Attention) -> None:
    _, ours = pair(kind, 16)
    u = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    positions = u.movedim(1, -1).reshape(-1, 16)
    expected = (positions * ours.excite(positions)).reshape(2, 4, 4, 16).movedim(-1, 1)
    ours.squeeze = "none"
    assert_close(ours(u), expected)
    ours.squeeze, ours.window = "avg", (1, 1)
    assert_close(ours.eval()(u), expected)


@KINDS
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_identity_keeps_every_bit_and_learns(kind: Attention, placement: str) -> None:
    with shallow_resnet20():
        plain = randomise(senet.create_model("resnet20")).eval()
    u = torch.randn(2, 3, 16, 16)
    expected = plain(u)
    model = senet.insert(copy.deepcopy(plain), placement, attention=kind)
    assert torch.equal(model(u), expected)
    model.train()
    model(u).square().sum().backward()
    weights = [p for name, p in model.named_parameters() if name.endswith("se.fc2.weight")]
    assert weights
    assert all(p.grad is not None and bool(p.grad.any()) for p in weights)
    assert senet.remove(model).state_dict().keys() == plain.state_dict().keys()


@KINDS
def test_a_model_file_has_the_attention(kind: Attention, tmp_path: Path) -> None:
    with shallow_resnet20():
        model = randomise(senet.create_model("se_resnet20", attention=kind)).eval()
        senet.save(model, tmp_path / "m.safetensors")
        loaded = senet.load(tmp_path / "m.safetensors").eval()
        weighted = senet.create_model("se_resnet20", weights=tmp_path / "m.safetensors").eval()
        with pytest.raises(ModelFileError, match=f"attention='{kind}', not attention='se'"):
            senet.create_model("se_resnet20", weights=tmp_path / "m.safetensors", attention="se")
    u = torch.randn(1, 3, 16, 16)
    for other in (loaded, weighted):
        assert torch.equal(other(u), model(u))


@KINDS
def test_tools_see_the_parts(kind: Attention) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    senet.insert(model, at="1", attention=kind, init="paper")
    (unit,) = find_se(model)
    assert (unit.channels, unit.hidden_channels, unit.reduce, unit.activation) == (16, None, None, None)
    seen: list[Tensor] = []
    with watch_gates(unit, seen.append):
        model.eval()(torch.randn(2, 3, 8, 8))
    assert seen[0].shape == (2, 16)
    assert senet.cost(model, (3, 8, 8)).se_params == {"eca": 3, "ese": 16 * 17}[kind]


@KINDS
def test_deployed(kind: Attention) -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())).eval()
    randomise(senet.insert(model, at="1", attention=kind))
    u = torch.randn(2, 3, 8, 8)
    assert_close(senet.deploy(model, u)(u), model(u), 1e-5)


def test_weights_of_timm_have_se_only() -> None:
    with pytest.raises(ModelFileError, match="SE with attention='se', and SE at layer1.0.bn2 has 'eca'"):
        export_weights(senet.create_model("se_resnet18", attention="eca", pool="pad"), "timm")


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"unknown attention 'ecca'; did you mean 'eca'"):
        senet.SqueezeExcitation(16, attention="ecca")  # type: ignore[arg-type]
    no_hidden = 'attention="eca" has no hidden layer, and '
    with pytest.raises(ValueError, match=f"{no_hidden}hidden_channels 4 has no effect"):
        senet.SqueezeExcitation(16, attention="eca", hidden_channels=4)
    with pytest.raises(ValueError, match=f"{no_hidden}reduction 8 has no effect"):
        senet.SqueezeExcitation(16, 8, attention="eca")
    with pytest.raises(ValueError, match=f'{no_hidden}reduction 8 .*omit it, or use attention="se"'):
        senet.insert(senet.create_model("resnet20"), attention="eca", reduction=8)
    with pytest.raises(ValueError, match="did you mean 'ese'"):
        senet.insert(senet.create_model("resnet20"), attention="esee")  # type: ignore[arg-type]
