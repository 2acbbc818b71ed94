"""The whole operation in two processes, by a backend of PyTorch's own operations, and passes with an activation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from senet import SEBatchNorm, SqueezeExcitation, convert_sync_batchnorm
from senet.nn.fused import Running, normalize_activate, set_fused
from senet.nn.fused import autograd as whole
from tests.forked import run_ranks
from tests.helpers import assert_close, noting, randomise
from tests.nn.fused.reference_backend import Reference

STEPS = 4


def network() -> nn.Sequential:
    torch.manual_seed(3)
    norm = SEBatchNorm(8, se=SqueezeExcitation(8, 2, gain=2.0))
    return randomise(nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Flatten(), nn.Linear(200, 4)))  # type: ignore[return-value]


def images(rank: int) -> Tensor:
    return torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(rank))


def learn(model: nn.Module, parts: list[Tensor]) -> None:
    """Steps by the mean of the gradients of all parts."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in parts:
            (nn.functional.cross_entropy(model(part), torch.arange(len(part)) % 4) / len(parts)).backward()
        optimizer.step()


def activate(y: Tensor, group: Any) -> list[Tensor]:
    """Gradients and running statistics of batch norm, SiLU and SE, with the statistics of a group."""
    set_fused("aten")
    torch.manual_seed(4)
    weight, bias, fc = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((3,), (3,), (3, 3)))
    running = Running(torch.zeros(3).double(), torch.ones(3).double(), torch.tensor(0), 0.1)
    y = y.double().requires_grad_()
    out = normalize_activate(y, weight, bias, running, 1e-3, "silu", lambda z: torch.sigmoid(z @ fc), group)
    return [running.mean, running.var, *torch.autograd.grad(out.pow(2).sum(), [y, weight, bias, fc])]


def work(rank: int, folder: str) -> None:
    """One process of two."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    backend = Reference()
    reads: list[Tensor] = []
    patch = pytest.MonkeyPatch()  # of this process, which ends with this function
    patch.setattr(whole, "whole_backend", lambda y: backend)
    read = SqueezeExcitation._read_gain
    patch.setattr(SqueezeExcitation, "_read_gain", noting(reads, lambda se, gain: gain, read))
    model = nn.parallel.DistributedDataParallel(network())
    learn(model, [images(rank)])
    calls = dict(backend.calls)
    convert_sync_batchnorm(model.module)
    learn(model, [images(rank)])
    torch.save({"state": model.module.state_dict(), "calls": calls, "reads": len(reads)}, f"{folder}/{rank}.pt")
    assert dict(backend.calls) == calls  # whose statistics are of all processes takes the passes
    torch.save(activate(images(rank)[: 4 - rank], torch.distributed.group.WORLD), f"{folder}/activated-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path: Path, restored: None) -> None:
    """Steps by gradients of both; the gain, which is copied before each step, is read once."""
    run_ranks(work, (str(tmp_path),))
    set_fused("off")
    one = network()
    learn(one, [images(0), images(1)])
    learn(one, [torch.cat([images(0), images(1)])])
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["calls"] == {"forward": STEPS, "backward": STEPS}
        assert found["reads"] <= 2
        for name, value in one.named_parameters():
            assert_close(found["state"][name], value.detach(), 1e-5)
    parts = [torch.load(tmp_path / f"activated-{rank}.pt", weights_only=True) for rank in range(2)]
    mean, var, dy, *parameters = activate(torch.cat([images(0), images(1)[:3]]), None)
    for part in parts:
        assert_close(part[0], mean)
        assert_close(part[1], var)
    assert_close(torch.cat([part[2] for part in parts]), dy)
    for number, value in enumerate(parameters, 3):
        assert_close(parts[0][number] + parts[1][number], value)
