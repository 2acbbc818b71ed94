"""What wrappers put before the names of a network, and whether it is to be taken off."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping

__all__ = ["common_prefix", "same_way", "spellings"]

# What DataParallel, torch.compile, Lightning and training scripts put before every name.
_WRAPPER = re.compile(r"^(?:(?:module|_orig_mod|model|net|network)\.)+")
# What torch puts between names, wherever a part of the network was wrapped.
_WITHIN = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What torch's averaged model counts, which is no weight.
_COUNTERS = {"n_averaged", "module.n_averaged"}


def spellings(names: Collection[str]) -> list[dict[str, str]]:
    """Give the ways to name the tensors of a file, each as the new name of every old one.

    The names as they are come first, then, without the counters of averages, those without what wrappers put before
    them, then those without the parts that all have in common, removed one after the other.

    Args:
        names: of the tensors in the file.
    """
    plain = [name for name in names if name not in _COUNTERS]
    within = [_WITHIN.sub("", name) for name in plain]
    ways = [plain, within, _unwrapped(within)]
    for shorter in (within, plain):
        while prefix := common_prefix(shorter):
            shorter = [name.removeprefix(prefix) for name in shorter]
            ways += [shorter, _unwrapped(shorter)]
    return [dict(zip(names, names, strict=True)), *(dict(zip(plain, way, strict=True)) for way in ways[1:])]


def _unwrapped(names: list[str]) -> list[str]:
    return [_WRAPPER.sub("", name) for name in names]


def common_prefix(names: Iterable[str]) -> str:
    """Give the first part of dotted names where all share it, with its dot; "" where they do not."""
    firsts = {name.partition(".")[0] if "." in name else "" for name in names}
    first = firsts.pop() if len(firsts) == 1 else ""
    return f"{first}." if first else ""


def same_way(spelled: Mapping[str, str]) -> Callable[[str], str]:
    """The function that a spelling is, for names of modules without tensors.

    Args:
        spelled: one of `spellings`.
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
