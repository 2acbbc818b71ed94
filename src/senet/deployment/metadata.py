"""What an exported file states about its network: classes, preprocessing, version, name and precision.

All formats hold the same text: JSON under the keys `senet.model`, `senet.version`, `senet.precision`, `senet.classes`,
`senet.preprocessing` and `senet.outputs`; and `senet.task`, what the task of a network that is no classifier stores.
ONNX has them in `metadata_props`, OpenVINO in `rt_info` under "senet", and torch.export in `extra_files`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from senet.data import Preprocessing
from senet.tasks import get_task
from senet.utils.choices import Precision, check_choice
from senet.utils.errors import ModelFileError, shown
from senet.utils.input_files import parse_json, reading
from senet.version import __version__

__all__ = [
    "Metadata",
    "read_onnx",
    "read_openvino",
    "read_torch",
    "write_onnx",
    "write_openvino",
    "write_torch",
]

_PREFIX = "senet."
_KEYS = ("model", "version", "precision", "classes", "preprocessing")
# Earlier versions did not write it.
_OPTIONAL = ("outputs",)
_TASK = "task"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What an exported file states about its network.

    Attributes:
        model: name of the network, such as "se_resnet20"; the name of its class if it has no other.
        precision: "fp32", "fp16", "bf16" or "int8".
        classes: class names in the order of the logits; None if they are not known.
        preprocessing: how images enter the network; None if it is not known.
        takes_pixels: the graph normalizes images itself. Its input is 8-bit pixels (N, H, W, C), resized and cropped.
        outputs: names of the outputs; None if they are not known.
        version: of the senet that wrote the file.
        task: what the task stores, see `senet.tasks.stored_entries`; empty for a classifier.
    """

    model: str
    precision: Precision
    classes: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    takes_pixels: bool = False
    outputs: tuple[str, ...] | None = None
    version: str = __version__
    task: Mapping[str, Any] = field(default_factory=dict)

    def entries(self) -> dict[str, str]:
        """Return JSON texts by key."""
        values: dict[str, Any] = {
            "model": self.model,
            "version": self.version,
            "precision": self.precision,
            "classes": self.classes,
            "outputs": self.outputs,
        }
        preprocessing: dict[str, Any] | None = None
        if self.preprocessing is not None:
            preprocessing = asdict(self.preprocessing) | {"takes_pixels": self.takes_pixels}
        values |= {"preprocessing": preprocessing} | ({_TASK: dict(self.task)} if self.task else {})
        return {f"{_PREFIX}{key}": json.dumps(value) for key, value in values.items()}

    @classmethod
    def of(cls, entries: Mapping[str, str], path: object) -> "Metadata | None":
        """Return the metadata of a file's entries; None if senet did not write the file.

        Args:
            entries: texts by key; other keys are ignored.
            path: of the file, for messages.

        Raises:
            ModelFileError: an entry is missing or invalid.
        """
        if not any(f"{_PREFIX}{key}" in entries for key in _KEYS):
            return None
        with reading(path, error=ModelFileError, message="{name} has invalid metadata: {reason}"):
            values = {key: parse_json(entries[f"{_PREFIX}{key}"]) for key in _KEYS}
            values |= {key: parse_json(entries.get(f"{_PREFIX}{key}", "null")) for key in _OPTIONAL}
            values[_TASK] = parse_json(entries.get(f"{_PREFIX}{_TASK}", "{}"))
            return _checked(values)


def _checked(values: dict[str, Any]) -> Metadata:
    """Build metadata from values of a file.

    Raises:
        ValueError, KeyError, TypeError: a value is invalid; the file may be damaged.
    """
    check_choice("precision", values["precision"], Precision)
    for key in ("model", "version"):
        if not isinstance(values[key], str):
            raise ValueError(f"{key} must be text")
    names = {key: _names(key, values[key]) for key in ("classes", "outputs")}
    stated, takes_pixels = values["preprocessing"], False
    if stated is not None:
        if not isinstance(stated, dict):
            raise ValueError(f"preprocessing must be an object, or null, got {shown(stated)}")
        for key in ("mean", "std"):
            if not isinstance(stated[key], list) or not all(isinstance(one, int | float) for one in stated[key]):
                raise ValueError(f"{key} must be a list of numbers, got {shown(stated[key])}")
        takes_pixels = stated.pop("takes_pixels")
        if not isinstance(takes_pixels, bool):
            raise ValueError("takes_pixels must be true or false")
        stated = Preprocessing(**stated | {key: tuple(stated[key]) for key in ("mean", "std")})
    task = values[_TASK]
    if not isinstance(task, dict):
        raise ValueError(f"task must be an object, got {shown(task)}")
    if task:
        get_task(task["task"]).check_stored(task, len(names["classes"] or ()))
    return Metadata(
        model=values["model"],
        version=values["version"],
        precision=values["precision"],
        classes=names["classes"],
        preprocessing=stated,
        takes_pixels=takes_pixels,
        outputs=names["outputs"],
        task=task,
    )


def _names(key: str, value: Any) -> tuple[str, ...] | None:
    if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ValueError(f"{key} must be a list of names, or null, got {shown(value)}")
    return None if value is None else tuple(value)


def write_onnx(model: Any, metadata: Metadata) -> None:
    """Add metadata to an `onnx.ModelProto`; entries of the same keys are replaced."""
    entries = {prop.key: prop.value for prop in model.metadata_props} | metadata.entries()
    del model.metadata_props[:]
    for key, value in entries.items():
        prop = model.metadata_props.add()
        prop.key, prop.value = key, value


def read_onnx(session: Any, path: object) -> Metadata | None:
    """Return the metadata of an `onnxruntime.InferenceSession`; None if senet did not write the file.

    Raises:
        ModelFileError: see `Metadata.of`.
    """
    return Metadata.of(session.get_modelmeta().custom_metadata_map, path)


def write_openvino(model: Any, metadata: Metadata) -> None:
    """Add metadata to an `openvino.Model`."""
    for key, value in metadata.entries().items():
        model.set_rt_info(value, key.split("."))


def read_openvino(model: Any, path: object) -> Metadata | None:
    """Return the metadata of an `openvino.Model`; None if senet did not write the file.

    Raises:
        ModelFileError: see `Metadata.of`.
    """
    places = {f"{_PREFIX}{key}": ["senet", key] for key in (*_KEYS, *_OPTIONAL, _TASK)}
    found = {name: str(model.get_rt_info(place).value) for name, place in places.items() if model.has_rt_info(place)}
    return Metadata.of(found, path)


def write_torch(metadata: Metadata) -> dict[str, str]:
    """Return the `extra_files` of `torch.export.save`."""
    return metadata.entries()


def read_torch(extra_files: Mapping[str, str], path: object) -> Metadata | None:
    """Return the metadata in the `extra_files` that `torch.export.load` filled; None if senet did not write the file.

    `torch.export.load` fills a dictionary only if it has an entry: give it one such as {"senet.model": ""}.

    Raises:
        ModelFileError: see `Metadata.of`.
    """
    return Metadata.of({key: text for key, text in extra_files.items() if text}, path)
