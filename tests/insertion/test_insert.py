import copy
import functools
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import senet
from senet import SEBatchNorm, SqueezeExcitation, find_sites, insert, remove
from senet.insertion.sites import PLACEMENTS
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, randomise
from tests.networks import FAMILIES, SHORT, network_by_hand
from tests.slow import fast_if

# Innermost, so that it varies last.
FAMILY = pytest.mark.parametrize("family", FAMILIES)
PLACEMENT = pytest.mark.parametrize("placement", PLACEMENTS)
# One family for each mechanism and kind of skip: batch norm, hooks, empty slot, padding shortcut.
SOME = pytest.mark.parametrize("family", ["ours basic", "ours pre-activation basic"])
# Each placement in one of them, for tests that take a second.
ONCE = fast_if(lambda family, placement: ("pre-activation" in family) == (placement in ("pre", "post")))

# In a wrapper of a batch norm, and in a hook: for tests that compile.
COMPILED = [("ours basic", "standard"), ("ours pre-activation basic", "pre")]


@functools.lru_cache(maxsize=1)
def built(family: str) -> nn.Module:
    """Built once for the tests of a family that follow each other: most of their time is drawing weights."""
    return randomise(FAMILIES[family]())


def build(family: str) -> nn.Module:
    return copy.deepcopy(built(family))


def blocks(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, SqueezeExcitation)]


@PLACEMENT
@pytest.mark.parametrize("init", ["identity", "paper"])
@FAMILY
@fast_if(lambda family, init: init == "paper" or "basic" in family)
def test_is_the_network_by_hand(family: str, placement: str, init: str) -> None:
    plain = build(family).double().eval()
    model = insert(copy.deepcopy(plain), placement, reduction=4, init=init)
    randomise(nn.ModuleList(blocks(model)))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(model(x), network_by_hand(plain, placement, [i.se for i in find_inserted_se(model)], x))
    assert not torch.allclose(model(x), plain(x))


@PLACEMENT
@FAMILY
def test_every_block_acts_once(family: str, placement: str) -> None:
    model = insert(build(family).eval(), placement)
    calls: list[nn.Module] = []
    for se in blocks(model):
        se.register_forward_hook(lambda module, args, output: calls.append(module))
    model(torch.randn(1, 3, 32, 32))
    assert len(calls) == len(set(calls)) == len(find_sites(model, placement))


@pytest.mark.parametrize(
    ("placement", "at", "name", "channels"),
    [
        ("standard", "layer1", "layer1.1", 64),
        ("pre", "layer2", "layer2.0", 64),
        ("standard", "layer2.0.downsample", "layer2.0.downsample.1", 128),
    ],
)
def test_a_sequence_is_not_given_one_more_step(placement: str, at: str, name: str, channels: int) -> None:
    model = build("torchvision basic").eval()
    before = {n: len(m) for n, m in model.named_modules() if isinstance(m, nn.Sequential)}
    insert(model, placement, at=at, example=torch.randn(1, 3, 64, 64))
    assert {n: len(m) for n, m in model.named_modules() if isinstance(m, nn.Sequential)} == before
    assert [(i.name, i.se.channels) for i in find_inserted_se(model)] == [(name, channels)]


@PLACEMENT
@pytest.mark.parametrize(("gate", "squeeze"), [("sigmoid", "avg"), ("hard_sigmoid", "max"), ("relu", "none")])
@FAMILY
@fast_if(lambda family, gate: gate == "sigmoid" or "basic" in family)
def test_identity_start_leaves_every_bit(family: str, placement: str, gate: str, squeeze: str) -> None:
    model = build(family).eval()
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    insert(model, placement, gate=gate, squeeze=squeeze)
    assert len(blocks(model)) == len(find_sites(model, placement))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
@fast_if(lambda name: name in ("resnet18", "resnext50_32x4d"))
def test_identity_start_leaves_every_bit_of_torchvisions_networks(name: str) -> None:
    model = randomise(getattr(torchvision.models, name)()).eval()
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        before = model(x)
        for placement in PLACEMENTS:
            assert torch.equal(insert(model, placement)(x), before)  # all of them in one network
    assert torch.equal(remove(model)(x), before)


