"""Read weights from a file without running code of it, and find the state dict in what is there."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from senet.errors import ModelFileError, first_line

__all__ = ["Contents", "read_file", "unwrap"]

# Where training scripts put the state dict, by their habit. Averaged weights first, which are those to be evaluated.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "net")
# What DataParallel, torch.compile and Lightning put before every name.
_PREFIX = re.compile(r"^(?:(?:module|_orig_mod|model|net)\.)+")
# What torch's averaged model counts, which is no weight.
_COUNTERS = {"n_averaged"}


@dataclass(frozen=True)
class Contents:
    """What a source holds.

    Attributes:
        source: what to call it in messages.
        tensors: by the source's own names, without wrappings.
        modules: names of modules, those without tensors too, where the source tells them.
        description: of a model file of senet, what it says of the network.
        facts: what is known of the network beside names and shapes, as options of the architecture.
        preprocessing: of its images, as in `pretrained_cfg`.
        kind: the format, where the source tells it; otherwise it is told by the names.
    """

    source: str
    tensors: dict[str, Tensor]
    modules: frozenset[str] = frozenset()
    description: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    kind: str = ""


def read_file(path: str | PathLike[str]) -> Contents:
    """The tensors of a file, which lie in the file and are read when they are used, where that can be.

    Args:
        path: `.safetensors` (a model file of senet too), `.caffemodel`, or whatever `torch.save` writes that holds
            nothing but tensors and plain values.

    Raises:
        ImportError: a `.caffemodel` without protobuf.
        ModelFileError: the file is missing, cut short, of another kind, unsafe, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} is a folder" if path.is_dir() else f"no file at {path}")
    if path.suffix == ".caffemodel":
        from senet.weights.caffe import read_caffemodel

        return Contents(str(path), read_caffemodel(path), kind="caffe")
    description = None
    try:
        if path.suffix == ".safetensors":
            content, description = _read_safetensors(path)
        else:
            content = _read_pickle(path)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} is no checkpoint of plain tensors, or would run code to be read, so it was not: save its "
            f"state_dict alone, with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a pickle that is cut short or corrupt can raise anything
        raise ModelFileError(f"{path} is not a checkpoint, or is cut short: {first_line(error)}") from error
    return unwrap(content, str(path), description)


def unwrap(content: Any, source: str, description: dict[str, Any] | None = None) -> Contents:
    """Find the state dict in what was read, and take off what wrappers put before its names.

    Args:
        content: a state dict, or one under one of the usual keys.
        source: what to call it in messages.
        description: of a model file of senet.

    Raises:
        ModelFileError: there is none, or two tensors have one name.
    """
    while isinstance(content, Mapping):
        under = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if under is None:
            break
        content, source = content[under], f"{source} ({under})"
    # Of Keras-like and optimiser-laden files only the tensors count, but a state dict has nothing else.
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelFileError(f"{source} holds no state dict: looked at the top and under {', '.join(_WRAPPERS)}")
    tensors: dict[str, Tensor] = {}
    for key, tensor in content.items():
        name = _PREFIX.sub("", str(key))
        if name in _COUNTERS:
            continue
        if name in tensors:
            raise ModelFileError(f"{source} has two tensors for {name}, under different names; remove one")
        tensors[name] = tensor
    # torch.save keeps with a state dict the versions of all modules.
    versions = getattr(content, "_metadata", None)
    modules = frozenset(_PREFIX.sub("", str(key)) for key in versions) if isinstance(versions, Mapping) else frozenset()
    return Contents(source, tensors, modules, description)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("senet")
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    description = json.loads(text) if text else None
    if description is not None and not isinstance(description["network"]["options"], dict):
        raise ValueError("its description of the network cannot be read")
    return tensors, description


def _read_pickle(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle's protocols: it reads the file, or it does not
        # Files of torch older than 1.6 are no archives, and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
