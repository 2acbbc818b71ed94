"""Candidate sites in the residual units and known blocks of a network, before their channels and stages are known."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from senet.graph.example_inputs import CONVOLUTIONS, Example
from senet.graph.se_search import attends_to_channels
from senet.graph.stages import UnitStages
from senet.insertion.attachment import attachment, locate
from senet.insertion.families import Spot, family_of, unit_of
from senet.insertion.site import Rule
from senet.insertion.unit_checks import UnitChecks, is_trusted_unit
from senet.nn.recalibration import Attachment, Recalibrate, base_class
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["Candidate", "Candidates"]

# Children of other libraries' residual units with attention that is not SE, such as ECA.
_ATTENTION = ("se", "se_module")


@dataclass(frozen=True)
class Candidate:
    """A site before its channels and stage are known.

    `first_stage` is the family's first stage; None for modules named by `at`.
    """

    name: str
    how: Attachment
    unit: str
    channels: int | None = None
    stage: int | None = None
    first_stage: int | None = None
    rule: Rule = "table"


class Candidates:
    """Candidate sites of a placement in a network's known blocks.

    Attributes:
        blocks: names of the known blocks that `all` passed.
        refused: modules that have the children of a residual unit but are none, with the reason.

    Args:
        model: the network.
        placement: one of `PLACEMENTS`.
        example: as for `find_sites`.
    """

    def __init__(self, model: nn.Module, placement: str, example: Example | None) -> None:
        self._model, self._placement = model, placement
        self._checks = UnitChecks(model, example)
        self._example = example
        self.blocks: list[str] = []
        self.refused: dict[str, str] = {}

    def all(self) -> Iterator[Candidate]:
        """Yield the candidates in the order of the network's modules."""
        stages = UnitStages()
        refused = self._refuse()
        for name, block in self._model.named_modules():
            known = family_of(block)
            if known is not None:
                family, spots = known
                self.blocks.append(name)
                for unit_name, child in spots if self._placement == "standard" else ():
                    how = attachment(block.get_submodule(child), "output")
                    yield Candidate(_join(name, child), how, _join(name, unit_name), first_stage=family.first_stage)
                continue
            unit = unit_of(block)
            if unit is None:
                continue
            spot = unit.spots[self._placement]
            if base_class(block) in refused:
                continue
            self.blocks.append(name)
            stage = stages.next(name)
            _refuse_attention(name, block)
            yield self._of_unit(name, block, spot, stage)

    def _refuse(self) -> set[type[nn.Module]]:
        """Fill `refused`, and return its classes.

        None of their modules is a known block, so that one rule finds all, and their stages are counted alike.
        """
        for name, block in self._model.named_modules():
            unit = unit_of(block) if family_of(block) is None else None
            if unit is not None and not is_trusted_unit(block):
                why = self._checks.why_not(name, block, unit)
                if why:
                    self.refused[name] = why
        return {base_class(self._model.get_submodule(name)) for name in self.refused}

    def _of_unit(self, name: str, block: nn.Module, spot: Spot, stage: int) -> Candidate:
        child, how = locate(name, block, spot)
        if how == "skip" and not is_trusted_unit(block) and not self._checks.runs_slot(name, block, spot.child):
            raise ValueError(
                f"the residual unit {name!r} ({type(block).__name__}) does not call a module in its empty "
                f"{spot.child!r}, so SE there would have no effect; use another placement, or put a torch.nn.Identity "
                f"there that its forward calls"
            )
        conv = getattr(block, spot.conv)
        channels = getattr(conv, spot.channels, None)
        if not isinstance(channels, int) and (self._example is None or how == "skip"):
            raise MissingExampleError(
                f"the residual unit {name!r}: its {spot.conv!r} ({type(conv).__name__}) has no attribute "
                f"{spot.channels}; give {argument('example')}, an input of the network, or choose another placement"
            )
        return Candidate(_join(name, child), how, name, channels if isinstance(channels, int) else None, stage)


def _refuse_attention(name: str, unit: nn.Module) -> None:
    for child, own in unit.named_children():
        if (
            child == "downsample"
            or isinstance(own, nn.Identity)
            or any(isinstance(m, Recalibrate) for m in own.modules())
        ):
            continue
        if child in _ATTENTION or attends_to_channels(own, _widths(unit)):
            raise ValueError(
                f"{name}.{child} is attention of the network's own ({type(own).__name__}), and SE would scale the same "
                f"channels again; take the plain network"
            )


def _widths(unit: nn.Module) -> list[tuple[int, int]]:
    """Return channels and spatial axes of the maps that a unit's convolutions make, those of the last one first."""
    convolutions = [m for m in unit.children() if isinstance(m, CONVOLUTIONS)]
    sizes = [(m.out_channels, len(m.kernel_size)) for m in reversed(convolutions)]
    return list(dict.fromkeys(sizes))


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
