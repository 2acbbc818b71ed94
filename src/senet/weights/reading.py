"""Read weights from a file without running code of it, and find the state dict in what is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from senet.utils.errors import ModelFileError, shown
from senet.utils.input_files import file_content, parse_json, reading
from senet.weights.entries import find_entry
from senet.weights.pickles import read_pickle
from senet.weights.prefixes import same_way

__all__ = ["HUB_FILES", "Contents", "read_config", "read_file", "unwrap"]

# What repositories of models call the file, by preference.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_LARGEST_CONFIG = 1 << 20  # bytes of a config.json, which has a few hundred


@dataclass(frozen=True)
class Contents:
    """What a source holds.

    Attributes:
        source: what to call it in messages.
        tensors: by the source's own names.
        modules: names of modules, those without tensors too, where the source lists them.
        description: of a model file of senet, what it says of the network.
        facts: what is known of the network beyond names and shapes, as options of the architecture.
        preprocessing: of its images, as in `pretrained_cfg`.
        kind: the format, where the source says it; otherwise it follows from the names.
        entry: the keys under which the file has these tensors, with dots.
        others: of the file's other state dicts.
        network: the network that the weights are of, where it was built.
        uncompared: options of that network which the file sets, and which were not passed to it.
        prefix: what all names began with, where it was removed.
        part: what some names began with, where it was removed and the others have nothing to remove.
        around: values that the file has next to the tensors, the nearest first.
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
        """The same under other names.

        Args:
            names: the new name of each tensor that stays.

        Raises:
            ModelFileError: two tensors would have one name.
        """
        tensors: dict[str, Tensor] = {}
        for old, new in names.items():
            if new in tensors:
                raise ModelFileError(f"{self.source} has two tensors for {new}, under different names; remove one")
            tensors[new] = self.tensors[old]
        removed = {old.removesuffix(new) for old, new in names.items()}
        rename = same_way(names)
        modules = frozenset(rename(name) for name in self.modules)
        prefix = next(iter(removed)) if len(removed) == 1 else ""
        part = "".join(removed) if len(removed) == 2 and "" in removed else ""
        return replace(self, tensors=tensors, modules=modules, prefix=prefix, part=part)


def read_file(path: str | PathLike[str], entry: str | None = None) -> Contents:
    """Give the tensors of a file, which lie in the file and are read when they are used, where that can be.

    Args:
        path: `.safetensors` (a model file of senet too), `.caffemodel`, or whatever `torch.save` writes that holds
            nothing but tensors and plain values.
        entry: which of several state dicts, see `senet.load_weights`.

    Raises:
        ImportError: a `.caffemodel` without protobuf.
        ModelFileError: the file is missing, cut short, of another kind, unsafe, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} is a folder" if path.is_dir() else f"no file at {path}")
    description, kind = None, ""
    with reading(path, error=ModelFileError, message="{name} is not a checkpoint, or is cut short: {reason}"):
        if path.suffix == ".caffemodel":
            from senet.weights.caffe import read_caffemodel

            content, kind = read_caffemodel(path), "caffe"
        elif path.suffix == ".safetensors":
            content, description = _read_safetensors(path)
        else:
            content = read_pickle(path)
        found = unwrap(content, str(path), description, entry)
        empty = next((name for name, tensor in found.tensors.items() if tensor.is_meta), None)
        if empty is not None:
            raise ValueError(f"the tensor {shown(empty)} has no values: it was saved from the meta device")
        # A repository of the hub that was copied: timm's description of the network is in the same folder.
        config = path.with_name("config.json")
        around = (read_config(config), *found.around) if path.name in HUB_FILES and config.is_file() else found.around
        return replace(found, kind=kind, around=around)


def read_config(path: Path) -> dict[str, Any]:
    """Read timm's description of a network next to its weights.

    Args:
        path: of the `config.json`.

    Raises:
        ModelFileError: it is no JSON of a sensible size.
    """
    with reading(path, error=ModelFileError, message="{name} cannot be read as JSON: {reason}; repair or remove it"):
        config = parse_json(file_content(path, _LARGEST_CONFIG))
        return config if isinstance(config, dict) else {}


def unwrap(content: Any, source: str, description: dict[str, Any] | None = None, entry: str | None = None) -> Contents:
    """Find the state dict in what was read.

    Args:
        content: a state dict, or one under some key.
        source: what to call it in messages.
        description: of a model file of senet.
        entry: which of several state dicts, see `senet.load_weights`.

    Raises:
        ModelFileError: there is none, or none under this key.
    """
    found = find_entry(content, source, entry)
    # torch.save keeps with a state dict the versions of all modules.
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
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("senet")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    description = parse_json(text) if text else None
    if description is not None and not _is_sound(description):
        raise ValueError("its description of the network cannot be read")
    return tensors, description


def _is_sound(description: Any) -> bool:
    """Whether a description has what is read of it here; `senet.load` checks the rest by building the network."""
    network, blocks = description["network"], description["se"]
    functional = ("squeeze", "gate", "activation")
    return (
        isinstance(network["name"], str)
        and isinstance(network["options"], dict)
        and isinstance(blocks, list)
        and all(isinstance(block[key], str) for block in blocks for key in ("name", "child"))
        and all(isinstance(block["options"][key], str) for block in blocks for key in functional)
    )
