"""What tools that rewrite networks do to SE: one scenario for each row of the table in docs/insertion.md."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.layers
import torch
import torch.ao.quantization as quantization
from timm.models.byobnet import ByobNet, model_cfgs
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import convert_fx, fuse_fx, prepare_fx, prepare_qat_fx
from torch.fx.experimental.optimization import fuse, optimize_for_inference, remove_dropout
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval, parametrizations

import senet
from senet import SEBatchNorm, SqueezeExcitation, insert
from senet.graph.se_modules import find_se
from senet.insertion.insert import place
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, randomise
from tests.slow import fast_if

pytestmark = [
    pytest.mark.usefixtures("traced"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]
X = (2, 3, 12, 12)
SITES = [("1", "standard"), ("0", "standard"), ("0", "pre"), ("1", "pre"), ("2", "standard"), ("4", "standard")]
SITE = pytest.mark.parametrize(("at", "placement"), SITES)
REFUSES = "this batch norm holds SE, which folding its statistics into a convolution would drop"


def network(at: str, placement: str = "standard", bias: bool = False) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(8, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    randomise(model).eval()
    how = "input" if placement == "pre" else "batch_norm" if at == "1" else "output"
    channels = {"0": 3, "1": 8}[at] if placement == "pre" else {"4": 6}.get(at, 8)
    place(model, at, how, placement, SqueezeExcitation(channels, 2))
    return model


def check_kept(model: nn.Module, other: Callable[[Tensor], Tensor], relative: float = 1e-5) -> None:
    """A rewritten network computes what the one with SE computes, and SE is in it."""
    x = torch.randn(X)
    assert_close(other(x), model(x), relative)
    assert len(find_se(other)) == len(find_se(model)) == 1  # type: ignore[arg-type]
    # SE acts: other gates, another output.
    se = find_se(other)[0].module  # type: ignore[arg-type]
    before = other(x)
    handle = se.gate.register_forward_hook(lambda module, args, output: 3 * output)
    assert not torch.allclose(other(x), before)
    handle.remove()


@SITE
@fast_if(lambda at, placement: at == "1")
def test_compiled_before_insertion(at: str, placement: str) -> None:
    model, x = network(at, placement), torch.randn(X)
    se = find_inserted_se(model)[0]
    senet.remove(model)
    compiled = torch.compile(model, backend="eager")
    copied = copy.deepcopy(model)
    copied.compile(backend="eager")
    before = model(x)
    for changed, run in ((model, compiled), (copied, copied)):
        assert_close(run(x), before, 1e-6)
        place(changed, se.name, se.how, se.child, se.se)
        assert not torch.allclose(changed.forward(x), before)
        assert_close(run(x), changed.forward(x), 1e-6)
        senet.remove(changed)
        assert_close(run(x), before, 1e-6)


@SITE
def test_symbolic_trace(at: str, placement: str) -> None:
    model, x = network(at, placement), torch.randn(X)
    expected = model(x)
    graph = torch.fx.symbolic_trace(model)
    graph.delete_all_unused_submodules()
    assert_close(model(x), expected)
    model[3].p = 0.0
    for mode in (True, False):
        state = copy.deepcopy(model.state_dict())
        theirs = model.train(mode)(x)
        model.load_state_dict(state)
        assert_close(graph.train(mode)(x), theirs)
    check_kept(copy.deepcopy(model), graph)


@SITE
def test_fx_fusers(at: str, placement: str) -> None:
    model = network(at, placement)
    for tool in (fuse, fuse_fx, lambda m: optimize_for_inference(copy.deepcopy(m))):
        check_kept(model, tool(copy.deepcopy(model)))


def test_dropout_that_is_removed() -> None:
    for tool in (remove_dropout, optimize_for_inference):
        assert find_se(tool(network("3"))) == []


@SITE
def test_fx_quantizers(at: str, placement: str) -> None:
    model, x = network(at, placement), torch.randn(X)
    prepared = prepare_fx(copy.deepcopy(model), quantization.get_default_qconfig_mapping("fbgemm"), (x,))
    prepared(x)
    check_kept(model, convert_fx(prepared), 0.1)
    mapping = quantization.get_default_qat_qconfig_mapping("fbgemm")
    prepared = prepare_qat_fx(copy.deepcopy(model).train(), mapping, (x,))
    prepared(x).sum().backward()
    converted = convert_fx(prepared.eval())
    assert converted(x).shape == (2, 4)
    assert len(find_se(converted)) == 1
    assert all(type(unit.reduce) is nn.Linear for unit in find_se(converted))


@pytest.mark.parametrize(("at", "placement"), SITES[:4])
def test_fuse_modules(at: str, placement: str) -> None:
    with pytest.raises((AssertionError, NotImplementedError), match="SEBatchNorm|Recalibrated"):
        quantization.fuse_modules(network(at, placement), [["0", "1"]])


@SITE
def test_quantize_dynamic(at: str, placement: str) -> None:
    model = network(at, placement)
    check_kept(model, quantization.quantize_dynamic(model, {nn.Linear}), 0.05)


def folded(model: Any) -> nn.Module:
    return fuse_conv_bn_eval(model[0], model[1])


@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_folding_a_batch_norm_with_se(placement: str) -> None:
    model = network("1", placement)
    bn: Any = model[1]
    with pytest.raises(ValueError, match=REFUSES):
        folded(model)
    linear = randomise(nn.Sequential(nn.Linear(4, 8))).eval()
    with pytest.raises(ValueError, match=REFUSES):
        fuse_linear_bn_eval(linear[0], bn)
    for fold in (
        lambda: bn.weight / torch.sqrt(bn.eps + bn.running_var),
        lambda: bn.weight / (bn.running_var + bn.eps).sqrt(),
        lambda: torch.add(bn.running_var, bn.eps),
        lambda: bn.running_var.numpy() + bn.eps,
        lambda: nn.BatchNorm2d(8, eps=bn.eps).eval()(torch.randn(1, 8, 2, 2)),
        lambda: timm.layers.FrozenBatchNormAct2d(8, eps=bn.eps).eval()(torch.randn(1, 8, 2, 2)),
    ):
        with pytest.raises(ValueError, match=REFUSES):
            fold()


@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_reading_a_batch_norm_with_se(placement: str) -> None:
    bn: Any = network("1", placement)[1]
    eps = bn.eps
    assert eps == 1e-5 == float(eps)
    assert (repr(eps), f"{eps:.0e}", hash(eps), bool(eps)) == ("1e-05", "1e-05", hash(1e-5), True)
    assert eps * 2 == 2 * eps == 2e-5
    assert eps < 1e-4 < 1 - eps
    assert type(copy.deepcopy(eps)) is float
    assert "eps=1e-05" in repr(bn)
    bn.eps = 1e-3
    assert bn.eps == 1e-3
    assert_close(bn.running_var.sqrt(), bn.state_dict()["running_var"].sqrt())
    assert type(senet.remove(nn.Sequential(bn))[0].eps) is float


def test_folding_into_a_convolution_with_se_at_its_input() -> None:
    model, x = network("0", "pre"), torch.randn(X)
    fused = folded(model)
    assert_close(fused(x), model[1](model[0](x)), 1e-5)
    assert len(find_se(fused)) == 1


def test_folding_into_a_convolution_with_se_at_its_output() -> None:
    model, x = network("0"), torch.randn(X)
    with pytest.raises(
        ValueError, match="output of this Conv2d without bias.*precede SE: insert SE at that batch norm"
    ):
        folded(model)
    with pytest.raises(ValueError, match="precede SE"):
        model[0].register_parameter("bias", nn.Parameter(torch.zeros(8)))
    model = network("0", bias=True)
    fused = folded(model)
    assert len(find_se(fused)) == 1
    assert not torch.allclose(fused(x), model[1](model[0](x)))


class ConvBlock(nn.Module):
    """A detector's block, which fuses itself and then has another forward."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


