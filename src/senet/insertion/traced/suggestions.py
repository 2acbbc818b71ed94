"""Globs of modules to paste into `at=`, for a network in which no sites were found."""

import re
from collections.abc import Callable, Iterator

from torch import nn

from senet.insertion.site_maps import known_channels
from senet.utils.arguments import argument

__all__ = ["suggest"]

# The most globs in a message, and the most that are tried for it.
_SHOWN = 2
_TRIED = 8
# The most names where no glob matches several modules.
_NAMES = 4


def suggest(model: nn.Module, works: Callable[[list[str]], bool]) -> str:
    """Return an `at=` that selects modules with known channels, as text: `at="blocks.*.bn2"`; "" if there is none.

    Norms come before convolutions, and what is repeated most before the rest; of several norms of a block, the last.

    Args:
        model: the network.
        works: whether sites are found at these names or globs.
    """
    found: list[str] = []
    for tried, globs in enumerate(_globs(model)):
        if tried == _TRIED or len(found) == _SHOWN:
            break
        if works(globs):
            found.append(argument("at", globs[0] if len(globs) == 1 else globs))
    return " or ".join(found)


def _globs(model: nn.Module) -> Iterator[list[str]]:
    for layers in (_norms(model), _convolutions(model)):
        groups: dict[str, list[str]] = {}
        for name in layers:
            groups.setdefault(_glob(name), []).append(name)
        order = {glob: place for place, glob in enumerate(groups)}
        repeated = [glob for glob, names in groups.items() if len(names) > 1]
        for glob in sorted(repeated, key=lambda glob: (-len(groups[glob]), -order[glob])):
            yield [glob]
        if layers and not repeated:
            yield layers[-_NAMES:]


def _norms(model: nn.Module) -> list[str]:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
    return [name for name, module in model.named_modules() if name and isinstance(module, kinds)]


def _convolutions(model: nn.Module) -> list[str]:
    kind = nn.modules.conv._ConvNd
    named = [(name, module) for name, module in model.named_modules() if name and isinstance(module, kind)]
    return [name for name, module in named if known_channels(module, "output")]


def _glob(name: str) -> str:
    """Return a name with `*` in place of the numbers of the modules around it: "layer*.*.bn2"."""
    around, _, last = name.rpartition(".")
    return f"{re.sub(r'[0-9]+', '*', around)}.{last}" if around else last
