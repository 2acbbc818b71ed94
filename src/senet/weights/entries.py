"""Find the state dict in what a training script saved: under which key, and which others there are."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from senet.utils.errors import ModelFileError

__all__ = ["Entry", "find_entry"]

# Where training scripts keep the state dict, the usual ones first.
_USUAL = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("net_state_dict", "network_state_dict", "model_weights", "state"),
)
# Averaged weights, which are those to be evaluated, are taken before others.
_AVERAGED = re.compile(r"(?:^|_)(?:ema|swa|averaged?|avg|shadow)(?:_|$)|^(?:model|net|state_dict)(?:ema|swa)$", re.I)
# What has tensors too and is no network.
_OTHER = re.compile(r"optim|sched|scaler|criterion|loss|metric|^(?:opt|rng)$|_opt$|^opt_", re.I)
_DEPTH = 8


@dataclass(frozen=True)
class Entry:
    """A state dict in a file.

    Attributes:
        path: the keys that lead to it, with dots; "" where it is the file itself.
        state: the state dict as it was saved, with what torch keeps of its modules.
        tensors: its tensors.
        others: the paths of the file's other state dicts.
        around: the values next to it and above, the nearest first: `arch`, `args` and the like.
        part: the beginning of the names that was asked for, with a dot; "" for all names.
    """

    path: str
    state: Mapping[Any, Any]
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    around: tuple[Mapping[Any, Any], ...] = ()
    part: str = ""


def find_entry(content: Any, source: str, wanted: str | None = None) -> Entry:
    """Find the state dict in what was read.

    Args:
        content: a state dict, or dicts with one in them.
        source: what to call it in messages.
        wanted: the path of the one to take, such as "ema" or "ema.module"; or what the names of the tensors to take
            begin with, such as "encoder". None takes averaged weights before others.

    Raises:
        ModelFileError: there is none; several, of which none is known; or none of the path.
    """
    found = {entry.path: entry for entry in _search(content, "", (), set())}
    if not found:
        raise ModelFileError(
            f"{source} holds no state dict: looked at the top and under state_dict_ema, model_ema, "
            f"{', '.join(_USUAL)} and any other key"
        )
    paths = tuple(found)
    if wanted is None:
        chosen, part = found[_usual(paths, source)], ""
    else:
        chosen, part = _wanted(found, wanted, source)
    return Entry(
        chosen.path,
        chosen.state,
        {name.removeprefix(part): tensor for name, tensor in chosen.tensors.items() if name.startswith(part)},
        tuple(path for path in paths if path != chosen.path),
        chosen.around,
        part,
    )


def _search(value: Any, path: str, above: tuple[Mapping[Any, Any], ...], seen: set[int]) -> Iterator[Entry]:
    if not isinstance(value, Mapping) or len(above) >= _DEPTH:
        return
    tensors = {key: tensor for key, tensor in value.items() if isinstance(key, str) and isinstance(tensor, Tensor)}
    if tensors and len(tensors) == len(value):
        yield Entry(path, value, tensors, around=above)
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
        yield Entry(path, value, tensors, around=(value, *above))


def _usual(paths: tuple[str, ...], source: str) -> str:
    """The path to take where none was asked for."""

    def rank(path: str) -> tuple[int, int, int]:
        parts = path.split(".")
        if any(_AVERAGED.search(part) for part in parts):
            return 0, 0, len(parts)
        known = [_USUAL.index(part) for part in parts if part in _USUAL]
        return (1, min(known), len(parts)) if known else (2, 0, 0)

    ordered = sorted(paths, key=rank)
    if len(ordered) > 1 and rank(ordered[0])[0] == 2:
        raise ModelFileError(
            f"{source} holds several state dicts, under {', '.join(ordered)}; say which with entry= (on the command "
            f"line --weights-entry), such as entry={ordered[0]!r}"
        )
    return ordered[0]


def _wanted(found: Mapping[str, Entry], wanted: str, source: str) -> tuple[Entry, str]:
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
