"""Several processes that train one network together, as torchrun starts them; or one, and nothing is done.

Underneath are accelerate, which reads what torchrun says, and PyTorch's `DistributedDataParallel`. All that processes
say to each other goes through `Processes`, but for gradients and the statistics of synchronised batch norms.
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

from senet.training.distributed import errors as telling
from senet.training.distributed.errors import PeerLostError, explain_loss
from senet.training.distributed.gpus import check_gpus, describe_gpu, prepare_nccl, select_gpu
from senet.training.distributed.rendezvous import Launch, is_alone, meet, place
from senet.training.signals import StopRequest
from senet.utils.errors import DataError, ModelFileError, SenetError, TrainingError
from senet.utils.extras import install_command

__all__ = ["TIMEOUT", "Processes", "close_processes", "open_processes"]

# Seconds that a process waits for the others: longer than an epoch's files take, and no run hangs for a night.
TIMEOUT = 600.0
# MiB of gradients that are summed at a time, while the way back goes on: PyTorch's own default.
BUCKET = 25
_KINDS = {kind.__name__: kind for kind in (DataError, ModelFileError, TrainingError, TypeError, OSError)}

T = TypeVar("T")


class Processes:
    """The processes of a run, seen from one of them.

    Args:
        accelerator: accelerate's; None where this process is alone.
        device: that this process trains on.
        timeout: seconds that it waits for others.
        launch: of torchrun, that this process is of.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        local: how many there are on this machine.
        stop: signals, which all are told of whenever they add something up.
    """

    def __init__(
        self, accelerator: Any, device: torch.device, timeout: float = TIMEOUT, launch: Launch | None = None
    ) -> None:
        self.device, self.timeout = device, timeout
        self.launch = launch or Launch()
        self.rank: int = 0 if accelerator is None else accelerator.process_index
        self.world: int = 1 if accelerator is None else accelerator.num_processes
        self.local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.many else 1
        self.stop: StopRequest | None = None

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and tells the user."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Numbers, each added up over all processes, in float64; all of them hear of a signal that came to any."""
        if not self.many:
            return list(values)
        came = None if self.stop is None else self.stop.came
        flags = [float(came == signal.SIGINT), float(came == signal.SIGTERM)]
        *sums, interrupted, terminated = self.total(torch.tensor([*values, *flags], dtype=torch.float64)).tolist()
        if self.stop is not None and (interrupted or terminated):
            self.stop.signal = int(signal.SIGTERM if terminated else signal.SIGINT)
        return sums

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes.

        Args:
            values: on the CPU, where no process waits for its GPU; or on this process's device, where a GPU sums
                after the operations that were enqueued before, and the CPU does not wait.

        Returns:
            The sum, on the same device.
        """
        if not self.many:
            return values
        # A process group that somebody else made may have no backend for the CPU.
        known = f"{values.device.type}:" in torch.distributed.get_backend_config()
        with self._listening():
            summed = values.to(values.device if known else self.device, copy=True)
            torch.distributed.all_reduce(summed)
            return summed.to(values.device)

    def add_up(self, values: Tensor) -> None:
        """Add a tensor of this process's device up over all processes, in place; the host does not wait for a GPU."""
        if self.many:
            with self._listening():
                torch.distributed.all_reduce(values)

    def gather(self, value: T) -> list[T]:
        """What each process has, by rank."""
        found: list[Any] = [value] * self.world
        if self.many:
            with self._listening():
                torch.distributed.all_gather_object(found, value)
        return found

    def union(self, names: list[str]) -> list[str]:
        """Names that any process has, each once."""
        return names if not self.many else list(dict.fromkeys(name for some in self.gather(names) for name in some))

    def from_first(self, ask: Callable[[], T]) -> T:
        """What the first process finds, told to all; an error of its becomes one of all."""
        found: list[Any] = [None]
        with self.together():
            if self.first:
                found[0] = ask()
        if self.many:
            with self._listening():
                torch.distributed.broadcast_object_list(found)
        return found[0]  # type: ignore[no-any-return]

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: batch norms take their statistics each for itself."""
        if self.many:
            with self._listening():
                for buffer in model.buffers():
                    torch.distributed.broadcast(buffer, 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Before a run starts: what fails in one process fails in all, and one tells of it."""
        if not self.many:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except (SenetError, ValueError, TypeError, OSError) as error:
            if isinstance(error, PeerLostError):
                raise
            failed = error
        outcomes = self.gather(None if failed is None else (type(failed).__name__, str(failed)))
        rank, told = next(((rank, told) for rank, told in enumerate(outcomes) if told), (0, None))
        if told is None:
            return
        if failed is None or None in outcomes:  # it is not everybody's
            kind, text = told
            failed = _KINDS.get(kind, ValueError)(f"process {rank} of {self.world}: {text}")
        raise self.once(failed)

    def once(self, error: Exception) -> Exception:
        """An error that all processes come to alike, and the first one tells of."""
        return telling.shared(error, self.rank) if self.many else error

    def ended(self, message: str, error: Exception) -> TrainingError:
        """How a run ends by an error in its middle: who tells of it, and of which process it is."""
        return telling.ended(message, error, self.rank, self.world) if self.many else TrainingError(message)

    def shares(self, images: int, weight: float) -> tuple[list[int], float]:
        """Of a batch: how many images each process has, by rank, and the weight of all images together."""
        if not self.many:
            return [images], weight
        mine = [float(images * (rank == self.rank)) for rank in range(self.world)]
        *counts, weight = self.sum([*mine, weight])
        return [int(count) for count in counts], weight

    def parallel(self, model: nn.Module, unused: bool) -> nn.Module:
        """A network whose gradients become the mean over all processes as the way back goes on.

        Args:
            model: on this process's device; the first one's weights and buffers become everybody's.
            unused: whether there are parameters without a gradient, which the others are not to wait for.
        """
        self.share_buffers(model)
        with self._listening(), warnings.catch_warnings():
            # Newer PyTorch has another name for broadcast_buffers, and warns of this one.
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
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            meaning = explain_loss(error, self.timeout)
            if not meaning or isinstance(error, PeerLostError):
                raise
            raise PeerLostError(meaning) from error


