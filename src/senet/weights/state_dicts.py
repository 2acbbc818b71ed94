"""Find the state dicts in a training script's checkpoint."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from senet.utils.arguments import argument
from senet.utils.errors import ModelFileError

__all__ = ["StateDict", "find_state_dict"]

# Keys of state dicts in training scripts, the most common first.
_USUAL = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("net_state_dict", "network_state_dict", "model_weights", "state"),
)
# Averaged weights, which are preferred since they are the ones to evaluate.
_AVERAGED = re.compile(r"(?:^|_)(?:ema|swa|averaged?|avg|shadow)(?:_|$)|^(?:model|net|state_dict)(?:ema|swa)$", re.I)
# Keys with tensors that are not a network.
_OTHER = re.compile(r"optim|sched|scaler|criterion|loss|metric|^(?:opt|rng)$|_opt$|^opt_", re.I)
_DEPTH = 8


@dataclass(frozen=True)
class StateDict:
    """A state dict in a file.

    Attributes:
        path: dotted key; "" for the top level of the file.
        state: the saved state dict, with torch's metadata of its modules.
        tensors: its tensors.
        others: paths of the file's other state dicts.
        around: neighbouring values such as `arch` and `args`, the innermost level first.
        part: the requested prefix of names, with a dot; "" for all names.
    """

    path: str
    state: Mapping[Any, Any]
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    around: tuple[Mapping[Any, Any], ...] = ()
    part: str = ""


def find_state_dict(content: Any, source: str, wanted: str | None = None) -> StateDict:
    """Find a state dict in the content of a file.

    Args:
        content: a state dict, or nested dicts that contain one.
        source: name of the file, for messages.
        wanted: path of the state dict, such as "ema" or "ema.module"; or a prefix of tensor names, such as "encoder".
            None prefers averaged weights.

    Raises:
        ModelFileError: there is no state dict, none at `wanted`, or several under unknown keys.
    """
    found = {entry.path: entry for entry in _search(content, "", (), set())}
    if not found:
        raise ModelFileError(
            f"{source} holds no state dict: searched the top level, state_dict_ema, model_ema, "
            f"{', '.join(_USUAL)} and all other keys"
        )
    paths = tuple(found)
    if wanted is None:
        chosen, part = found[_usual(paths, source)], ""
    else:
        chosen, part = _wanted(found, wanted, source)
    return StateDict(
        chosen.path,
        chosen.state,
        {name.removeprefix(part): tensor for name, tensor in chosen.tensors.items() if name.startswith(part)},
        tuple(path for path in paths if path != chosen.path),
        chosen.around,
        part,
    )


def _search(value: Any, path: str, above: tuple[Mapping[Any, Any], ...], seen: set[int]) -> Iterator[StateDict]:
    if not isinstance(value, Mapping) or len(above) >= _DEPTH:
        return
    tensors = {key: tensor for key, tensor in value.items() if isinstance(key, str) and isinstance(tensor, Tensor)}
    if tensors and len(tensors) == len(value):
        yield StateDict(path, value, tensors, around=above)
        return
    if id(value) in seen:  # a dict may hold itself
        return
    seen.add(id(value))
    below = [
        entry
        for key, under in value.items()
        if isinstance(key, str) and not _OTHER.search(key)
        for entry in _search(under, f"{path}.{key}" if path else key, (value, *above), seen)
    ]
    yield from below
    # Some scripts put their numbers among the tensors.
    if not below and any("." in key for key in tensors):
        yield StateDict(path, value, tensors, around=(value, *above))


def _usual(paths: tuple[str, ...], source: str) -> str:
    """Choose a path when none is requested."""

    def rank(path: str) -> tuple[int, int, int]:
        parts = path.split(".")
        if any(_AVERAGED.search(part) for part in parts):
            return 0, 0, len(parts)
        known = [_USUAL.index(part) for part in parts if part in _USUAL]
        return (1, min(known), len(parts)) if known else (2, 0, 0)

    ordered = sorted(paths, key=rank)
    if len(ordered) > 1 and rank(ordered[0])[0] == 2:
        raise ModelFileError(
            f"{source} holds several state dicts: {', '.join(ordered)}; choose one, as in "
            f"{argument('entry', ordered[0])}"
        )
    return ordered[0]


def _wanted(found: Mapping[str, StateDict], wanted: str, source: str) -> tuple[StateDict, str]:
    if wanted in found:
        return found[wanted], ""
    below = [path for path in found if path.startswith(f"{wanted}.")]
    if len(below) == 1:
        return found[below[0]], ""
    for path in sorted(found, key=len, reverse=True):
        part = wanted.removeprefix(f"{path}.") if path else wanted
        if (part != wanted or len(found) == 1) and any(name.startswith(f"{part}.") for name in found[path].tensors):
            return found[path], f"{part}."
    names = [path or "(the file itself)" for path in found]
    firsts = {name.partition(".")[0] for entry in found.values() for name in entry.tensors if "." in name}
    raise ModelFileError(
        f"{source} has no entry {wanted!r}; its state dicts are {', '.join(names)}, and their names begin with "
        f"{', '.join(sorted(firsts)[:8])}{', ...' if len(firsts) > 8 else ''}"
    )
