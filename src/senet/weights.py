"""Weights from elsewhere: read a checkpoint without running code of it, and name its tensors as senet does."""

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from senet.errors import ModelFileError

__all__ = ["fit", "implied_options", "read_checkpoint"]

# Where training scripts put the state dict, by their habit.
_WRAPPERS = ("state_dict", "model")
# A name elsewhere, and here. DataParallel's prefix first.
_RENAMES = ((r"^module\.", ""), (r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample."))


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by senet's names.

    Understood are `.safetensors`, and whatever `torch.save` writes that holds nothing but tensors and plain values:
    a state dict, or one under `state_dict` or `model`; with the prefix `module.`; with `linear` for `fc` and `shortcut`
    for `downsample`. A file that would run code to be read is refused.

    Args:
        path: the file.

    Raises:
        ModelFileError: the file is missing, cut short, of another kind, unsafe, or holds no state dict, or two
            tensors of one name.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"no file at {path}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle's protocols: it reads the file, or it does not
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} is no checkpoint of plain tensors, or would run code to be read, so it was not: save its "
            f"state_dict alone, with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a pickle that is cut short or corrupt can raise anything
        raise ModelFileError(f"{path} is not a checkpoint, or is cut short: {_first_line(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelFileError(f"{path} holds no state dict: looked at the top and under {' and '.join(_WRAPPERS)}")
    weights = {_rename(str(key)): tensor for key, tensor in content.items()}
    if len(weights) < len(content):
        twice = next(name for name, keys in Counter(_rename(str(key)) for key in content).items() if keys > 1)
        raise ModelFileError(f"{path} has two tensors for {twice}, under different names; remove one")
    return weights


def implied_options(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What weights say of the architecture of a network that has either kind of shortcut, as CIFAR's have.

    Returns:
        Options of `create_model`: shortcuts with weights are projections, and those without are padding.
    """
    projections = (key for key, w in weights.items() if re.search(r"\.downsample\.(0\.)?weight$", key) and w.ndim == 4)
    return {"shortcut": "projection" if next(projections, None) else "pad"}


def fit(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Check that weights are a model's, tensor for tensor; nothing is loaded.

    Args:
        weights: by senet's names.
        model: the network.
        source: what to call the weights in the message.

    Raises:
        ModelFileError: tensors are missing, left over, or of another shape; the message counts and names them.
    """
    own = model.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # old checkpoints have none
    complaints = {
        "missing": [key for key in own if key not in weights and key not in counters],
        "unexpected": [key for key in weights if key not in own],
        "of another shape": [
            f"{key} {tuple(w.shape)}, here {tuple(own[key].shape)}"
            for key, w in weights.items()
            if key in own and w.shape != own[key].shape
        ],
    }
    found = [
        f"{len(keys)} {what} ({'; '.join(keys[:3])}{'; ...' if len(keys) > 3 else ''})"
        for what, keys in complaints.items()
        if keys
    ]
    if found:
        raise ModelFileError(f"{source} does not fit the network: {', '.join(found)}")


def _rename(key: str) -> str:
    for pattern, name in _RENAMES:
        key = re.sub(pattern, name, key)
    return key


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