def fold_by_hand(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)
    with torch.no_grad():
        scale = bn.weight / torch.sqrt(bn.eps + bn.running_var)
        folded.weight.copy_(conv.weight * scale[:, None, None, None])
        folded.bias.copy_(bn.bias - bn.running_mean * scale)  # type: ignore[union-attr]
    return folded


def fuse_blocks(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, ConvBlock) and hasattr(module, "bn"):
            module.conv = fold_by_hand(module.conv, module.bn)
            delattr(module, "bn")
            module.forward = module.forward_fuse  # type: ignore[method-assign]
    return model


class Detector(nn.Sequential):
    def fuse(self) -> nn.Module:
        return fuse_blocks(self)


def detector(at: str, placement: str = "standard") -> Detector:
    model = Detector(ConvBlock(3), ConvBlock(8))
    randomise(model).eval()
    return insert(model, placement, at=at, init="paper", reduction=2, example=torch.randn(X))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("at", "placement"), [("1", "standard"), ("1", "pre"), ("0.act", "standard"), ("1.act", "pre")]
)
def test_a_detector_that_fuses_itself(at: str, placement: str) -> None:
    model = detector(at, placement)
    fused = copy.deepcopy(model)
    assert fused.fuse() is fused
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    check_kept(model, copy.deepcopy(fused))
    check_kept(model, fused)


