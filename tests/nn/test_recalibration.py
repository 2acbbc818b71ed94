"""SE attached to modules of every class of torch.nn that can be a site."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import senet
from senet import SEBatchNorm, insert, remove
from senet.insertion.insert import place
from senet.nn.batch_norm import BATCH_NORMS
from senet.nn.inserted_se import find_inserted_se
from senet.nn.recalibration import attach, base_class, rebase
from tests.helpers import assert_close
from tests.slow import fast_if

C = 8
MODULES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Conv1d": (lambda: nn.Conv1d(C, C, 3), 1),
    "Conv2d": (lambda: nn.Conv2d(C, C, 3), 2),
    "Conv3d": (lambda: nn.Conv3d(C, C, 1), 3),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(C, C, 2), 1),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(C, C, 2), 2),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(C, C, 2), 3),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(C), 1),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(C), 2),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(C), 3),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(C, affine=True), 1),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(C, track_running_stats=True), 2),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(C), 3),
    "GroupNorm": (lambda: nn.GroupNorm(2, C), 2),
    "LayerNorm": (lambda: nn.LayerNorm([C, 6, 6]), 2),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), 2),
    "ReLU": (nn.ReLU, 2),
    "ReLU in place": (lambda: nn.ReLU(inplace=True), 2),
    "SiLU": (nn.SiLU, 2),
    "PReLU": (lambda: nn.PReLU(C), 2),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), 2),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), 3),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(2), 2),
    "Identity": (nn.Identity, 2),
    "Dropout": (lambda: nn.Dropout(0.5), 2),
    "Dropout2d": (lambda: nn.Dropout2d(0.5), 2),
    "Upsample": (lambda: nn.Upsample(scale_factor=2), 2),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), 2),
    "ZeroPad2d": (lambda: nn.ZeroPad2d(1), 2),
}
MODULE = pytest.mark.parametrize("name", MODULES)
SIDE = pytest.mark.parametrize("placement", ["standard", "pre"])
# One of each kind, for tests that compile.
DIFFERENT = ("Conv1d", "ConvTranspose3d", "GroupNorm", "LayerNorm", "ReLU in place", "AvgPool3d", "Identity", "Dropout")


def network(name: str, placement: str) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network with SE at a module; an input, and the output of the module and SE called one after the other."""
    build, dim = MODULES[name]
    model = nn.Sequential(nn.Identity(), build(), nn.Identity()).eval()
    x = torch.randn(2, C, *[6] * dim)
    plain = copy.deepcopy(model[1])
    se = senet.SqueezeExcitation(C if placement == "pre" else plain(x.clone()).shape[1], 2).eval()
    how = "input" if placement == "pre" else "batch_norm" if type(plain) in BATCH_NORMS.values() else "output"
    place(model, "1", how, placement, se)
    return model, x, plain(se(x.clone())) if placement == "pre" else se(plain(x.clone()))


@MODULE
@SIDE
def test_is_the_module_and_se(name: str, placement: str) -> None:
    model, x, expected = network(name, placement)
    kind = type(MODULES[name][0]())
    assert_close(model(x.clone()), expected, 1e-6)
    assert isinstance(model[1], kind | SEBatchNorm)
    assert type(model[1]) is not kind  # tables of exact types do not have it
    assert not model[1]._forward_hooks
    assert not model[1]._forward_pre_hooks
    assert type(remove(model)[1]) is kind
    assert not any("se" in key for key in model.state_dict())


@MODULE
@SIDE
def test_copies_and_pickles(name: str, placement: str) -> None:
    model, x, expected = network(name, placement)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    others += [pickle.loads(pickle.dumps(model, protocol)) for protocol in (0, 1)]
    for other in others:
        assert_close(other(x.clone()), expected, 1e-6)
        assert type(other[1]) is type(model[1])
        assert list(other.state_dict()) == list(model.state_dict())
        remove(other)  # a copy is of its own
    assert_close(copy.copy(model[1])(x.clone()), expected, 1e-6)
    assert_close(model(x.clone()), expected, 1e-6)


@MODULE
@SIDE
def test_fx_calls_the_module_as_a_whole(traced: None, name: str, placement: str) -> None:
    model, x, expected = network(name, placement)
    graph = torch.fx.symbolic_trace(model)
    assert graph.delete_all_unused_submodules() is None
    assert [(node.op, str(node.target)) for node in graph.graph.nodes][2] == ("call_module", "1")
    assert_close(graph(x.clone()), expected, 1e-6)
    assert len(find_inserted_se(graph)) == 1
    assert_close(model(x.clone()), expected, 1e-6)
    assert len(find_inserted_se(model)) == 1


