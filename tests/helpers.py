"""What several tests need: one tolerance helper, statistics as of a trained network, a network by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from torch import Tensor, nn

from senet.models.table import CATALOGUE
from senet.utils.files import atomic_path

T = TypeVar("T")
R = TypeVar("R")


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-12) -> None:
    """Whole tensors, with an error relative to the largest value of what is expected."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.numel():
        scale = max(float(expected.detach().abs().max()), 1e-30)
        error = float((actual.detach() - expected.detach()).abs().max()) / scale
        assert error <= relative, f"relative error {error:.3g} above {relative:.3g}"


def randomise(model: nn.Module) -> nn.Module:
    """Parameters and statistics as a trained network might have them: none is zero, none is one."""
    for module in model.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
    return model


def noting(notes: list[T], note: Callable[..., T], function: Callable[..., R]) -> Callable[..., R]:
    """Return the function such that each call first appends a note of its arguments."""

    def noted(*args: object, **options: object) -> R:
        notes.append(note(*args, **options))
        return function(*args, **options)

    return noted


def write_no_curves(epochs: object, path: Path, title: str, panels: object) -> None:
    """Stand for `draw_curves`: an empty file, written as a picture is."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"")


@contextmanager
def shallow_resnet20() -> Iterator[None]:
    """Build `resnet20` and `se_resnet20` with one unit in each stage instead of three: a run takes half of the time."""
    row = CATALOGUE["resnet20"]
    with patch.dict(CATALOGUE, resnet20=replace(row, spec=replace(row.spec, units=(1, 1, 1)))):
        yield