@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_a_detector_that_deletes_its_batch_norms(placement: str) -> None:
    with pytest.raises(ValueError, match=REFUSES):
        detector("*.bn", placement).fuse()
    with pytest.raises(RuntimeError, match=r"fuse\(\) of Detector deleted the SE at '0.conv', '1.conv'.*at the block"):
        copy.deepcopy(detector("*.conv", placement)).fuse()
    model = senet.remove(detector("*.conv", placement))
    assert "fuse" not in vars(model)
    assert model.fuse() is model


@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_a_function_that_rebuilds_convolutions(placement: str) -> None:
    assert find_se(fuse_blocks(detector("1.conv", placement))) == []


def test_a_method_that_is_called_of_the_class() -> None:
    """Nothing of the network is asked on the way: only `model.fuse()` can be checked."""
    model = detector("*.conv", "standard")
    type(model).fuse(model)
    assert find_se(model) == []


@pytest.mark.parametrize(("name", "block"), [("repvgg_a0", "stages.0.0"), ("mobileone_s0", "stages.0.0")])
@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_reparameterize_model(name: str, block: str, placement: str) -> None:
    config = model_cfgs[name]
    few = [stage[:2] if isinstance(stage, list) else stage for stage in config.blocks[:2]]  # of up to 16 blocks
    plain = ByobNet(replace(config, blocks=few), num_classes=4).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for at in (block, f"{block}.act"):
        model = insert(copy.deepcopy(plain), placement, at=at, init="paper", example=x)
        other = reparameterize_model(model)
        assert len(find_se(other)) == 1
        assert_close(other(x), model(x), 1e-9)
    branch = f"{block}.conv_kxk" + (".0" if name == "mobileone_s0" else "")
    for at, error, message in (
        (f"{branch}.bn", ValueError, REFUSES),
        (branch, RuntimeError, "deleted the SE at 'conv_kxk"),
    ):
        model = insert(copy.deepcopy(plain), placement, at=at, init="paper", example=x)
        with pytest.raises(error, match=message):
            reparameterize_model(model)