_opened: Processes | None = None


def open_processes(device: torch.device, timeout: float = TIMEOUT) -> Processes:
    """The processes that torchrun started, of which this is one; or this one alone.

    Args:
        device: that the recipe names; of several GPUs each process of a machine gets its own.
        timeout: seconds to wait for a process that does not answer, before the run ends.

    Raises:
        ValueError: accelerate is not installed, an invalid time-out, a device that processes cannot share, or
            more processes on a machine than GPUs.
    """
    global _opened
    if not 0 < timeout < 1e7:
        raise _alike(f"timeout must be seconds above 0, got {timeout}")
    if is_alone():
        return Processes(None, device, timeout, Launch.of_this_process(timeout))
    if _opened is not None:
        return _opened
    if device.type not in ("cpu", "cuda"):
        raise _alike(f"several processes train on device=cpu or device=cuda, got {device.type!r}")
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise _alike(f"training with several processes needs accelerate: {install_command('train')}") from error
    on_gpu = device.type == "cuda"
    if on_gpu:
        prepare_nccl()
        try:
            device = select_gpu()
        except ValueError as error:
            raise _alike(str(error)) from error
    launch = meet(device, timeout)
    if on_gpu:
        _check_gpus(device)
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision="no")
    _opened = Processes(accelerator, device, timeout, launch)
    return _opened


def _check_gpus(device: torch.device) -> None:
    """Check that no two processes have the same GPU; an error is every process's."""
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, describe_gpu(device))
    try:
        check_gpus(found)
    except ValueError as error:
        raise telling.shared(error, torch.distributed.get_rank()) from error


def _alike(message: str) -> Exception:
    """An error that all processes come to before they have met."""
    rank, world = place()
    error = ValueError(message)
    return error if world == 1 else telling.shared(error, rank)


def close_processes() -> None:
    """Take leave of the other processes; the next run finds them anew."""
    global _opened
    if _opened is not None:
        from accelerate.state import AcceleratorState

        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        _opened = None
