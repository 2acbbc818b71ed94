"""Every annotation of a shape is checked while the tests run."""

import ast
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import senet
from senet.data.augmentation import crop_and_flip
from senet.models.shake_mix import ShakeShakeMix
from tests.conftest import SHAPED

_SOURCE = Path(senet.__file__).parent


def _module(path: Path) -> str:
    return ".".join(("senet", *path.relative_to(_SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def _imports_jaxtyping(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping":
            return True
        if isinstance(node, ast.Import) and any(name.name == "jaxtyping" for name in node.names):
            return True
    return False


def test_shapes_of_every_module_are_checked() -> None:
    """A new module with shapes was checked only if somebody thought of the list."""
    paths = {_module(path): path for path in _SOURCE.rglob("*.py")}
    shaped = {name for name, path in paths.items() if _imports_jaxtyping(path)}
    assert shaped <= set(SHAPED) <= set(paths)


def test_a_wrong_shape_is_an_error() -> None:
    pixels, flips = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.bool)
    offsets = torch.zeros(2, 2, dtype=torch.long)
    assert torch.equal(crop_and_flip(pixels, offsets, flips, 0, (0, 0, 0)), pixels)
    with pytest.raises(TypeCheckError, match="offsets"):
        crop_and_flip(pixels, offsets[:1], flips, 0, (0, 0, 0))


def test_a_wrong_shape_of_a_mix_is_an_error() -> None:
    with pytest.raises(TypeCheckError, match="y2"):
        ShakeShakeMix(3)(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
