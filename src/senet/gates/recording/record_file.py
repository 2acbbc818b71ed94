"""Read the file of a recording, which `Gates.save` writes: safetensors with a JSON text in the metadata.

The text has the metadata key `about`. It holds the format (2), network, data, classes, complete, state, and for each
block the fields of `BlockGates` that are not arrays. The arrays have these keys; b is the index of a block from 0:

- `b/gates/FIELD`, `b/squeezes/FIELD`: the fields of `Statistics`.
- `b/hidden/FIELD`, `b/hidden/outputs/FIELD`: the fields of `HiddenUnits`, if the block has hidden units.
- `b/sample_gates`, `b/sample_squeezes`: (S, C) float32.
- `sample/indices`, `sample/labels`, `sample/thumbnails`: the fields of `Sample`.
- `sha256`: (32,) uint8, a checksum of the text and the other arrays.

Fields that are None are absent. Integers are int64 and numbers float64, except for the sample's gates (float32) and
thumbnails (uint8). senet 0.1 wrote the same keys to an .npz archive (format 1), which `load_gates` also reads.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.gates.recording.arrays_file import read_arrays
from senet.gates.recording.record import FORMAT, BlockGates, Gates, HiddenUnits, Sample
from senet.gates.recording.statistics import Statistics
from senet.utils.errors import GatesError
from senet.utils.input_files import reading

__all__ = ["load_gates"]

_TEXTS = ("name", "label", "kind", "gate", "squeeze")
# Axes of the fields of Statistics. Axes with the same letter have the same length.
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
_INTEGERS = ("images", "histogram")
_OPTIONAL = ("space", "comoments")


def load_gates(path: str | PathLike[str]) -> Gates:
    """Read a recording that `Gates.save`, `senet.record_gates` or `senet gates` wrote. A file never runs code.

    Raises:
        GatesError: the file is missing, damaged, incomplete, of another kind or of a newer format; the message names
            it.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> _ = senet.record_gates(model, "photos", output="photos.gates")
        >>> senet.load_gates("photos.gates").complete
        True
    """
    about, arrays = read_arrays(path, FORMAT)
    message = "cannot read {name}: {reason} is missing or invalid; record the gates again"
    with reading(path, error=GatesError, message=message):
        return _gates(about, arrays)


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
        blocks=[_block(index, plain, arrays, sizes) for index, plain in enumerate(blocks)],
        sample=Sample(indices, labels, thumbnails),
        complete=about["complete"],
        state=state,
    )


def _block(
    index: int, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], sizes: Mapping[str, int]
) -> BlockGates:
    own = {"K": sizes["K"], "S": sizes["S"]}
    gates = _statistics(arrays, f"{index}/gates", own)
    squeezes = _statistics(arrays, f"{index}/squeezes", {"K": own["K"], "C": own["C"]})
    hidden, calls = None, plain["calls"]
    if calls is not None:
        within = {"K": 1}
        outputs = _statistics(arrays, f"{index}/hidden/outputs", within)
        positive = _take(arrays, f"{index}/hidden/positive", np.int64, "C", within)
        weights = _take(arrays, f"{index}/hidden/weights", np.float64, "C", within)
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
        sample_gates=_take(arrays, f"{index}/sample_gates", np.float32, "SC", own),
        sample_squeezes=_take(arrays, f"{index}/sample_squeezes", np.float32, "SC", own),
    )


def _statistics(arrays: Mapping[str, NDArray[Any]], key: str, sizes: dict[str, int]) -> Statistics:
    sizes.pop("B", None)
    found = {
        name: _take(arrays, f"{key}/{name}", np.int64 if name in _INTEGERS else np.float64, shape, sizes)
        for name, shape in _SHAPES.items()
        if name not in _OPTIONAL or f"{key}/{name}" in arrays
    }
    if sizes["E"] != sizes["B"] + 1 or not (np.diff(found["edges"]) > 0).all() or found["images"].min() < 0:
        raise ValueError(f"{key}/edges or /images")
    if not all(np.isfinite(found[name]).all() for name in ("means", "squares")):
        raise ValueError(f"{key}/means or /squares")
    del sizes["E"]
    return Statistics(**found)


def _take(
    arrays: Mapping[str, NDArray[Any]], key: str, dtype: type[np.generic], shape: str, sizes: dict[str, int]
) -> NDArray[Any]:
    """Return an array of a dtype whose axes are as long as other axes with the same letter."""
    array = arrays[key]
    lengths = [sizes.setdefault(axis, n) for axis, n in zip(shape, array.shape, strict=False)]
    if array.dtype != dtype or array.ndim != len(shape) or tuple(lengths) != array.shape:
        raise ValueError(f"{key}, {array.dtype} of {array.shape},")
    return array


def _text(about: Mapping[str, Any], name: str) -> str:
    if not isinstance(about[name], str):
        raise ValueError(name)
    return str(about[name])
