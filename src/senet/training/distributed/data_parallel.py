"""A network whose gradients are summed over processes, and batch norms that take their statistics over all of them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.fused import Running, normalise
from senet.nn.recalibration import base_class, rebase
from senet.training.distributed.processes import Processes
from senet.utils.modes import evaluating

__all__ = ["check_alike", "check_shares", "make_parallel", "synchronised"]


def make_parallel(model: Any, processes: Processes, example: Tensor) -> nn.Module:
    """PyTorch's `DistributedDataParallel` of a network, past its first step.

    At its second step it orders gradients anew, as they came in the first; with three processes or more, sums are
    rounded by that order. So it makes a step here of which nothing is kept: a run that goes on is where it was.

    Args:
        model: what is to be trained requires gradients.
        processes: that train it.
        example: (N, C, S, S), an input.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with evaluating(model):  # leaves statistics alone
        found = torch.autograd.grad(model(example).sum(), trained, allow_unused=True)
        parallel = processes.parallel(model, unused=any(gradient is None for gradient in found))
        del found
        for _ in range(2):
            parallel(example).sum().backward()
    for parameter in trained:
        parameter.grad = None
    return parallel


class _Synchronised:
    """What a batch norm becomes on a CPU, where PyTorch has no synchronised one."""

    def forward(self: Any, y: Tensor) -> Tensor:
        """(N, C) or (N, C, *spatial) -> the same, normalised by the mean and variance over all processes."""
        if not self.training:
            return super().forward(y)  # type: ignore[misc, no-any-return]
        self._check_input_dim(y)
        running = None
        if self.running_mean is not None:
            running = Running(self.running_mean, self.running_var, self.num_batches_tracked, self.momentum)
        maps = y if y.ndim > 2 else y[:, :, None]
        group = torch.distributed.group.WORLD
        z = normalise(maps, self.weight, self.bias, running, self.eps, None, None, group).view_as(y)
        return self.act(self.drop(z)) if hasattr(self, "act") else z  # timm's with an activation


class _Synchronised1d(_Synchronised, nn.BatchNorm1d):
    pass


class _Synchronised2d(_Synchronised, nn.BatchNorm2d):
    pass


class _Synchronised3d(_Synchronised, nn.BatchNorm3d):
    pass


@cache
def _kinds() -> dict[type, tuple[type, type]]:
    """What stands for each kind of batch norm on a CPU, and on a GPU."""
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    with_activation = type("_SynchronisedAct2d", (_Synchronised, BatchNormAct2d), {})
    return {
        nn.BatchNorm1d: (_Synchronised1d, nn.SyncBatchNorm),
        nn.BatchNorm2d: (_Synchronised2d, nn.SyncBatchNorm),
        nn.BatchNorm3d: (_Synchronised3d, nn.SyncBatchNorm),
        BatchNormAct2d: (with_activation, SyncBatchNormAct),
    }


@contextmanager
def synchronised(model: nn.Module, processes: Processes) -> Iterator[None]:
    """While this lasts, batch norms with SE and without take the statistics of training over all processes.

    As `senet.convert_sync_batchnorm` does, but each module stays where it is, with its hooks: SE may hang in them. A
    batch norm with SE is synchronised by itself; one without is PyTorch's `SyncBatchNorm` on a GPU.

    Args:
        model: changed in place, and as it was afterwards.
        processes: all of which go through the network alike.

    Raises:
        ValueError: a batch norm of a kind that is not known, whose forward may do anything.
    """
    kinds = _kinds()
    for name, module in model.named_modules():
        if (
            isinstance(module, _BatchNorm)
            and base_class(module) not in kinds
            and not isinstance(module, nn.SyncBatchNorm)
        ):
            raise ValueError(
                f"sync_bn=true cannot synchronise {name!r}, which is a {type(module).__name__}: it knows PyTorch's "
                f"batch norms, timm's BatchNormAct2d and SEBatchNorm; leave out sync_bn"
            )
    changed: list[tuple[Any, type]] = []
    with_se = [module for module in model.modules() if isinstance(module, SEBatchNorm) and not module.synchronised]
    on_gpu = processes.device.type == "cuda"
    for module in model.modules():
        kind = base_class(module)
        if kind in kinds:
            changed.append((module, kind))
            if on_gpu:
                setattr(module, "process_group", None)  # noqa: B010  (all of them)
            rebase(module, kinds[kind][on_gpu])
    for module in with_se:
        module.synchronise()
    try:
        with warnings.catch_warnings():
            # Whose replacement not all of the PyTorch versions have that we run with.
            warnings.filterwarnings("ignore", "torch.distributed.nn.functional.all_reduce is deprecated", FutureWarning)
            yield
    finally:
        for module, kind in changed:
            rebase(module, kind)
        for module in with_se:
            module.synchronised = False


def check_alike(this: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Whether all processes are of one run.

    Raises:
        ValueError: they have other data, or another network or recipe.
    """
    for rank, other in enumerate(others):
        differing = [key for key in other if other[key] != this[key]]
        if differing:
            raise ValueError(
                f"process {rank} has another {' and '.join(differing)} than others: start all with the same command, "
                f"and give every machine the same data"
            )


def check_shares(batch: int, processes: int) -> None:
    """Whether there is an image of each batch for each process.

    Raises:
        ValueError: there is not.
    """
    if batch < processes:
        raise ValueError(
            f"a batch of {batch} images has none for some of {processes} processes; give batch="
            f"{processes} or more, or start fewer processes"
        )