@SOME
@PLACEMENT
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "relu"])
def test_identity_start_learns_at_once(family: str, placement: str, gate: str) -> None:
    # Of double precision: what follows a gate is often a batch norm, which takes most of a gate's effect away again.
    model = insert(build(family).double().train(), placement, gate=gate, reduction=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gates: list[torch.Tensor] = []
    for se in blocks(model):
        gain = 1.0 if se.gain is None else se.gain
        se.gate.register_forward_hook(lambda module, args, output, gain=gain: gates.append(output.detach() * gain))
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    model(x).square().sum().backward()
    assert len(gates) == len(blocks(model))
    assert all(torch.equal(g, torch.ones_like(g)) for g in gates)
    optimizer.step()
    gates.clear()
    model(x)
    assert all((g - 1).abs().max() > 1e-12 for g in gates)


@PLACEMENT
@FAMILY
def test_plain_weights_load_and_remove_restores(family: str, placement: str) -> None:
    model = build(family)
    before = model.state_dict(keep_vars=True)
    text = repr(model)
    insert(model, placement)
    result = model.load_state_dict({key: tensor.detach().clone() for key, tensor in before.items()}, strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys
    assert all(".se." in key for key in result.missing_keys)
    assert remove(model) is model
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert repr(model) == text
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    insert(model, placement)  # and there is room again


@SOME
@PLACEMENT
def test_copies(family: str, placement: str) -> None:
    model = insert(build(family), placement, init="paper").eval()
    x = torch.randn(2, 3, 16, 16)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = insert(FAMILIES[family](), placement, init="paper").eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(x), model(x))
        # A copy is of its own: to change it leaves the original alone.
        nn.init.zeros_(blocks(other)[0].fc2.weight)
        nn.init.constant_(blocks(other)[0].fc2.bias, -30.0)
        assert not torch.equal(other(x), model(x))
        remove(other)


@SOME
@PLACEMENT
@fast_if(lambda family, placement: (family, placement) in COMPILED)
def test_traces_compiles_and_exports(traced: None, family: str, placement: str) -> None:
    model = insert(randomise(SHORT[family]()), placement, init="paper").eval()
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    graph = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(model)))
    assert torch.equal(graph(x), expected)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():  # with gradients in the next test
        assert_close(compiled(x), expected, 1e-5)
    sizes = [torch.export.Dim(name, min=8, max=64) for name in "hw"]
    batch = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch, 2: 2 * sizes[0], 3: 2 * sizes[1]},))
    y = torch.randn(3, 3, 24, 32)
    assert_close(program.module()(y), model(y), 1e-5)


@SOME
@PLACEMENT
@fast_if(lambda family, placement: (family, placement) in COMPILED)
def test_compiles_in_training(traced: None, family: str, placement: str) -> None:
    model = insert(randomise(SHORT[family]()).double(), placement, init="paper")
    other = copy.deepcopy(model)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    torch.compile(model, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    other(x).square().sum().backward()
    for (name, parameter), twin in zip(model.named_parameters(), other.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert_close(parameter.grad, twin.grad, 1e-9)
    for buffer, twin in zip(model.buffers(), other.buffers(), strict=True):
        assert_close(buffer, twin)


@SOME
@PLACEMENT
@ONCE
def test_distributed_on_one_process(tmp_path: Path, family: str, placement: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = insert(build(family), placement, init="paper")
        other = copy.deepcopy(model)
        x = torch.randn(4, 3, 16, 16)
        nn.parallel.DistributedDataParallel(model)(x).square().sum().backward()
        other(x).square().sum().backward()
        for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
            assert_close(parameter.grad, twin.grad, 1e-5)
    finally:
        torch.distributed.destroy_process_group()


def test_new_modules_follow_device_dtype_and_mode() -> None:
    model = insert(FAMILIES["ours basic"]().half().eval(), "post")
    insert(model, "standard")
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert not any(module.training for module in model.modules())
    with torch.device("meta"):
        meta = FAMILIES["ours basic"]()
    assert all(p.is_meta for p in insert(meta).parameters())
    assert not any(".se." in key for key in remove(meta).state_dict())


def test_optimizer_keeps_the_parameters() -> None:
    model = build("ours basic")
    parameters = list(model.parameters())
    insert(model)
    assert {id(p) for p in parameters} <= {id(p) for p in model.parameters()}


def test_a_shared_batch_norm_is_replaced_everywhere() -> None:
    model = build("ours basic").eval()
    model.layer1[1].bn2 = model.layer1[0].bn2
    with pytest.raises(ValueError, match="'layer1.0.bn2' and 'layer1.1.bn2' are one module"):
        insert(model)
    with pytest.raises(ValueError, match="are one module.* called 2 times in one forward pass.*a module of its own"):
        insert(model, at="layer1.0", init="paper")
    model = build("ours basic").eval()
    model.last = model.layer2[0].bn2  # another name for a module that runs once
    insert(model, at="layer2.0", init="paper")
    assert isinstance(model.last, SEBatchNorm)
    assert model.last is model.layer2[0].bn2


def test_placements_stand_side_by_side() -> None:
    model = build("ours basic").double().eval()
    plain = copy.deepcopy(model)
    for placement in PLACEMENTS:
        insert(model, placement)
    assert len(find_inserted_se(model)) == 15
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert_close(model(x), plain(x))


def test_any_module_of_any_network() -> None:
    model = torchvision.models.vgg11(num_classes=3).eval()
    x = torch.randn(1, 3, 32, 32)
    before = model(x)
    insert(model, at=["features.1", "features.4"], example=x)
    insert(model, "pre", at="features.3")
    assert torch.equal(model(x), before)
    assert {name.rpartition(".se.")[0] for name, _ in model.named_parameters() if ".se." in name} == {
        "features.1.standard",
        "features.4.standard",
        "features.3.pre",
    }
    assert remove(model) is model
    assert blocks(model) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "tanh"}, "gate 'tanh' has no identity initialization; use init=\"paper\""),
        (
            {"gate": "relu", "bias": False},
            "gate 'relu' without bias has no identity .*or a bias with 'relu'",
        ),
        ({"init": "papr"}, "unknown init 'papr'; did you mean 'paper'"),
        ({"gate": "sigmod"}, "unknown gate 'sigmod'; did you mean 'sigmoid'"),
        ({"squeeze": "mean"}, "unknown squeeze 'mean'.*avg, max, none"),
        ({"reduction": 0.5}, "reduction must be a finite number of 1 or more, got 0.5"),
        ({"stages": {7}}, r"stages=\[7\]"),
        ({"at": "nothing.*"}, r"at= 'nothing.\*'"),
        ({"placement": "behind"}, "unknown placement 'behind'"),
    ],
)
def test_refuses_before_anything_changes(options: dict[str, object], message: str) -> None:
    model = build("ours basic")
    before, text = model.state_dict(keep_vars=True), repr(model)
    with pytest.raises(ValueError, match=message):
        insert(model, **options)  # type: ignore[arg-type]
    assert repr(model) == text
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)


