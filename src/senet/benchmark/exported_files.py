"""Exported files to measure: both get the same images, and each one runs in its own engine."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

from torch import nn

from senet.benchmark.engine_process import Job
from senet.deployment.engines import ExportedNetwork, is_exported, load_exported
from senet.utils.arguments import argument, argument_name, in_python_or
from senet.utils.choices import BenchEngine, Precision
from senet.utils.sizes import SizeLike, size_pair

__all__ = ["Entry", "entries_of_files"]

_ENGINES: dict[str, BenchEngine] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "eager"}
# Pixels of a side where neither the files nor the options state it.
_SIDE = 224


class Entry(NamedTuple):
    """A network to measure.

    Attributes:
        name: for the result.
        job: what its process runs.
        precision: of the file; None if senet did not write it.
    """

    name: str
    job: Job
    precision: Precision | None = "fp32"


def entries_of_files(
    model: str | PathLike[str],
    against: object,
    *,
    engine: BenchEngine | None,
    batch: int | None,
    size: SizeLike | None,
    threads: int,
) -> list[Entry]:
    """Return an exported file and its baseline, another exported file, to run on the same images.

    Args:
        model: the file.
        against: the other file.
        engine: that of `model`, or None.
        batch: images per step; None is what the files fix, or 1.
        size: of the images; None is what the files fix, the crop of their preprocessing, or 224.
        threads: of the engines.

    Raises:
        ModelFileError: a file cannot be loaded.
        ImportError: an engine is not installed.
        ValueError: `against` is no exported file, another engine is given, or a file does not take the images.
    """
    if not isinstance(against, str | PathLike) or not is_exported(against):
        what = type(against).__name__ if isinstance(against, nn.Module) else against
        given = "" if against is None else f", got {what}"
        raise ValueError(
            f"{model} is an exported file, which is compared with another one{given}: export the network without SE, "
            f"and name that file with {argument('against')}"
        )
    networks = [load_exported(path) for path in (model, against)]
    own = _ENGINES[networks[0].format]
    if engine not in (None, own):
        raise ValueError(
            f"{model} runs in {own}, got {argument('engine', engine)}: leave it out, or export the network for {engine}"
        )
    shape = _shape(networks, batch, size)
    return [
        Entry(str(network.path), Job(_ENGINES[network.format], str(network.path), shape, threads), network.precision)
        for network in networks
    ]


def _shape(networks: Sequence[ExportedNetwork], batch: int | None, size: SizeLike | None) -> tuple[int, ...]:
    """Return the shape (N, C, H, W) of the images.

    Raises:
        ValueError: see `entries_of_files`.
    """
    fixed = [_axes(network) for network in networks]
    first, second = networks
    if any(None not in pair and len(set(pair)) > 1 for pair in zip(*fixed, strict=True)):
        raise ValueError(
            f"{first.path} takes {first.inputs[0].text}, and {second.path} {second.inputs[0].text}: export both for "
            f"the same images, or with {in_python_or('dynamic=', '--dynamic')}"
        )
    given = [batch, None, *((None, None) if size is None else size_pair(size))]
    crop = next((one.preprocessing.crop for one in networks if one.preprocessing is not None), _SIDE)
    agreed = [next((length for length in lengths if length is not None), None) for lengths in zip(*fixed, strict=True)]
    shape: list[int] = []
    for wanted, length, default in zip(given, agreed, (1, 3, *size_pair(crop)), strict=True):
        if None not in (wanted, length) and wanted != length:
            option = argument_name("batch" if not shape else "size")
            raise ValueError(
                f"{first.path} and {second.path} take {length} {'images' if not shape else 'pixels'}, got "
                f"{wanted}: leave {option} out, or export both with {in_python_or('dynamic=', '--dynamic')}"
            )
        shape.append(wanted or length or default)
    return tuple(shape)


def _axes(network: ExportedNetwork) -> tuple[int | None, ...]:
    """Return what a file fixes of (N, C, H, W), None where it takes any length.

    Raises:
        ValueError: its input is no batch of images.
    """
    port: Any = network.inputs[0] if len(network.inputs) == 1 else None
    if port is None or len(port.shape) != 4:
        raise ValueError(f"{network.path} has other inputs than images (N, C, H, W): {network}")
    batch, *sides = port.shape
    return (batch, sides[-1], *sides[:-1]) if network.takes_pixels else (batch, *sides)
