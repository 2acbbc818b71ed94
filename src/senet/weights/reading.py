"""Read weights from a file without running its code, and find the state dict in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from senet.utils.errors import ModelFileError, shown
from senet.utils.input_files import file_content, parse_json, reading
from senet.weights.caffe import read_caffemodel
from senet.weights.pickles import read_pickle
from senet.weights.prefixes import module_renamer
from senet.weights.state_dicts import find_state_dict

__all__ = ["HUB_FILES", "Contents", "images_of", "read_config", "read_file", "unwrap"]

# File names in model repositories, by preference.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_LARGEST_CONFIG = 1 << 20  # bytes of a config.json, which has a few hundred


@dataclass(frozen=True)
class Contents:
    """Content of a source.

    Attributes:
        source: name for messages.
        tensors: tensors by their original names.
        modules: names of modules, including those without tensors, if the source lists them.
        description: description of the network, in a model file of senet.
        facts: known properties of the architecture, beyond names and shapes.
        preprocessing: preprocessing of images, as in `pretrained_cfg`.
        kind: the format, if the source specifies it; otherwise it is identified by names.
        entry: the keys under which the file has these tensors, with dots.
        others: of the file's other state dicts.
        network: the network that the weights are of, where it was built.
        uncompared: options of that network in the file that were not passed to it.
        prefix: prefix that was removed from all names.
        part: prefix that was removed from some names.
        around: values next to the tensors in the file, the innermost level first.
    """

    source: str
    tensors: dict[str, Tensor]
    modules: frozenset[str] = frozenset()
    description: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    entry: str = ""
    others: tuple[str, ...] = ()
    network: nn.Module | None = None
    uncompared: tuple[str, ...] = ()
    prefix: str = ""
    part: str = ""
    around: tuple[Mapping[Any, Any], ...] = ()

    def spelled(self, names: Mapping[str, str]) -> "Contents":
        """Return the content under other names.

        Args:
            names: new names of the kept tensors by old ones.

        Raises:
            ModelFileError: two tensors get the same name.
        """
        tensors: dict[str, Tensor] = {}
        for old, new in names.items():
            if new in tensors:
                raise ModelFileError(f"{self.source} has two tensors for {new}; remove one")
            tensors[new] = self.tensors[old]
        removed = {old.removesuffix(new) for old, new in names.items()}
        rename = module_renamer(names)
        modules = frozenset(rename(name) for name in self.modules)
        prefix = next(iter(removed)) if len(removed) == 1 else ""
        part = "".join(removed) if len(removed) == 2 and "" in removed else ""
        return replace(self, tensors=tensors, modules=modules, prefix=prefix, part=part)


def read_file(path: str | PathLike[str], entry: str | None = None) -> Contents:
    """Read the tensors of a file, memory-mapped if possible.

    Args:
        path: `.safetensors` (including senet's model files), `.caffemodel`, or a `torch.save` file with only tensors
            and plain values.
        entry: selects a state dict, see `senet.load_weights`.

    Raises:
        ImportError: a `.caffemodel` requires protobuf.
        ModelFileError: the file is missing, truncated, of another type, unsafe, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} is a folder" if path.is_dir() else f"no file at {path}")
    description, kind = None, ""
    with reading(path, error=ModelFileError, message="{name} is not a checkpoint, or is truncated: {reason}"):
        if path.suffix == ".caffemodel":
            content, kind = read_caffemodel(path), "caffe"
        elif path.suffix == ".safetensors":
            content, description = _read_safetensors(path)
        else:
            content = read_pickle(path)
        found = unwrap(content, str(path), description, entry)
        empty = next((name for name, tensor in found.tensors.items() if tensor.is_meta), None)
        if empty is not None:
            raise ValueError(f"the tensor {shown(empty)} has no values: it was saved from the meta device")
        # A copied hub repository has timm's description of the network in the same folder.
        config = path.with_name("config.json")
        around = (read_config(config), *found.around) if path.name in HUB_FILES and config.is_file() else found.around
        return replace(found, kind=kind, around=around)


def read_config(path: Path) -> dict[str, Any]:
    """Read timm's description of a network next to its weights.

    Args:
        path: path of the `config.json`.

    Raises:
        ModelFileError: the file is not JSON, or too large.
    """
    with reading(path, error=ModelFileError, message="{name} cannot be read as JSON: {reason}; repair or remove it"):
        config = parse_json(file_content(path, _LARGEST_CONFIG))
        return config if isinstance(config, dict) else {}


def unwrap(content: Any, source: str, description: dict[str, Any] | None = None, entry: str | None = None) -> Contents:
    """Find the state dict in the content of a file.

    Args:
        content: a state dict, or nested dicts that contain one.
        source: name for messages.
        description: description in a model file of senet.
        entry: selects a state dict, see `senet.load_weights`.

    Raises:
        ModelFileError: there is no state dict, or none at `entry`.
    """
    found = find_state_dict(content, source, entry)
    # torch.save stores the versions of all modules with a state dict.
    versions = getattr(found.state, "_metadata", None)
    names = [name for name in versions if isinstance(name, str)] if isinstance(versions, Mapping) else []
    inside = {name.removeprefix(found.part) for name in names if f"{name}.".startswith(found.part)}
    return Contents(
        f"{source} ({found.path})" if found.path else source,
        found.tensors,
        frozenset(inside),
        description,
        entry=".".join(part for part in (found.path, found.part.rstrip(".")) if part),
        others=found.others,
        around=found.around,
        preprocessing=images_of(description.get("pretrained_cfg")) if description else {},
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("senet")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    description = parse_json(text) if text else None
    if isinstance(description, dict) and "network" not in description:
        description = None  # it has the SE of a network that the file does not build
    if description is not None and not _is_sound(description):
        raise ValueError("its description of the network cannot be read")
    return tensors, description


def images_of(cfg: Any) -> dict[str, Any]:
    """Return the valid entries about images in timm's `pretrained_cfg`."""
    found: dict[str, Any] = {}
    if not isinstance(cfg, Mapping):
        return found
    for key in ("mean", "std"):
        values = cfg.get(key)
        if isinstance(values, list | tuple) and len(values) == 3 and all(type(n) in (int, float) for n in values):
            found[key] = tuple(values)
    size = cfg.get("input_size")
    if isinstance(size, list | tuple) and len(size) == 3 and all(type(n) is int and 1 <= n <= 8192 for n in size):
        found["input_size"] = tuple(size)
    if type(cfg.get("crop_pct")) in (int, float) and 0.05 <= cfg["crop_pct"] <= 20:
        found["crop_pct"] = cfg["crop_pct"]
    if cfg.get("interpolation") in ("bilinear", "bicubic", "nearest"):
        found["interpolation"] = cfg["interpolation"]
    return found


def _is_sound(description: Any) -> bool:
    """Return whether a description has the fields used here; `senet.load` checks the rest by building the network."""
    network, blocks = description["network"], description["se"]
    functional = ("squeeze", "gate", "activation")
    return (
        isinstance(network["name"], str)
        and isinstance(network["options"], dict)
        and isinstance(blocks, list)
        and all(isinstance(block[key], str) for block in blocks for key in ("name", "child"))
        and all(isinstance(block["options"][key], str) for block in blocks for key in functional)
    )
