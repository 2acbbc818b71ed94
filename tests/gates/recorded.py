"""Figures of gates by another way: all gates in memory, numpy in float64."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet.gates.recording.arrays_file import read_arrays
from senet.gates.recording.record import Gates
from senet.gates.recording.statistics import Statistics
from senet.graph.se_modules import SEUnit, find_se

Pairs = Sequence[tuple[Tensor, Tensor]]


def some_batches(
    sizes: Sequence[int] = (5, 3, 4), *, classes: int = 3, side: int = 32, channels: int = 3, dtype: Any = None
) -> list[tuple[Tensor, Tensor]]:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(n, channels, side, side, generator=generator).to(dtype or torch.float32),
            torch.randint(0, classes, (n,), generator=generator),
        )
        for n in sizes
    ]


@torch.no_grad()
def seen_by_hooks(model: nn.Module, pairs: Pairs) -> dict[str, dict[str, np.ndarray]]:
    """Of each SE module gates, squeezes, inputs and outputs of the activation: (M, P, C), of all images."""
    kept: dict[str, dict[str, list[np.ndarray]]] = {}
    handles = []
    for unit in find_se(model):
        store = kept.setdefault(unit.name, {"gates": [], "squeezes": [], "inputs": [], "outputs": []})
        first = unit.expand if unit.reduce is None else unit.reduce
        see = {
            key: lambda m, a, *o, s=store, u=unit, k=key: s[k].append(_rows(o[0] if o else a[0], u)) for key in store
        }
        handles.append(first.register_forward_pre_hook(see["squeezes"]))
        if unit.activation is not None:
            handles.append(unit.activation.register_forward_pre_hook(see["inputs"]))
            handles.append(unit.activation.register_forward_hook(see["outputs"]))
        handles.append(
            unit.gate.register_forward_hook(
                lambda m, a, o, s=store, u=unit: s["gates"].append(_rows(o if u.gain == 1 else o * u.module.gain, u))
            )
        )
    model.eval()
    for images, _ in pairs:
        model(images)
    for handle in handles:
        handle.remove()
    return {
        name: {key: np.concatenate(arrays) for key, arrays in store.items() if arrays}
        for name, store in kept.items()
        if store["gates"]
    }


def _rows(values: Tensor, unit: SEUnit) -> np.ndarray:
    values = values.detach().clone().double()
    several = values.ndim > 2 and (unit.squeeze == "none" or getattr(unit.module, "window", None) is not None)
    values = values.flatten(1, -2) if several else values.flatten(1)[:, None]
    return values.numpy()


def check(statistics: Statistics, values: np.ndarray, labels: np.ndarray, relative: float = 1e-12) -> None:
    """Figures against all values, (M, P, C)."""
    images = values.mean(1)
    close(statistics.images, np.bincount(labels, minlength=len(statistics.images)), 0)
    means, squares = np.zeros_like(statistics.means), np.zeros_like(statistics.squares)
    for label in np.unique(labels):
        of = images[labels == label]
        means[label], squares[label] = of.mean(0), ((of - of.mean(0)) ** 2).sum(0)
    close(statistics.means, means, relative)
    close(statistics.squares, squares, relative)
    close(statistics.mean, images.mean(0), relative)
    close(statistics.variance, images.var(0), relative)
    flat = values.reshape(-1, values.shape[2])
    close(statistics.minimum, flat.min(0), 0)
    close(statistics.maximum, flat.max(0), 0)
    edges = statistics.edges
    inside = flat.clip(edges[0], edges[-1])
    close(statistics.histogram, np.stack([np.histogram(column, edges)[0] for column in inside.T]), 0)
    if values.shape[1] > 1:
        assert statistics.space_variance is not None
        close(statistics.space_variance, values.var(1).mean(0), relative)
    if statistics.correlation is not None:
        close(statistics.comoments, (images - images.mean(0)).T @ (images - images.mean(0)), relative)


def close(actual: Any, expected: Any, relative: float) -> None:
    """Whole arrays, relative to the largest value that is expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max(initial=0)
    assert error <= relative * max(np.abs(expected).max(initial=0), 1e-30), error


def same_bits(one: Gates, other: Gates) -> bool:
    """Whether two recordings have the same figures and samples to the bit."""
    return flat(one) == flat(other)


def save_as_0_1(gates: Gates, path: Path) -> None:
    """Write a recording as senet 0.1 did: the same keys in an .npz archive, of format 1."""
    with TemporaryDirectory() as folder:
        gates.save(Path(folder) / "gates.safetensors")
        about, arrays = read_arrays(Path(folder) / "gates.safetensors", 2)
    text = np.frombuffer(json.dumps(about | {"format": 1}).encode(), np.uint8)
    np.savez(path, about=text, **arrays)


def flat(value: Any) -> Any:
    """Of arrays and dataclasses, something that can be compared."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, list):
        return [flat(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: flat(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
