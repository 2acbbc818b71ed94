"""The error of a data loader whose worker process ended."""

__all__ = ["is_worker_exit"]


def is_worker_exit(error: BaseException) -> bool:
    """Return whether an error says that a worker process of a `torch.utils.data.DataLoader` ended.

    PyTorch has no class for it: it raises a plain RuntimeError, from the loader or, by its handler of SIGCHLD, from
    any other statement of the main thread. Only the message says what happened; an exception that a worker raises has
    another one, and is the worker's own.

    Args:
        error: any exception.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
