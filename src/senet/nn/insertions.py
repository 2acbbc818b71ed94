"""The SE blocks that `senet.insert` put into a network, read from the network itself."""

from dataclasses import dataclass

from torch import nn

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.recalibration import Recalibrate

__all__ = ["Insertion", "insertions"]


@dataclass(frozen=True)
class Insertion:
    """SE as it stands in a network.

    Attributes:
        name: the module at which it acts.
        how: "batch_norm", "input", "output" or "skip", as in `Site`.
        child: the child that holds it, for "input" and "output": the placement; otherwise "".
        se: the block.
    """

    name: str
    how: str
    child: str
    se: SqueezeExcitation


def insertions(model: nn.Module) -> list[Insertion]:
    """Where SE stands in a network by `insert` or as `SEBatchNorm`, read off the network itself."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, SEBatchNorm):
            found.append(Insertion(name, "batch_norm", "", module.se))
        elif isinstance(module, Recalibrate):
            parent, _, child = name.rpartition(".")
            site, child = (name, "") if module.how == "skip" else (parent, child)
            found.append(Insertion(site, module.how, child, module.se))
    return found
