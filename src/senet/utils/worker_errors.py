"""Recognize the error of a data loader whose worker process exited."""

__all__ = ["is_worker_exit"]


def is_worker_exit(error: BaseException) -> bool:
    """Return whether an error reports that a worker process of a `torch.utils.data.DataLoader` exited.

    PyTorch has no class for this error. It raises a RuntimeError from the loader or, in its SIGCHLD handler, from any
    statement of the main thread; only the message identifies it. Exceptions raised inside a worker have other messages.

    Args:
        error: any exception.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
