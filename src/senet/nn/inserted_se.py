"""List the SE blocks that `senet.insert` added to a network."""

from dataclasses import dataclass

from torch import nn

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.recalibration import Attachment, Recalibrate

__all__ = ["InsertedSE", "find_inserted_se", "se_parameters"]


@dataclass(frozen=True)
class InsertedSE:
    """SE in a network.

    Attributes:
        name: name of the module at the site.
        how: "batch_norm", "input", "output" or "skip", as in `Site`.
        child: name of the child that holds SE, which is the placement, for "input" and "output"; otherwise "".
        se: the block.
    """

    name: str
    how: Attachment
    child: str
    se: SqueezeExcitation

    @property
    def se_name(self) -> str:
        """Name of the block, as in `named_modules`."""
        return ".".join(part for part in (self.name, self.child, "se") if part)


def find_inserted_se(model: nn.Module) -> list[InsertedSE]:
    """List SE from `insert`, and every `SEBatchNorm`, in the order of the network's modules."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, SEBatchNorm):
            found.append(InsertedSE(name, "batch_norm", "", module.se))
        elif isinstance(module, Recalibrate):
            parent, _, child = name.rpartition(".")
            site, child = (name, "") if module.how == "skip" else (parent, child)
            found.append(InsertedSE(site, module.how, child, module.se))
    return found


def se_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters of SE from `insert`, and of every `SEBatchNorm`."""
    return [parameter for insertion in find_inserted_se(model) for parameter in insertion.se.parameters()]
