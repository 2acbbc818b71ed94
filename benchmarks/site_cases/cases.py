"""Networks with the places where SE is expected, and what is right and wrong among the sites that are found.

An expectation is a line of text, `COUNT BLOCKS = PLACES`. BLOCKS selects modules by a glob of their names, by their
class, or by both: `layer*.*`, `:Bottleneck`, `blocks.*.*:InvertedResidual`. A `*` does not match a dot. PLACES are
modules in such a block where SE acts equally well, selected likewise, and `.` is the block itself. COUNT is checked
against the network.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Blocks", "Case", "Verdict", "image", "judge"]


@dataclass(frozen=True)
class Blocks:
    """Blocks of a network, each with one site at one of several places.

    Attributes:
        count: the number of blocks in the network.
        names: a glob of their names; "" for any name.
        kind: the name of their class; "" for any class.
        places: globs of module names in a block; "." is the block.
        optional: whether a block may have no site.
    """

    count: int
    names: str
    kind: str
    places: tuple[str, ...]
    optional: bool = False

    @classmethod
    def parse(cls, text: str, *, optional: bool = False) -> "Blocks":
        """Read `COUNT BLOCKS = PLACES`."""
        count, blocks, equals, *places = text.split()
        names, _, kind = blocks.partition(":")
        if equals != "=" or not places:
            raise ValueError(f"invalid expectation {text!r}: expected COUNT BLOCKS = PLACES")
        return cls(int(count), names, kind, tuple(places), optional)

    def find(self, model: nn.Module) -> list[str]:
        """Return the names of the blocks.

        Raises:
            ValueError: the network has another number of them.
        """
        found = [
            name
            for name, module in model.named_modules()
            if (not self.names or _matches(name, self.names)) and self.kind in ("", type(module).__name__)
        ]
        if len(found) != self.count:
            raise ValueError(f"expected {self.count} blocks {self.names}:{self.kind}, the network has {len(found)}")
        return found

    def sites(self, model: nn.Module, block: str) -> set[str]:
        """Return the names of the modules that are places in a block."""
        found = set()
        for inner, module in model.get_submodule(block).named_modules():
            for place in self.places:
                glob, _, kind = place.partition(":")
                if _matches(inner or ".", glob) and kind in ("", type(module).__name__):
                    found.add(".".join(part for part in (block, inner) if part))
        return found


def _matches(name: str, glob: str) -> bool:
    """Match a name to a glob part by part, so that `*` does not match a dot."""
    if "." in (name, glob):
        return name == glob
    parts, globs = name.split("."), glob.split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def image(*shape: int) -> Tensor:
    """Make up an input, the same in every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Case:
    """A network and where SE is expected in it.

    Attributes:
        name: library and network, as in the table.
        build: builds the network, without pretrained weights.
        blocks: where SE is expected; empty if the network is refused.
        why: the reason, from the code of the network.
        inputs: what the network takes in the checks.
        example: whether `find_sites` needs `inputs` as its example.
        training: what the network takes in training, where that is something else.
        refused: a part of the message with which the network is refused.
    """

    name: str
    build: Callable[[], nn.Module]
    blocks: tuple[Blocks, ...] = ()
    why: str = ""
    inputs: Callable[[], Any] = field(default=lambda: image(2, 3, 64, 64))
    example: bool = False
    training: Callable[[], Any] | None = None
    refused: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the sites found in a network.

    Attributes:
        wrong: sites that are at no expected place, or second ones of a block.
        missing: blocks without a site.
    """

    wrong: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def sensible(self) -> bool:
        """Whether every block has one site, and no site is anywhere else."""
        return not self.wrong and not self.missing


def judge(model: nn.Module, blocks: Iterable[Blocks], sites: Sequence[str]) -> Verdict:
    """Compare the names of the sites found in a network with the expectation."""
    wrong, missing = dict.fromkeys(sites), []
    for group in blocks:
        for block in group.find(model):
            places = group.sites(model, block)
            here = [site for site in sites if site in places]
            for site in here[:1]:
                wrong.pop(site, None)
            if not here and not group.optional:
                missing.append(block)
    return Verdict(tuple(wrong), tuple(missing))
