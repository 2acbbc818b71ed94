"""Tools of PyTorch and timm on fused networks: what they make computes the same, fused or not."""

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm.models.efficientnet
import timm.optim
import timm.utils
import torch
from timm.models._efficientnet_builder import decode_arch_def
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.feature_extraction import create_feature_extractor

import senet
from senet.fusion import fused_class, is_fused
from senet.nn import recalibrated_class
from tests.fusion.networks import _BLOCKS, MMSELayer, Net, build, efficientnet, seresnet
from tests.fusion.steps import check_same, run
from tests.helpers import assert_close

NAMES = pytest.mark.parametrize("name", ["timm efficientnet", "mmpretrain bottleneck", "senet"])


@NAMES
def test_copies(name: str, fused: list[Any]) -> None:
    model, x = build(name)
    before = copy.deepcopy(model)
    senet.fuse(model)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        copied.load_state_dict(before.state_dict())
        fused.clear()
        run(copied, x)
        assert len(fused) == len(model.fuse_report.fused)
        assert copied.fuse_report == model.fuse_report
        copied.load_state_dict(before.state_dict())
        check_same(copied, copy.deepcopy(before), x)
        assert not any("Fused" in type(module).__name__ for module in senet.unfuse(copied).modules())


def test_a_pickle_in_another_process(monkeypatch: pytest.MonkeyPatch, fused: list[Any]) -> None:
    """No class was made there."""
    model, x = build("senet")
    before = copy.deepcopy(model)
    text = pickle.dumps(senet.fuse(model))
    monkeypatch.setattr(fused_class, "_classes", {})
    monkeypatch.setattr(recalibrated_class, "_classes", {})
    assert_close(run(pickle.loads(text), x)[0], run(before, x)[0])
    assert len(fused) == 2


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["mmpretrain bottleneck", "senet"])
def test_recordings(name: str, fused: list[Any]) -> None:
    model, x = build(name)
    before = copy.deepcopy(model)
    senet.fuse(model)
    for mode in (True, False):
        graph = torch.fx.symbolic_trace(copy.deepcopy(model).train(mode))
        assert_close(graph(x), copy.deepcopy(before).train(mode)(x))
    model.eval()
    expected = before.eval()(x)
    with torch.no_grad():
        assert_close(torch.jit.trace(model, x)(x), expected)
        assert_close(torch.export.export(model, (x,)).module()(x), expected)
        assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
    compiled = torch.compile(model.train(), backend="aot_eager")
    for one, two in zip(run(compiled, x), run(before.train(), x), strict=True):
        assert_close(one, two)
    assert not fused


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
def test_torchscript() -> None:
    model, x = build("timm efficientnet")
    expected = model.eval()(x)
    with pytest.raises(TypeError, match=r"cannot compile a fused .*: call senet.unfuse\(model\) first"):
        torch.jit.script(senet.fuse(model))
    assert_close(torch.jit.script(senet.unfuse(model))(x), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
def test_a_trace_in_training_warns_as_that_of_the_original(fused: list[Any]) -> None:
    model, x = build("mmpretrain")
    before = copy.deepcopy(model)
    with pytest.warns(torch.jit.TracerWarning) as found:  # PyTorch's batch norm compares sizes
        traced = torch.jit.trace(senet.fuse(model), x, check_trace=False)
    assert {Path(one.filename).name for one in found if one.category is torch.jit.TracerWarning} == {"functional.py"}
    assert_close(traced(x), before(x))
    assert not fused


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:FutureWarning")
def test_transforms(fused: list[Any]) -> None:
    model, x = build("statistics of batches")
    before = copy.deepcopy(model)
    senet.fuse(model)

    def loss(model: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, x).square().sum()

    for function in (torch.func.grad, torch.func.jacfwd):
        found, expected = (
            function(lambda p, one=one: loss(one, p))(dict(one.named_parameters())) for one in (model, before)
        )
        for name, value in expected.items():
            assert_close(found[name], value)
    assert not fused


@NAMES
def test_parts_of_a_network_compute_their_own_function(name: str, fused: list[Any]) -> None:
    model, _ = build(name)
    before = copy.deepcopy(model)
    senet.fuse(model)
    called = 0
    for one, other in zip(model.modules(), before.modules(), strict=True):
        channels = getattr(one, "num_features", None)
        if channels and isinstance(one, nn.BatchNorm2d):
            y = torch.randn(2, channels, 5, 5, dtype=torch.float64)
            assert_close(copy.deepcopy(one)(y), other(y.clone()))
            called += 1
    assert called
    assert not fused


def test_features_of_a_batch_norm(fused: list[Any]) -> None:
    model, x = build("timm efficientnet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    expected, found = (create_feature_extractor(one, ["blocks.1.0.bn2"])(x) for one in (before, model))
    assert_close(found["blocks.1.0.bn2"], expected["blocks.1.0.bn2"])
    assert not fused
    names = [row["module"] for row in timm.models.efficientnet.EfficientNet(
        decode_arch_def(_BLOCKS), stem_size=8, num_features=16).feature_info]  # fmt: skip
    assert [row["module"] for row in model.feature_info] == names


def test_hooks_of_others(fused: list[Any]) -> None:
    model, x = build("mmpretrain")
    before = copy.deepcopy(model)
    senet.fuse(model)
    for name in (
        "depthwise_conv",
        "depthwise_conv.bn",
        "depthwise_conv.activate",
        "se",
        "se.conv1",
        "se.global_avgpool",
    ):
        seen: list[list[Tensor]] = []
        for one in (model, before):
            maps: list[Tensor] = []
            handle = (
                one.blocks[0]
                .get_submodule(name)
                .register_forward_hook(lambda module, args, output, maps=maps: maps.append(output.clone()))
            )
            fused.clear()
            run(one, x)
            handle.remove()
            seen.append(maps)
            assert len(fused) == (0 if one is before else 1)  # the other block
        assert_close(seen[0][0], seen[1][0])
    fused.clear()
    run(model, x)
    assert len(fused) == 2


def test_hooks_on_gates(fused: list[Any]) -> None:
    model, x = build("timm efficientnet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    gates: list[list[Tensor]] = []
    for one in (model, before):
        seen: list[Tensor] = []
        for module in one.modules():
            if type(module) is nn.Sigmoid:
                module.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output.flatten(1)))
        run(one, x)
        gates.append(seen)
    assert len(gates[0]) == 3
    assert len(fused) == 3
    for mine, theirs in zip(*gates, strict=True):
        assert_close(mine, theirs)


def test_recorded_gates() -> None:
    model, x = build("timm efficientnet")
    model, x = model.float(), x.float()
    loader = [(x, torch.zeros(len(x), dtype=torch.int64))]
    expected = senet.record_gates(copy.deepcopy(model), loader)
    found = senet.record_gates(senet.fuse(model), loader)
    assert [block.name for block in found.blocks] == [block.name for block in expected.blocks]


def test_modules_that_are_replaced(fused: list[Any]) -> None:
    for change in (
        lambda block: setattr(block, "se", nn.Identity()),
        lambda block: setattr(block.depthwise_conv, "bn", nn.BatchNorm2d(8).double()),
        lambda block: setattr(block.depthwise_conv, "activate", nn.GELU()),
        lambda block: setattr(
            block.depthwise_conv, "activate", senet.fuse(build("mmpretrain")[0]).blocks[1].depthwise_conv.activate
        ),
        lambda block: setattr(block.se, "forward", torch.neg),
    ):
        model, x = build("mmpretrain")
        before = copy.deepcopy(model)
        senet.fuse(model)
        torch.manual_seed(0)
        change(model.blocks[0])
        torch.manual_seed(0)
        change(before.blocks[0])
        fused.clear()
        assert_close(run(model, x)[0], run(before, x)[0])
        assert len(fused) == 1


def test_attached_se_that_is_replaced(fused: list[Any]) -> None:
    model, x = build("senet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    for one in (model, before):
        for module in one.modules():
            if isinstance(module._modules.get("se"), senet.SqueezeExcitation):
                module.se = nn.Identity()
    assert_close(run(model, x)[0], run(before, x)[0])
    assert not fused


def test_a_map_that_does_not_reach_se() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.se, self.path = nn.BatchNorm2d(8), MMSELayer(8), [""]

        def forward(self, x: Tensor) -> Tensor:
            y, (how,) = self.bn(x), self.path
            if how == "changed":
                y = 2 * y
            elif how == "in place":
                y.mul_(2)
            elif how == "again":
                y = self.bn(x)
            elif how == "fails":
                raise KeyError
            return y if how == "skipped" else self.se(y)  # type: ignore[no-any-return]

    model, x = Net(Changing()), torch.randn(2, 3, 8, 8)
    model.eval()(x)
    assert senet.fuse(model.train()).fuse_report.fused
    for how in ("changed", "in place", "again", "skipped"):
        model.blocks[0].path[0] = how
        with pytest.raises(RuntimeError, match="computes the SE 'se' of this FusedChanging in its batch norm 'bn'"):
            model(x)
    model.blocks[0].path[0] = "fails"
    with pytest.raises(KeyError):
        model(x)
    model.blocks[0].path[0] = ""
    expected = senet.unfuse(copy.deepcopy(model))(x)
    assert_close(model(x), expected, 1e-5)


def test_threads(fused: list[Any]) -> None:
    model, x = build("mmpretrain")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    expected = [model(x * factor) for factor in range(1, 5)]
    senet.fuse(model)
    found: dict[int, Tensor] = {}

    def work(factor: int) -> None:
        for _ in range(5):
            found[factor] = model(x * factor)

    threads = [threading.Thread(target=work, args=(factor,)) for factor in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor, value in enumerate(expected, 1):
        assert_close(found[factor], value)
    assert len(fused) == 40


def test_training_with_what_scripts_use(tmp_path: Path, fused: list[Any]) -> None:
    """timm's optimizer groups and averaged weights, a distributed wrapper, and a checkpoint."""
    model, x = build("timm efficientnet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        weights = []
        for one in (before, model):
            wrapped = DistributedDataParallel(one)
            groups = timm.optim.param_groups_layer_decay(one, weight_decay=0.1, layer_decay=0.9)
            optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
            average = timm.utils.ModelEmaV3(one, decay=0.5)
            for _ in range(2):
                optimizer.zero_grad()
                wrapped(x).square().mean().backward()
                optimizer.step()
                average.update(one)
            torch.save(one.state_dict(), tmp_path / "model.pt")
            efficientnet().load_state_dict(torch.load(tmp_path / "model.pt"))
            weights.append([*one.state_dict().values(), *average.module.state_dict().values()])
    finally:
        torch.distributed.destroy_process_group()
    assert len(fused) == 6
    for mine, theirs in zip(*weights, strict=True):
        assert_close(mine, theirs, 1e-10)


def test_sharded_parameters(tmp_path: Path, fused: list[Any]) -> None:
    model, x = build("timm efficientnet")
    expected = run(copy.deepcopy(model), x)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sharded: Any = senet.fuse(model)
        for block in sharded.blocks[1]:
            fully_shard(block)
        fully_shard(sharded)
        out = sharded(x)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
        gradients = torch.cat([parameter.grad.full_tensor().flatten() for parameter in sharded.parameters()])
    finally:
        torch.distributed.destroy_process_group()
    assert len(fused) == 3
    assert_close(out.detach(), expected[0])
    assert_close(gradients, expected[1][x.numel() :])


@pytest.mark.parametrize("make", [efficientnet, seresnet])
def test_timm_checkpointing(make: Callable[[], nn.Module], fused: list[Any]) -> None:
    model, x = make().double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    before = copy.deepcopy(model)
    for one in (model, before):
        one.set_grad_checkpointing(True)  # type: ignore[operator]
    count = len(senet.fuse(model).fuse_report.fused)
    for one, two in zip(run(model, x), run(before, x), strict=True):
        assert_close(one, two)
    assert len(fused) == 2 * count


def test_parametrizations_and_frozen_batch_norms() -> None:
    model, x = build("mmpretrain")
    before = copy.deepcopy(model)
    senet.fuse(model)
    for one in (model, before):
        nn.utils.parametrizations.weight_norm(one.blocks[0].se.conv1.conv)
        one.blocks[1].depthwise_conv.bn.eval().requires_grad_(False)
    for one, two in zip(run(model, x), run(before, x), strict=True):
        assert_close(one, two)
    nn.utils.parametrize.register_parametrization(model.blocks[0].depthwise_conv.bn, "weight", nn.Identity())
    assert_close(run(model, x)[0], run(before, x)[0])
    senet.unfuse(model)
    assert not is_fused(model)
    assert type(model.blocks[0].depthwise_conv.bn).__name__ == "ParametrizedBatchNorm2d"
    assert_close(run(model, x)[0], run(before, x)[0])


def test_conversion_of_batch_norms(fused: list[Any]) -> None:
    model, x = build("timm efficientnet")
    before = copy.deepcopy(model)
    senet.fuse(model)
    for convert in (senet.convert_sync_batchnorm, senet.freeze_batch_norm):
        converted, expected = convert(copy.deepcopy(model)), convert(copy.deepcopy(before))
        if convert is senet.freeze_batch_norm:
            assert_close(converted(x), expected(x))
        assert not any("Fused" in type(m).__name__ for m in converted.modules() if isinstance(m, nn.SyncBatchNorm))
    assert not fused


def test_inserted_se_is_removed_from_a_fused_network() -> None:
    model, x = build("senet")
    plain = senet.remove(copy.deepcopy(model))
    senet.remove(senet.fuse(model))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert_close(run(model, x)[0], run(plain, x)[0])


def test_deploy() -> None:
    model, x = build("timm efficientnet")
    model, x = model.float().eval(), x.float()
    expected = model(x)
    senet.fuse(model)
    assert_close(senet.deploy(model)(x), expected, 1e-4)


def test_slices_of_a_sequence(fused: list[Any]) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), MMSELayer(8)).double()
    senet.fuse(model)
    y = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    expected = nn.Sequential(*senet.unfuse(copy.deepcopy(model))[:2])(y)
    assert_close(model[:2](y), expected)
    assert_close(nn.Sequential(*model.children())[:2](y), expected)
    assert not fused
