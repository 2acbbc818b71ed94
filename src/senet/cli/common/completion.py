"""Names of networks and recipes that a shell offers after Tab.

Importing PyTorch takes seconds, so names are read from the source of the tables, and nothing is imported.
"""

import re
from importlib.util import find_spec
from pathlib import Path

__all__ = ["complete_network", "complete_recipe"]

# How a network is defined: a row of the catalogue; a function of timm; one of torchvision.
_CATALOGUE = re.compile(r'_(?:imagenet|cifar)\(\s*"(\w+)"(?:(?:(?!_imagenet|_cifar)[\s\S])*?se_name="(\w+)")?')
_FUNCTIONS = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_LIBRARIES = ("timm", "torchvision")
_DETECTORS = ("faster_rcnn", "retinanet")


def complete_network(incomplete: str) -> list[str]:
    """Return the names of networks that begin with a text; those of libraries and detectors once a prefix is there."""
    detector = next((kind for kind in _DETECTORS if incomplete.startswith(f"{kind}:")), None)
    if detector is not None:
        return [f"{detector}:{name}" for name in complete_network(incomplete.removeprefix(f"{detector}:"))]
    names = [*_of_catalogue(), *(f"{kind}:" for kind in _DETECTORS if incomplete)]
    text = incomplete.removeprefix("se_")
    for library in _LIBRARIES:
        if text and f"{library}/".startswith(text[: len(library) + 1]):
            prefix = incomplete[: len(incomplete) - len(text)]
            names += [f"{prefix}{library}/{name}" for name in _of_library(library)]
    return [name for name in names if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names of built-in recipes that begin with a text; without one, the shell completes files."""
    folder = Path(__file__).parents[2] / "recipes"
    return sorted(path.stem for path in folder.glob("*.toml") if path.stem.startswith(incomplete))


def _of_catalogue() -> list[str]:
    source = (Path(__file__).parents[2] / "models/table.py").read_text(encoding="utf-8")
    return [name for plain, se_name in _CATALOGUE.findall(source) for name in (plain, se_name or f"se_{plain}")]


def _of_library(library: str) -> list[str]:
    spec = find_spec(library)
    folders = () if spec is None else spec.submodule_search_locations or ()
    files = [path for folder in folders for path in sorted(Path(folder, "models").glob("*.py"))]
    return sorted(name for path in files for name in _FUNCTIONS.findall(path.read_text(encoding="utf-8")))
