"""What tools for batch norms do to networks with SE: the right thing, or nothing; SE is never lost."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.layers
import torch
import torch.fx.experimental.optimization
from timm.layers import convert_sync_batchnorm as timms_convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import senet
from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.batch_norm_utils import convert_sync_batchnorm, freeze_batch_norm, update_bn
from senet.nn.fused import set_fused
from tests.forked import run_ranks
from tests.helpers import assert_close, randomise

SLOW = [pytest.param(how, "avg", marks=pytest.mark.slow) for how in ("inductor", "off")]


def network() -> nn.Module:
    torch.manual_seed(0)
    return randomise(senet.create_model("se_resnet20", num_classes=4)).double()


def blocks(model: nn.Module) -> int:
    return sum(isinstance(module, SEBatchNorm) for module in model.modules())


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 16, 16, dtype=torch.float64)


def work(rank: int, store: str, how: str, squeeze: str, folder: str) -> None:
    """One process of two: half of the samples."""
    torch.set_num_threads(1)
    set_fused(how)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = step(
        synchronized(squeeze), whole()[0][2 * rank : 2 * rank + 2 + rank], whole()[1][2 * rank : 2 * rank + 2 + rank]
    )
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def whole() -> tuple[Tensor, Tensor]:
    """Five samples, of which the second process has three."""
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(5, 6, 4, 3, dtype=torch.float64, generator=generator) + 2 for _ in range(2))  # type: ignore[return-value]


def synchronized(squeeze: str) -> SEBatchNorm:
    torch.manual_seed(1)
    module = SEBatchNorm(6, se=randomise(SqueezeExcitation(6, 2, squeeze=squeeze))).double()
    converted = convert_sync_batchnorm(nn.Sequential(module))
    assert converted[0] is module
    return module


def work_in_ddp(rank: int, store: str, how: str, folder: str) -> None:
    """One process of two: half of the samples, through a network that PyTorch keeps the same in both."""
    torch.set_num_threads(1)
    set_fused(how)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(learner())
    learn(model, *examples(slice(4 * rank, 4 * rank + 4)))
    torch.save(model.module.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def learner() -> nn.Module:
    torch.manual_seed(2)
    return convert_sync_batchnorm(SmallNet().double())


class SmallNet(nn.Sequential):
    """Two places for SE; every norm is synchronized by senet, as PyTorch's own needs a GPU."""

    def __init__(self) -> None:
        norms = [SEBatchNorm(8, se=randomise(SqueezeExcitation(8, 2))) for _ in range(2)]
        layers = [nn.Conv2d(3, 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 8, 3), norms[1], nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def examples(part: slice) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(8, 3, 9, 9, dtype=torch.float64, generator=generator)[part], torch.arange(8)[part] % 4


def learn(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("how", [pytest.param("inductor", marks=pytest.mark.slow), "aten"])
def test_two_processes_learn_as_one(tmp_path: Path, how: str) -> None:
    run_ranks(work_in_ddp, (str(tmp_path / "store"), how, str(tmp_path)))
    one = learner()
    learn(one, *examples(slice(None)))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for key, value in one.state_dict().items():
            assert_close(found[key], value, 1e-9)


def step(module: SEBatchNorm, y: Tensor, g: Tensor) -> dict[str, Tensor]:
    y = y.clone().requires_grad_()
    output = module(y)
    output.backward(g)
    assert y.grad is not None
    parameters = {f"grad {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"output": output.detach(), "input": y.grad, **parameters, **dict(module.named_buffers())}


@pytest.mark.parametrize(("how", "squeeze"), [*SLOW, ("aten", "avg"), ("aten", "max"), ("aten", "none")])
def test_two_processes_are_one_with_all_samples(tmp_path: Path, how: str, squeeze: str) -> None:
    arguments = (str(tmp_path / "store"), how, squeeze, str(tmp_path))
    run_ranks(work, arguments)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = step(synchronized(squeeze), *whole())
    for key, value in expected.items():
        if key in ("output", "input"):
            assert_close(torch.cat((first[key], second[key])), value)
        elif key.startswith("grad"):
            assert_close(first[key] + second[key], value)
        else:
            assert torch.equal(first[key], second[key])
            assert_close(first[key], value)


def test_without_processes_nothing_changes() -> None:
    model = network()
    x = images()
    expected = copy.deepcopy(model)(x)
    for module in model.modules():
        if isinstance(module, SEBatchNorm):
            module.synchronize()
    assert torch.equal(model(x), expected)


def test_conversion_keeps_se_and_keys() -> None:
    model = network()
    before, keys = blocks(model), list(model.state_dict())
    converted = convert_sync_batchnorm(model)
    assert blocks(converted) == before == 9
    assert list(converted.state_dict()) == keys
    assert isinstance(converted.bn1, nn.SyncBatchNorm)
    assert all(module.synchronized for module in converted.modules() if isinstance(module, SEBatchNorm))


@pytest.mark.parametrize(
    "tool",
    [nn.SyncBatchNorm.convert_sync_batchnorm, timms_convert_sync_batchnorm, timm.layers.freeze_batch_norm_2d],
    ids=["PyTorch's synchronization", "timm's synchronization", "timm's freezing"],
)
def test_tools_of_others_leave_se_alone(tool: Any) -> None:
    model = network().eval()
    x = images()
    expected = model(x)
    changed = tool(model)
    assert blocks(changed) == 9
    if "freez" in tool.__name__:
        assert_close(changed(x), expected, 1e-10)


@pytest.mark.parametrize("tool", [convert_sync_batchnorm, freeze_batch_norm])
@pytest.mark.parametrize(
    ("name", "placement", "at"),
    [("mobilenetv2_050", "standard", "blocks.*.*.bn3"), ("resnet10t", "pre", ["bn1", "layer*.*.bn2"])],
)
def test_se_that_hangs_in_a_batch_norm_is_kept(tool: Any, name: str, placement: str, at: Any) -> None:
    model = senet.insert(randomise(timm.create_model(name, num_classes=4)), placement, at=at, init="paper").eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    keys = {key for key in model.state_dict() if ".se." in key}
    changed = tool(copy.deepcopy(model)).eval()
    assert {key for key in changed.state_dict() if ".se." in key} == keys != set()
    assert_close(changed(x), expected, 1e-4)
    assert not torch.allclose(senet.remove(model)(x), expected)


def test_freezing_keeps_all_but_the_excitations() -> None:
    model = freeze_batch_norm(network()).train()
    x = images()
    assert_close(model(x), copy.deepcopy(model).eval()(x))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    norms = {key for key in before if (".bn" in key or key.startswith("bn")) and ".se." not in key}
    assert not changed & norms
    assert {key for key in before if "conv" in key} <= changed
    assert len([key for key in changed if ".se.fc" in key]) > 18  # some hidden units are dead


def test_statistics_are_taken_anew() -> None:
    """Against PyTorch's, on the plain network and on SE that is apart from its batch norms."""
    model = network().eval()
    plain = senet.remove(copy.deepcopy(model))
    batches = [images() for _ in range(3)]
    torch.optim.swa_utils.update_bn(batches, plain)
    bare = copy.deepcopy(plain)
    update_bn([(batch, None) for batch in batches], bare)
    for one, other in zip(plain.state_dict().values(), bare.state_dict().values(), strict=True):
        assert_close(one, other)
    before = {
        name: module.running_mean.clone() for name, module in model.named_modules() if type(module) is SEBatchNorm
    }
    update_bn(batches, model)
    module = model.layer1[0].bn2
    assert module.num_batches_tracked == 3
    assert module.momentum == 0.1
    assert not model.training
    assert all(not torch.equal(model.get_submodule(name).running_mean, value) for name, value in before.items())
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda m, args: seen.append(args[0].mean((0, 2, 3))))
    again = copy.deepcopy(model).train()
    for batch in batches:
        again(batch)
    assert_close(module.running_mean, torch.stack(seen).mean(0))


def test_averages_take_se_along() -> None:
    model = network()
    average = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(model)
    for one, other in zip(model.parameters(), average.module.parameters(), strict=True):
        assert_close(other, one - 0.5)
    swa = torch.optim.swa_utils.AveragedModel(model)
    assert blocks(swa) == 9


@pytest.mark.usefixtures("traced")
def test_folding_of_batch_norms_passes_se_by() -> None:
    model = network().eval()
    x = images()
    folded = torch.fx.experimental.optimization.fuse(model)
    assert_close(folded(x), model(x), 1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert blocks(folded) == 9


def test_statistics_that_become_nan_are_refused_and_stay() -> None:
    # They were NaN afterwards, and so was every evaluation.
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good, bad = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.full((4, 3, 32, 32), float("nan")).double()
    with pytest.raises(
        senet.SenetError, match="the running statistics of 'bn1' are not finite: check the weights and images for NaN"
    ):
        update_bn([good, bad], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
