"""The processes that train one network together, as torchrun starts them; operations of one process do nothing.

All communication goes through `Processes`, except for gradients, which `DistributedDataParallel` sums, and the
statistics of synchronized batch norms.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from senet.training.distributed import errors
from senet.training.distributed.errors import explain_peer_loss
from senet.training.distributed.gpus import check_gpus, describe_gpu, prepare_nccl, select_gpu
from senet.training.distributed.rendezvous import Launch, meet
from senet.training.signals import StopRequest
from senet.utils.errors import DataError, ModelFileError, PeerLostError, SenetError, TrainingError
from senet.utils.ranks import is_alone, rank_and_world_size

__all__ = ["TIMEOUT", "Processes", "close_processes", "open_processes"]

# Seconds that a process waits for others: longer than an epoch's files take to write, and short enough for a night.
TIMEOUT = 600.0
# MiB of gradients that are summed at a time while backward continues: PyTorch's default.
BUCKET = 25
# The classes of which an error of one process is raised in the others.
_KINDS = (DataError, ModelFileError, TrainingError, TypeError, OSError, ValueError)

T = TypeVar("T")


class Processes:
    """The processes of a run, as seen from one of them.

    Args:
        device: on which this process trains.
        rank: of this process, from 0.
        world_size: number of processes; 1 makes every operation the identity.
        timeout: seconds that this process waits for others.
        launch: the call of torchrun that started this process.

    Attributes:
        local_world_size: number of processes on this machine.
        stop: signals of this process, which `sum_numbers` shares with the others.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        rank: int = 0,
        world_size: int = 1,
        timeout: float = TIMEOUT,
        launch: Launch | None = None,
    ) -> None:
        self.device, self.rank, self.world_size, self.timeout = device, rank, world_size, timeout
        self.launch = launch or Launch()
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.is_distributed else 1
        self.stop: StopRequest | None = None

    @property
    def is_distributed(self) -> bool:
        """Whether there are several processes."""
        return self.world_size > 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and reports to the user."""
        return self.rank == 0

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """Sum each number over all processes, in float64; a signal that any process received becomes known to all."""
        if not self.is_distributed:
            return list(values)
        received = None if self.stop is None else self.stop.received
        flags = [float(received == signal.SIGINT), float(received == signal.SIGTERM)]
        *sums, interrupted, terminated = self.summed(torch.tensor([*values, *flags], dtype=torch.float64)).tolist()
        if self.stop is not None and (interrupted or terminated):
            self.stop.signal = int(signal.SIGTERM if terminated else signal.SIGINT)
        return sums

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on the same device.

        Args:
            values: on the CPU, where no process waits for its GPU; or on this process's device, where a GPU sums after
                the operations enqueued before, and the CPU does not wait.
        """
        if not self.is_distributed:
            return values
        # A process group that other code made may have no backend for the CPU.
        known = f"{values.device.type}:" in torch.distributed.get_backend_config()
        with self._detecting_peer_loss():
            total = values.to(values.device if known else self.device, copy=True)
            torch.distributed.all_reduce(total)
            return total.to(values.device)

    def sum_in_place(self, values: Tensor) -> None:
        """Sum a tensor on this process's device over all processes, in place; the host does not wait for a GPU."""
        if self.is_distributed:
            with self._detecting_peer_loss():
                torch.distributed.all_reduce(values)

    def gather(self, value: T) -> list[T]:
        """Return the value of each process, by rank."""
        found: list[Any] = [value] * self.world_size
        if self.is_distributed:
            with self._detecting_peer_loss():
                torch.distributed.all_gather_object(found, value)
        return found

    def union(self, names: list[str]) -> list[str]:
        """Return the names that any process has, each once."""
        if not self.is_distributed:
            return names
        return list(dict.fromkeys(name for some in self.gather(names) for name in some))

    def from_first(self, compute: Callable[[], T]) -> T:
        """Call a function in the first process, and return its result in all; if it fails, all processes fail."""
        found: list[Any] = [None]
        with self.fail_together():
            if self.is_first:
                found[0] = compute()
        if self.is_distributed:
            with self._detecting_peer_loss():
                torch.distributed.broadcast_object_list(found)
        return found[0]  # type: ignore[no-any-return]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy the first process's buffers to all: each process has batch norm statistics of its own."""
        if self.is_distributed:
            with self._detecting_peer_loss():
                for buffer in model.buffers():
                    torch.distributed.broadcast(buffer, 0)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Before a run starts: an error in one process becomes an error in all, which one process reports."""
        if not self.is_distributed:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except (SenetError, ValueError, TypeError, OSError) as error:
            if isinstance(error, PeerLostError):
                raise
            failure = error
        kind = next((kind for kind in _KINDS if isinstance(failure, kind)), ValueError)
        failures = self.gather(None if failure is None else (kind, str(failure)))
        rank, found = next(((rank, found) for rank, found in enumerate(failures) if found), (0, None))
        if found is None:
            return
        if failure is None or None in failures:  # not all processes failed: name the one that did
            kind, message = found
            failure = kind(f"process {rank} of {self.world_size}: {message}")
        raise self.mark_shared(failure)

    def mark_shared(self, error: Exception) -> Exception:
        """Record that all processes raise an error, and that the first one reports it; returns the error."""
        return errors.mark_shared(error, self.rank) if self.is_distributed else error

    def final_error(self, message: str, error: Exception) -> TrainingError:
        """Return the error that ends a started run, see `senet.training.distributed.errors.final_error`."""
        if not self.is_distributed:
            return TrainingError(message)
        return errors.final_error(message, error, self.rank, self.world_size)

    def batch_sizes(self, images: int, weight: float) -> tuple[list[int], float]:
        """Return how many images of a batch each process has, by rank, and the weight of the whole batch.

        Args:
            images: of the batch, in this process.
            weight: sum of their class weights, in this process.
        """
        if not self.is_distributed:
            return [images], weight
        own = [float(images * (rank == self.rank)) for rank in range(self.world_size)]
        *counts, weight = self.sum_numbers([*own, weight])
        return [int(count) for count in counts], weight

    def data_parallel(self, model: nn.Module, unused: bool) -> nn.Module:
        """Return a network whose gradients become the mean over all processes during backward.

        Args:
            model: on this process's device; all processes get the first one's weights and buffers.
            unused: whether some parameters get no gradient, and other processes must not wait for one.
        """
        self.broadcast_buffers(model)
        with self._detecting_peer_loss(), warnings.catch_warnings():
            # Newer versions of PyTorch rename broadcast_buffers, and warn of this name.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                bucket_cap_mb=BUCKET,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,
                find_unused_parameters=unused,
            )

    @contextmanager
    def _detecting_peer_loss(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            explanation = explain_peer_loss(error, self.timeout)
            if not explanation or isinstance(error, PeerLostError):
                raise
            raise PeerLostError(explanation) from error


_opened: Processes | None = None


def open_processes(device: torch.device, timeout: float = TIMEOUT) -> Processes:
    """Return the processes that torchrun started with this one; or this process alone.

    Args:
        device: of the recipe; if it is a GPU, each process of a machine gets its own.
        timeout: seconds to wait for a process that does not answer, before the run ends.

    Raises:
        ValueError: an invalid time-out, a device that processes cannot share, or more processes on a machine than GPUs.
    """
    global _opened
    if not 0 < timeout < 1e7:
        raise _shared_error(f"timeout must be seconds above 0, got {timeout}")
    if is_alone():
        return Processes(device, timeout=timeout, launch=Launch.of_this_process(timeout))
    if _opened is not None:
        return _opened
    if device.type not in ("cpu", "cuda"):
        raise _shared_error(f"several processes train on device=cpu or device=cuda, got {device.type!r}")
    on_gpu = device.type == "cuda"
    if on_gpu:
        prepare_nccl()
        try:
            device = select_gpu()
        except ValueError as error:
            raise _shared_error(str(error)) from error
    launch = meet(device, timeout)
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if on_gpu:
        _check_gpus(device, rank, world_size)
    _opened = Processes(device, rank=rank, world_size=world_size, timeout=timeout, launch=launch)
    return _opened


def _check_gpus(device: torch.device, rank: int, world_size: int) -> None:
    """Check that no two processes have the same GPU; all processes raise the error."""
    found: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(found, describe_gpu(device))
    try:
        check_gpus(found)
    except ValueError as error:
        raise errors.mark_shared(error, rank) from error


def _shared_error(message: str) -> Exception:
    """Return an error that all processes raise before they have met."""
    rank, world_size = rank_and_world_size()
    error = ValueError(message)
    return error if world_size == 1 else errors.mark_shared(error, rank)


def close_processes() -> None:
    """Leave the process group that `open_processes` made; a later run meets the other processes again."""
    global _opened
    if _opened is not None:
        torch.distributed.destroy_process_group()
        _opened = None
