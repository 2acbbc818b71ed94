from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from senet import insert
from senet.nn.inserted_se import find_inserted_se
from tests.slow import fast_if

AT = {"at": "1"}


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))  # type: ignore[return-value]


WRAPPERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "DDP": (DistributedDataParallel, r"DistributedDataParallel averages the gradients.*DistributedDataParallel\(senet"),
    "FSDP": (
        lambda model: FullyShardedDataParallel(model, device_id=torch.device("cpu")),
        r"FullyShardedDataParallel shards the parameters.*FullyShardedDataParallel\(senet.insert\(model\)\)",
    ),
    "FSDP2": (sharded, r"FSDPModule shards the parameters.*fully_shard\(senet.insert\(model\)\)"),
    "DataParallel": (nn.DataParallel, r"DataParallel prefixes the names.*DataParallel\(senet.insert\(model\)\)"),
    "compile": (torch.compile, r"OptimizedModule prefixes the names.*torch.compile\(senet.insert\(model\)\)"),
    "average": (torch.optim.swa_utils.AveragedModel, r"AveragedModel averages.*AveragedModel\(senet.insert\(model\)\)"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_is_refused_with_the_order(one_process: None, name: str) -> None:
    wrap, message = WRAPPERS[name]
    wrapped = wrap(plain())
    before = list(wrapped.state_dict())
    with pytest.raises(ValueError, match=f"{message}") as caught:
        insert(wrapped, at="*1")
    assert "insert SE first, then wrap" in str(caught.value)
    assert list(wrapped.state_dict()) == before
    assert find_inserted_se(wrapped) == []


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["DDP", "FSDP", "FSDP2", "DataParallel"])
def test_a_wrapper_inside_is_refused(one_process: None, name: str) -> None:
    model = nn.ModuleDict({"backbone": WRAPPERS[name][0](plain())})
    with pytest.raises(ValueError, match="'backbone' is a .*: insert SE first, then wrap"):
        insert(model, at="backbone*1")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["DDP", "FSDP"])
def test_the_network_in_a_wrapper_is_refused(one_process: None, name: str) -> None:
    wrapper = WRAPPERS[name][0](plain())
    with pytest.raises(ValueError, match="holds this network.*insert SE first, then wrap"):
        insert(wrapper.module, **AT)
    insert(plain(), **AT)  # another network is free


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["DDP", "FSDP", "FSDP2", "DataParallel", "compile"])
@pytest.mark.parametrize("placement", ["standard", "pre"])
@fast_if(lambda name, placement: placement == "pre")
def test_in_the_stated_order_se_learns(one_process: None, traced: None, name: str, placement: str) -> None:
    model = insert(plain(), placement, init="paper", **AT)
    model.append(nn.Conv2d(8, 2, 1))
    wrap = {"compile": lambda m: torch.compile(m, backend="eager")}.get(name, WRAPPERS[name][0])
    wrapped = wrap(model)
    wrapped(torch.randn(4, 3, 8, 8)).square().sum().backward()
    if name == "FSDP":
        assert wrapped.module._flat_param.grad.abs().sum() > 0 if hasattr(wrapped.module, "_flat_param") else True
        return
    trained = [p for n, p in wrapped.named_parameters() if ".se." in n]
    assert len(trained) == 4
    assert all(p.grad is not None for p in trained)


def test_a_compiled_child_is_named_by_what_it_compiles(traced: None) -> None:
    compiled: Any = torch.compile(nn.Conv2d(3, 8, 1), backend="eager")
    model = nn.Sequential(compiled).eval()
    x = torch.randn(1, 3, 4, 4)
    before = model(x)
    with pytest.raises(ValueError, match="compiled by torch.compile: name the module '_orig_mod' in it"):
        insert(model, at="0", example=x)
    insert(model, at="0._orig_mod", init="paper", reduction=2)
    assert not torch.allclose(model(x), before)