@pytest.mark.parametrize(
    "tool",
    [nn.SyncBatchNorm.convert_sync_batchnorm, timm.layers.convert_sync_batchnorm, timm.layers.freeze_batch_norm_2d],
)
def test_tools_that_replace_batch_norms(tool: Callable[[nn.Module], nn.Module]) -> None:
    model = network("1")
    expected = model(torch.ones(X))
    assert isinstance(tool(model)[1], SEBatchNorm)  # type: ignore[index]
    assert_close(model(torch.ones(X)), expected)
    with pytest.raises(ValueError, match=REFUSES):
        tool(network("1", "pre"))(torch.ones(X))


@pytest.mark.parametrize("tool", [senet.convert_sync_batchnorm, senet.freeze_batch_norm])
@pytest.mark.parametrize("placement", ["standard", "pre"])
def test_our_tools_that_replace_batch_norms(tool: Callable[[nn.Module], nn.Module], placement: str) -> None:
    model = network("1", placement)
    check_kept(copy.deepcopy(model), tool(model).eval(), 1e-6)
    senet.remove(model)(torch.ones(X))  # no guard is left behind


def test_update_bn() -> None:
    for update, changes in ((torch.optim.swa_utils.update_bn, False), (senet.update_bn, True)):
        model = network("1")
        before = model[1].running_mean.clone()  # type: ignore[operator, union-attr]
        update([torch.randn(X)], model)  # type: ignore[operator]
        assert torch.equal(model[1].running_mean, before) != changes


def test_parametrizations() -> None:
    model = network("0", "pre")
    expected = model(torch.ones(X))
    parametrizations.weight_norm(model[0])
    assert_close(model(torch.ones(X)), expected, 1e-5)
    assert len(find_se(model)) == 1


def test_script() -> None:
    for at, placement in SITES:
        with pytest.raises(TypeError, match="torch.jit.script cannot compile.*torch.jit.trace"):
            torch.jit.script(network(at, placement))


def test_parts_that_are_not_called() -> None:
    for layer, at in (
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "0.linear1"),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "0.self_attn.out_proj"),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "0.norm1"),
    ):
        model = nn.Sequential(layer).eval()
        with pytest.raises(ValueError, match=f"'{at}'"):
            insert(model, at=at, example=torch.randn(2, 5, 8))
        assert find_se(model) == []


_BY_TOOL: dict[str, Callable[..., None]] = {
    "torch.compile": test_compiled_before_insertion,
    "torch.fx.symbolic_trace": test_symbolic_trace,
    "torch.fx.experimental.optimization.fuse": test_fx_fusers,
    "remove_dropout": test_dropout_that_is_removed,
    "fuse_fx": test_fx_quantizers,
    "fuse_modules": test_fuse_modules,
    "quantize_dynamic": test_quantize_dynamic,
    "arithmetic with `bn.eps`": test_folding_a_batch_norm_with_se,
    "SE at the input of `conv`": test_folding_into_a_convolution_with_se_at_its_input,
    "SE at the output of `conv`": test_folding_into_a_convolution_with_se_at_its_output,
    "with SE at the block": test_reparameterize_model,
    "that the block deletes": test_a_detector_that_deletes_its_batch_norms,
    "puts nothing in its place": test_a_method_that_is_called_of_the_class,
    "builds a new convolution": test_a_function_that_rebuilds_convolutions,
    "convert_sync_batchnorm": test_tools_that_replace_batch_norms,
    "freeze_batch_norm_2d": test_tools_that_replace_batch_norms,
    "update_bn": test_update_bn,
    "parametrizations": test_parametrizations,
    "module.forward": test_a_detector_that_fuses_itself,
    "torch.jit.script": test_script,
    "nn.MultiheadAttention": test_parts_that_are_not_called,
    "weight decay": test_our_tools_that_replace_batch_norms,
}


def test_every_row_of_the_table_is_run() -> None:
    text = (Path(__file__).parents[1] / "docs" / "insertion.md").read_text()
    table = text[text.index("## Tools that rewrite networks") :]
    rows = re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)[1:]
    assert len(rows) >= 20
    for row in rows:
        assert [tool for tool in _BY_TOOL if tool in row], row
