"""Prefixes that wrappers add to tensor names, and candidate names without them."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping

__all__ = ["common_prefix", "module_renamer", "name_candidates"]

# Prefixes of DataParallel, torch.compile, Lightning and training scripts.
_WRAPPER = re.compile(r"^(?:(?:module|_orig_mod|model|net|network)\.)+")
# Parts that torch inserts where a submodule was wrapped.
_WITHIN = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Counters of torch's averaged models, which are not weights.
_COUNTERS = {"n_averaged", "module.n_averaged"}


def name_candidates(names: Collection[str]) -> list[dict[str, str]]:
    """Return candidate names for the tensors of a file, each as a mapping from old to new names.

    The unchanged names come first. Then, without the counters of averaged models: the names without wrappers' prefixes,
    and the names without common first parts, removed one by one.

    Args:
        names: names of the tensors in the file.
    """
    plain = [name for name in names if name not in _COUNTERS]
    within = [_WITHIN.sub("", name) for name in plain]
    candidates = [plain, within, _unwrapped(within)]
    for shorter in (within, plain):
        while prefix := common_prefix(shorter):
            shorter = [name.removeprefix(prefix) for name in shorter]
            candidates += [shorter, _unwrapped(shorter)]
    return [dict(zip(names, names, strict=True)), *(dict(zip(plain, new, strict=True)) for new in candidates[1:])]


def _unwrapped(names: list[str]) -> list[str]:
    return [_WRAPPER.sub("", name) for name in names]


def common_prefix(names: Iterable[str]) -> str:
    """Return the first part of dotted names, with its dot, if all share it; otherwise ""."""
    firsts = {name.partition(".")[0] if "." in name else "" for name in names}
    first = firsts.pop() if len(firsts) == 1 else ""
    return f"{first}." if first else ""


def module_renamer(spelled: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that renames modules without tensors, as a mapping renames tensors.

    Args:
        spelled: one mapping of `name_candidates`.
    """
    removed = {old: old.removesuffix(new) for old, new in spelled.items() if old.endswith(new)}
    prefixes = sorted(set(removed.values()), key=len, reverse=True)

    def rename(name: str) -> str:
        plain = name
        for prefix in prefixes:
            if prefix and f"{name}.".startswith(prefix):
                plain = name[len(prefix) :] if len(name) >= len(prefix) else ""
                break
        return _WITHIN.sub("", plain)

    return rename
