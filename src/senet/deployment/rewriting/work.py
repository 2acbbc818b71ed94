"""Count the work of a run: multiply-adds, and bytes that are read and written."""

from senet.graph.counts import count
from senet.graph.operations import Trace

__all__ = ["bytes_moved", "macs"]


def macs(run: Trace) -> int:
    """Count the multiply-adds of a run."""
    return sum(count(operation).macs for operation in run.operations)


def bytes_moved(run: Trace) -> int:
    """Count the bytes that the operations of a run read and write, each tensor once for each operation."""
    total = 0
    for operation in run.operations:
        if operation.overload is not None and not operation.overload.is_view:
            total += sum(value.nbytes for value in {*operation.inputs, *operation.outputs})
    return total