def test_refuses_an_input_that_comes_by_keyword() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(input=x)

    model = insert(Keyword(), "pre", at="convolution")
    with pytest.raises(ValueError, match="SE acts on the input of this Conv2d, which was called with keywords only"):
        model(torch.randn(1, 3, 2, 2))


def test_refuses_a_name_that_is_taken() -> None:
    model = build("ours basic")
    model.layer1[0].post = nn.Identity()
    with pytest.raises(ValueError, match=r"'layer1.0' \(PostActivationUnit\) has its own attribute 'post'"):
        insert(model, "post")


@PLACEMENT
@FAMILY
def test_refuses_twice_at_a_site(family: str, placement: str) -> None:
    model = insert(FAMILIES[family](), placement, stages=2)
    text = repr(model)
    with pytest.raises(ValueError, match=r"'layer1.0.*' already has SE; remove it first with senet.remove\(model\)"):
        insert(model, placement)
    assert repr(model) == text
    insert(model, placement, stages={3})


def test_paper_start_is_open_to_every_gate() -> None:
    for gate in ("tanh", "relu"):
        model = insert(FAMILIES["ours basic"](), gate=gate, bias=False, init="paper")
        assert all(se.gain is None for se in blocks(model))


def test_remove_from_a_plain_network_changes_nothing() -> None:
    model = build("ours basic")
    text = repr(model)
    assert repr(senet.remove(model)) == text


def test_remove_some() -> None:
    model = build("ours basic").double().eval()
    for placement in PLACEMENTS:
        insert(model, placement, init="paper")
    sites = [(i.name, i.child) for i in find_inserted_se(model)]
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    # By the site, by the SE module, and by globs of either; each takes out what it names and no more.
    for at, gone in (
        ("layer1.0.bn2", [("layer1.0.bn2", "")]),
        (["layer1.1.conv1.pre.se", "layer1.0.downsample"], [("layer1.0.downsample", ""), ("layer1.1.conv1", "pre")]),
        ("layer2.0.*.pre.se", [("layer2.0.conv1", "pre")]),
        ("layer1.*.post.se", [("layer1.0", "post"), ("layer1.1", "post")]),
    ):
        before = model(x)
        assert remove(model, at=at) is model
        sites = [site for site in sites if site not in gone]
        assert [(i.name, i.child) for i in find_inserted_se(model)] == sites
        assert not torch.allclose(model(x), before)
    assert find_inserted_se(remove(model, at="*")) == []
    insert(model)  # and there is room again


def test_remove_some_refuses() -> None:
    model = insert(build("ours basic"))
    for at, error, message in (
        ("layer1.0.bn1", ValueError, "unknown SE in at= 'layer1.0.bn1'; did you mean 'layer1.0.bn2.se'"),
        (["layer1.0.bn2", "x*"], ValueError, "unknown SE in at= 'x\\*'"),
        ([3], TypeError, r"at must be names or globs such as 'layer3.\*', got \[3\]"),
    ):
        with pytest.raises(error, match=message):
            remove(model, at=at)
    assert len(find_inserted_se(model)) == 3


@pytest.mark.parametrize(
    "function",
    [senet.insert, senet.remove, senet.freeze_except_se, senet.unfreeze, senet.set_window, senet.param_groups],
)
def test_what_is_no_network_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a network, a torch.nn.Module, got None"):
        function(None)


def test_in_inference_mode_sites_are_found_and_se_can_learn() -> None:
    model, x = nn.Sequential(*[nn.Sequential(nn.Conv2d(c, 8, 3), nn.ReLU()) for c in (3, 8, 8)]), torch.rand(2, 3, 9, 9)
    expected = [site.name for site in find_sites(model)]
    with torch.inference_mode():
        assert [site.name for site in find_sites(model)] == expected
        insert(model, init="paper", reduction=2)
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_network_with_dynamic_quantization() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(model)
    x = torch.rand(1, 3, 5, 5)
    expected = quantized(x)
    assert torch.equal(insert(quantized, at="2", reduction=2)(x), expected)
