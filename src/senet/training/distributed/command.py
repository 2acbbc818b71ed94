"""A training command in each process that torchrun started: agree on the arguments, report each error once.

In short::

    with errors_reported_once():
        arguments = read_together(read, timeout)  # opens the processes; an error in one is an error in all
        run = train(...)
    if is_first(): print the result
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

from senet.recipes.recipe import Recipe
from senet.training.determinism import prepare_cublas
from senet.training.devices import pick_device
from senet.training.distributed.errors import is_reported_by_peer
from senet.training.distributed.processes import close_processes, open_processes
from senet.utils.errors import ReportedByPeerError
from senet.utils.ranks import is_alone

__all__ = ["errors_reported_once", "read_together"]


class _HasRecipe(Protocol):
    @property
    def recipe(self) -> Recipe: ...


T = TypeVar("T", bound=_HasRecipe)


@contextmanager
def errors_reported_once() -> Iterator[None]:
    """Run a command's work in each process, and close the processes after it.

    Raises:
        ReportedByPeerError: the work failed, and another process reports it; this one ends without a message.
        Exception: the work failed, and this process reports it.
    """
    try:
        yield
    except Exception as error:
        if not is_alone():
            # torchrun terminates all processes as soon as one ends; this one may not have printed its error yet.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if is_reported_by_peer(error):
            raise ReportedByPeerError(error) from error
        raise
    close_processes()


def read_together(read: Callable[[], T], timeout: float) -> T:
    """Read a command's arguments in every process; if one process fails, all fail.

    Args:
        read: returns the arguments, among them the recipe, whose device the processes use.
        timeout: seconds to wait for a process that does not answer.

    Raises:
        ValueError, TypeError, OSError: `read` failed in this process or in another one.
    """
    if is_alone():
        return read()
    arguments: T | None = None
    failure: Exception | None = None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        arguments = read()
        device = pick_device(arguments.recipe)
        if arguments.recipe.deterministic:
            prepare_cublas(device)  # before `open_processes` starts CUDA
    except (ValueError, TypeError, OSError) as error:
        failure = error
    with open_processes(device, timeout).fail_together():
        if failure is not None:
            raise failure
    assert arguments is not None
    return arguments
