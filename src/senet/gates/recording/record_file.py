"""The file of a recording: an .npz that numpy reads by itself, without pickles.

Its keys, with b the place of a block from 0:

- `about`: bytes of a JSON text: format (1), network, data, classes, complete, state, and of each block what is no
  array, under the names that `BlockGates` has for it.
- `b/gates/FIELD`, `b/squeezes/FIELD`: the fields of `Statistics`.
- `b/hidden/FIELD`, `b/hidden/outputs/FIELD`: those of `HiddenUnits`, where there are any.
- `b/sample_gates`, `b/sample_squeezes`: (S, C) float32.
- `sample/indices`, `sample/labels`, `sample/thumbnails`: those of `Sample`.

Fields that are None are not there. Integers have 64 bits; numbers 64, but for the sample's.
"""

from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.arrays_file import read_arrays, write_arrays
from senet.gates.recording.record import BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Statistics
from senet.utils.errors import GatesError
from senet.utils.input_files import reading

__all__ = ["FORMAT", "load_gates", "save_gates"]

FORMAT = 1

_TEXTS = ("name", "label", "kind", "gate", "squeeze")
# Shapes of the fields of Statistics: lengths that are the same wherever their name is.
_SHAPES = {
    "images": "K",
    "means": "KC",
    "squares": "KC",
    "minimum": "C",
    "maximum": "C",
    "histogram": "CB",
    "edges": "E",
    "space": "C",
    "comoments": "CC",
}
_WHOLE = ("images", "histogram")
_OPTIONAL = ("space", "comoments")


def save_gates(gates: Gates, path: str | PathLike[str]) -> None:
    """Write a recording, see `Gates.save`."""
    arrays: dict[str, NDArray[Any]] = {}
    about = {
        "format": FORMAT,
        "network": gates.network,
        "data": gates.data,
        "classes": gates.classes,
        "complete": gates.complete,
        "state": gates.state,
        "blocks": [_put_block(arrays, place, block) for place, block in enumerate(gates.blocks)],
    }
    _put(arrays, "sample", gates.sample, ("indices", "labels", "thumbnails"))
    write_arrays(path, about, arrays)


def load_gates(path: str | PathLike[str]) -> Gates:
    """Read a recording of `Gates.save` or `senet.record_gates`.

    Raises:
        GatesError: the file is missing, broken, cut short, something else, or of a newer format; the message names it.
    """
    about, arrays = read_arrays(path, FORMAT)
    message = "cannot read {name}: {reason} is missing or not what a recording has; record the gates anew"
    with reading(path, error=GatesError, message=message):
        return _gates(about, arrays)


def _put(arrays: dict[str, NDArray[Any]], where: str, part: Any, names: tuple[str, ...]) -> None:
    for name in names:
        array = getattr(part, name)
        if array is not None:
            arrays[f"{where}/{name}"] = array


def _put_block(arrays: dict[str, NDArray[Any]], place: int, block: BlockGates) -> dict[str, Any]:
    for name in ("gates", "squeezes"):
        _put(arrays, f"{place}/{name}", getattr(block, name), tuple(_SHAPES))
    _put(arrays, f"{place}", block, ("sample_gates", "sample_squeezes"))
    hidden = block.hidden
    if hidden is not None:
        _put(arrays, f"{place}/hidden", hidden, ("positive", "weights"))
        _put(arrays, f"{place}/hidden/outputs", hidden.outputs, tuple(_SHAPES))
    names = [field.name for field in fields(block)]
    plain = {name: getattr(block, name) for name in names if isinstance(getattr(block, name), str | int | float | None)}
    return plain | {"calls": None if hidden is None else hidden.calls}


def _gates(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Gates:
    classes, blocks = about["classes"], about["blocks"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("the list of classes")
    if not isinstance(blocks, list) or not blocks:
        raise ValueError("the list of blocks")
    indices = _take(arrays, "sample/indices", np.int64, "S", sizes := {"K": len(classes)})
    labels = _take(arrays, "sample/labels", np.int64, "S", sizes)
    thumbnails = None
    if "sample/thumbnails" in arrays:
        thumbnails = _take(arrays, "sample/thumbnails", np.uint8, "STT3", sizes | {"3": 3})
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise ValueError("sample/labels")
    state = about["state"]
    if not isinstance(state, dict) or not isinstance(about["complete"], bool):
        raise ValueError("the state of the recording")
    return Gates(
        network=_text(about, "network"),
        data=_text(about, "data"),
        classes=classes,
        blocks=[_block(place, plain, arrays, sizes) for place, plain in enumerate(blocks)],
        sample=Sample(indices, labels, thumbnails),
        complete=about["complete"],
        state=state,
    )


def _block(
    place: int, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
) -> BlockGates:
    own = {"K": sizes["K"], "S": sizes["S"]}
    gates = _statistics(arrays, f"{place}/gates", own)
    squeezes = _statistics(arrays, f"{place}/squeezes", {"K": own["K"], "C": own["C"]})
    hidden, calls = None, plain["calls"]
    if calls is not None:
        within = {"K": 1}
        outputs = _statistics(arrays, f"{place}/hidden/outputs", within)
        positive = _take(arrays, f"{place}/hidden/positive", np.int64, "C", within)
        weights = _take(arrays, f"{place}/hidden/weights", np.float64, "C", within)
        hidden = HiddenUnits(positive, int(calls), outputs, weights)
    stage, activation = plain["stage"], plain["activation"]
    return BlockGates(
        **{name: _text(plain, name) for name in _TEXTS},
        stage=None if stage is None else int(stage),
        depth=float(plain["depth"]),
        gain=float(plain["gain"]),
        activation=None if activation is None else str(activation),
        gates=gates,
        squeezes=squeezes,
        hidden=hidden,
        sample_gates=_take(arrays, f"{place}/sample_gates", np.float32, "SC", own),
        sample_squeezes=_take(arrays, f"{place}/sample_squeezes", np.float32, "SC", own),
    )


def _statistics(arrays: Mapping[str, NDArray[Any]], where: str, sizes: dict[str, int]) -> Statistics:
    sizes.pop("B", None)
    found = {
        name: _take(arrays, f"{where}/{name}", np.int64 if name in _WHOLE else np.float64, shape, sizes)
        for name, shape in _SHAPES.items()
        if name not in _OPTIONAL or f"{where}/{name}" in arrays
    }
    if sizes["E"] != sizes["B"] + 1 or not (np.diff(found["edges"]) > 0).all() or found["images"].min() < 0:
        raise ValueError(f"{where}/edges or /images")
    if not all(np.isfinite(found[name]).all() for name in ("means", "squares")):
        raise ValueError(f"{where}/means or /squares")
    del sizes["E"]
    return Statistics(**found)


def _take(
    arrays: Mapping[str, NDArray[Any]], key: str, dtype: type[np.generic], shape: str, sizes: dict[str, int]
) -> NDArray[Any]:
    """An array of a dtype whose axes are as long as others of their names."""
    array = arrays[key]
    lengths = [sizes.setdefault(axis, n) for axis, n in zip(shape, array.shape, strict=False)]
    if array.dtype != dtype or array.ndim != len(shape) or tuple(lengths) != array.shape:
        raise ValueError(f"{key}, {array.dtype} of {array.shape},")
    return array


def _text(about: Mapping[str, Any], name: str) -> str:
    if not isinstance(about[name], str):
        raise ValueError(name)
    return str(about[name])
