"""Data-parallel networks: gradients averaged over processes, and batch norms synchronized over them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.fused import Running, normalize
from senet.nn.recalibration import base_class, rebase
from senet.tasks import Objective
from senet.training.distributed.processes import Processes

__all__ = ["check_batch_size", "check_same_run", "make_parallel", "synchronized"]


def make_parallel(model: Any, processes: Processes, objective: Objective, example: Tensor) -> nn.Module:
    """Return PyTorch's `DistributedDataParallel` of a network, after its first step.

    In its second step it orders the gradients by their arrival in the first, and with three processes or more the
    order decides how sums are rounded. This function therefore makes two steps and discards their gradients, so that a
    resumed run has the order of an uninterrupted one.

    Args:
        model: the network; what is trained requires gradients.
        processes: that train it.
        objective: of the run.
        example: (N, C, H, W), images.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with objective.probing(model):
        found = torch.autograd.grad(objective.probe(model, example), trained, allow_unused=True)
        parallel = processes.data_parallel(model, unused=any(gradient is None for gradient in found))
        del found
        for _ in range(2):
            objective.probe(parallel, example).backward()  # type: ignore[no-untyped-call]
    for parameter in trained:
        parameter.grad = None
    return parallel


class _Synchronized:
    """The forward pass of a synchronized batch norm on a CPU, for which PyTorch has none."""

    def forward(self: Any, y: Tensor) -> Tensor:
        """Normalize by the mean and variance over all processes.

        Args:
            y: (N, C) or (N, C, *spatial).

        Returns:
            Of the same shape.
        """
        if not self.training:
            return super().forward(y)  # type: ignore[misc, no-any-return]
        self._check_input_dim(y)
        running = None
        if self.running_mean is not None:
            running = Running(self.running_mean, self.running_var, self.num_batches_tracked, self.momentum)
        maps = y if y.ndim > 2 else y[:, :, None]
        group = torch.distributed.group.WORLD
        z = normalize(maps, self.weight, self.bias, running, self.eps, None, None, group).view_as(y)
        return self.act(self.drop(z)) if hasattr(self, "act") else z  # timm's with an activation


class _Synchronized1d(_Synchronized, nn.BatchNorm1d):
    pass


class _Synchronized2d(_Synchronized, nn.BatchNorm2d):
    pass


class _Synchronized3d(_Synchronized, nn.BatchNorm3d):
    pass


@cache
def _synchronized_classes() -> dict[type, tuple[type, type]]:
    """Return the synchronized class of each batch norm class, on a CPU and on a GPU."""
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    with_activation = type("_SynchronizedAct2d", (_Synchronized, BatchNormAct2d), {})
    return {
        nn.BatchNorm1d: (_Synchronized1d, nn.SyncBatchNorm),
        nn.BatchNorm2d: (_Synchronized2d, nn.SyncBatchNorm),
        nn.BatchNorm3d: (_Synchronized3d, nn.SyncBatchNorm),
        BatchNormAct2d: (with_activation, SyncBatchNormAct),
    }


@contextmanager
def synchronized(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Synchronize the batch norms of a network over all processes within a block.

    Each module keeps its identity and its hooks, in which SE may be, unlike with `senet.convert_sync_batchnorm`. A
    batch norm with SE synchronizes itself; one without becomes PyTorch's `SyncBatchNorm` on a GPU.

    Args:
        model: changed in place, and restored afterwards.
        processes: all of which make the same steps.

    Raises:
        ValueError: the network has a batch norm of an unknown class, whose forward may differ.
    """
    kinds = _synchronized_classes()
    for name, module in model.named_modules():
        if (
            isinstance(module, _BatchNorm)
            and base_class(module) not in kinds
            and not isinstance(module, nn.SyncBatchNorm)
        ):
            raise ValueError(
                f"sync_bn=true cannot synchronize {name!r}, which is a {type(module).__name__}, only "
                f"PyTorch's batch norms, timm's BatchNormAct2d and SEBatchNorm; leave out sync_bn"
            )
    changed: list[tuple[Any, type]] = []
    with_se = [module for module in model.modules() if isinstance(module, SEBatchNorm) and not module.synchronized]
    on_gpu = processes.device.type == "cuda"
    for module in model.modules():
        kind = base_class(module)
        if kind in kinds:
            changed.append((module, kind))
            if on_gpu:
                setattr(module, "process_group", None)  # noqa: B010
            rebase(module, kinds[kind][on_gpu])
    for module in with_se:
        module.synchronize()
    try:
        with warnings.catch_warnings():
            # Not all supported versions of PyTorch have its replacement.
            warnings.filterwarnings("ignore", "torch.distributed.nn.functional.all_reduce is deprecated", FutureWarning)
            yield
    finally:
        for module, kind in changed:
            rebase(module, kind)
        for module in with_se:
            module.synchronized = False


def check_same_run(this: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Check that all processes train the same run.

    Args:
        this: `identity` of this process's run.
        others: of the run of each process, by rank.

    Raises:
        ValueError: the data, the network or the recipe differ.
    """
    for rank, other in enumerate(others):
        differing = [key for key in other if other[key] != this[key]]
        if differing:
            raise ValueError(
                f"process {rank} has another {' and '.join(differing)} than others: start all with the same command, "
                f"and give every machine the same data"
            )


def check_batch_size(batch: int, world_size: int) -> None:
    """Check that each process gets an image of each batch.

    Raises:
        ValueError: a batch has fewer images than there are processes.
    """
    if batch < world_size:
        raise ValueError(
            f"a batch of {batch} images has none for some of {world_size} processes; give batch={world_size} or more, "
            f"or start fewer processes"
        )