@MODULE
@SIDE
@fast_if(lambda name, placement: name == "BatchNorm2d" or (placement == "pre" and name in DIFFERENT[::2]))
def test_compiles_and_exports(traced: None, name: str, placement: str) -> None:
    model, x, expected = network(name, placement)
    torch.compiler.reset()
    assert_close(torch.compile(model, backend="eager", fullgraph=True)(x.clone()), expected, 1e-6)
    assert_close(torch.export.export(model, (x.clone(),)).module()(x.clone()), expected, 1e-6)


def test_pickles_to_another_process(tmp_path: Path) -> None:
    model = insert(nn.Sequential(nn.Conv2d(3, C, 1)), "pre", at="0", init="paper").eval()
    x = torch.randn(1, 3, 4, 4)
    torch.save((model, x, model(x)), tmp_path / "model.pt")
    code = "import sys, torch; m, x, y = torch.load(sys.argv[1], weights_only=False); assert torch.equal(m(x), y)"
    code += "; assert [n for n, _ in m.named_parameters() if '.se.' in n]"
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], check=True)


class Block(nn.Module):
    """As detectors write it: another forward once it is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 1)
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))

    def forward_fuse(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@SIDE
@pytest.mark.parametrize("before", [True, False])
def test_another_method_in_place_of_forward_keeps_se(placement: str, before: bool) -> None:
    model, x = nn.Sequential(Block()).eval(), torch.randn(2, C, 4, 4)
    if before:
        model[0].forward = model[0].forward_fuse
    place(model, "0", "input" if placement == "pre" else "output", placement, senet.SqueezeExcitation(C, 2))
    if not before:
        model[0].forward = model[0].forward_fuse
    se = find_inserted_se(model)[0].se
    expected = model[0].forward_fuse(se(x)) if placement == "pre" else se(model[0].forward_fuse(x))
    for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(other(x), expected, 1e-6)
        remove(other)
        assert_close(other(x), other[0].forward_fuse(x), 1e-6)
        assert type(other[0]) is Block


@SIDE
def test_a_forward_of_the_instance_gets_se_around_it(placement: str) -> None:
    model, x = nn.Sequential(nn.Conv2d(C, C, 1)).eval(), torch.randn(2, C, 4, 4)
    plain = model[0].forward
    model[0].forward = lambda y: 2 * plain(y)
    own = model[0].forward
    insert(model, placement, at="0", init="paper")
    se = find_inserted_se(model)[0].se
    assert_close(model(x), own(se(x)) if placement == "pre" else se(own(x)), 1e-6)
    remove(model)
    assert model[0].forward is own
    assert_close(model(x), own(x), 1e-6)


@SIDE
def test_wrapping_the_forward_keeps_se_and_replacing_it_is_refused(placement: str) -> None:
    model, x = nn.Sequential(nn.Conv2d(C, C, 1)).eval(), torch.randn(2, C, 4, 4)
    insert(model, placement, at="0", init="paper")
    expected = model(x)

    def doubled(module: nn.Module, y: Tensor) -> Any:
        return 2 * module._old_forward(y)  # type: ignore[operator]

    with pytest.raises(TypeError, match="this Conv2d has SE in its forward, which .* would replace.*senet.remove"):
        model[0].forward = lambda y: y
    model[0]._old_forward = model[0].forward
    model[0].forward = partial(doubled, model[0])  # as accelerate does
    assert_close(model(x), 2 * expected, 1e-6)
    with pytest.raises(ValueError, match="the forward of this Conv2d was replaced after SE was attached"):
        insert(model, "post", at="0")
    model[0].forward = model[0]._old_forward
    assert_close(model(x), expected, 1e-6)
    old = model[0].forward
    model[0].forward = MethodType(lambda self, y: 3 * old(y), model[0])
    assert_close(model(x), 3 * expected, 1e-6)


def test_several_placements_act_in_the_order_of_insertion() -> None:
    model, x = nn.Sequential(nn.Conv2d(C, C, 1)).eval(), torch.randn(2, C, 4, 4)
    plain = copy.deepcopy(model[0])
    for placement in ("pre", "post", "standard"):
        insert(model, placement, at="0", init="paper")
    pre, post, standard = (one.se for one in find_inserted_se(model))
    assert_close(model(x), standard(post(plain(pre(x)))), 1e-6)
    remove(model, at="0.post.se")
    assert_close(model(x), standard(plain(pre(x))), 1e-6)
    remove(model)
    assert type(model[0]) is nn.Conv2d


def test_hooks_of_the_user_see_what_the_network_sees() -> None:
    model, x = nn.Sequential(nn.Conv2d(C, C, 1)).eval(), torch.randn(2, C, 4, 4)
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    insert(model, at="0", init="paper")
    assert torch.equal(model(x), seen[0])


@pytest.mark.parametrize(
    ("module", "x"),
    [(nn.LSTM(6, 6, batch_first=True), (2, C, 6)), (nn.MaxPool2d(2, return_indices=True), (2, C, 4, 4))],
)
def test_an_output_that_is_no_tensor_is_refused(module: nn.Module, x: tuple[int, ...]) -> None:
    attach(module, "post", senet.SqueezeExcitation(C), "output")
    with pytest.raises(
        TypeError, match=f"output of this {type(module).__name__[12:]}, which is a tuple and not a tensor"
    ):
        module(torch.randn(x))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_modules_without_a_python_forward_are_refused() -> None:
    x = torch.randn(1, C, 4, 4)
    conv = nn.Conv2d(C, C, 1)
    for module, message in (
        (torch.jit.trace(conv, x), "compiled by TorchScript.*insert SE before torch.jit.trace"),
        (torch.fx.symbolic_trace(nn.Sequential(conv)), "GraphModule.*name a module inside it"),
        (nn.LazyConv2d(C, 1), "no parameters yet: run the network once"),
    ):
        model = nn.ModuleDict({"site": module})
        before = list(model.named_modules())
        with pytest.raises(ValueError, match=message):
            place(model, "site", "output", "post", senet.SqueezeExcitation(C))
        assert list(model.named_modules()) == before


def test_the_class_builds_no_module() -> None:
    model = insert(nn.Sequential(nn.Conv2d(C, C, 1)), at="0")
    with pytest.raises(TypeError, match="cannot be constructed directly: build a Conv2d and call senet.insert"):
        type(model[0])(C, C, 1)


def test_a_child_that_was_deleted_is_missed() -> None:
    model = insert(nn.Sequential(nn.Conv2d(C, C, 1)), at="0")
    del model[0].standard
    with pytest.raises(AttributeError, match="child 'standard' of this Conv2d, which holds SE, was deleted"):
        model(torch.randn(1, C, 4, 4))


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_script_is_refused_and_drops_nothing() -> None:
    model = insert(nn.Sequential(nn.Conv2d(C, C, 1)), at="0")
    with pytest.raises(TypeError, match="torch.jit.script cannot compile RecalibratedConv2d.*use torch.jit.trace"):
        torch.jit.script(model)


@SIDE
@pytest.mark.parametrize("tool", ["weight_norm", "spectral_norm", "orthogonal", "prune"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_parametrizations_come_and_go(placement: str, tool: str, first: bool, last: bool) -> None:
    model, x = nn.Sequential(nn.Conv2d(C, C, 1)).eval(), torch.randn(2, C, 4, 4)

    def apply() -> None:
        if tool == "prune":
            prune.l1_unstructured(model[0], "weight", 0.5)
        else:
            getattr(parametrizations, tool)(model[0])

    def undo() -> None:
        if tool == "prune":
            prune.remove(model[0], "weight")
        else:
            parametrize.remove_parametrizations(model[0], "weight")

    def plain(y: Tensor) -> Tensor:
        return nn.functional.conv2d(y, model[0].weight, model[0].bias)

    steps: list[Callable[[], Any]] = [apply, lambda: insert(model, placement, at="0", init="paper")]
    for step in steps if first else reversed(steps):
        step()
    se = find_inserted_se(model)[0].se
    expected = plain(se(x)) if placement == "pre" else se(plain(x))
    assert_close(model(x), expected, 1e-6)
    if tool != "prune":  # whose weight PyTorch does not copy
        assert_close(copy.deepcopy(model)(x), expected, 1e-6)
    if last:
        undo()
        assert_close(model(x), expected, 1e-6)
        remove(model)
    else:
        remove(model)
        assert_close(model(x), plain(x), 1e-6)
        undo()
    assert_close(model(x), plain(x), 1e-6)
    assert type(model[0]) is nn.Conv2d


def test_another_base_keeps_se() -> None:
    """As synchronized training puts another batch norm under SE for a while."""

    class Doubled(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, x, expected = network("BatchNorm2d", "pre")
    kind = type(model[1])
    rebase(model[1], Doubled)
    assert base_class(model[1]) is Doubled
    assert_close(model(x), 2 * expected, 1e-6)
    rebase(model[1], nn.BatchNorm2d)
    assert type(model[1]) is kind
    assert_close(model(x), expected, 1e-6)
