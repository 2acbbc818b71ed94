"""Matching of weights with a network's tensors, by name and shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from senet.weights.architecture import unusual_heads
from senet.weights.checkpoint import Checkpoint
from senet.weights.formats import HEADS

__all__ = ["Match", "choose_names", "classifier_prefix", "match_tensors"]

_COUNTER = "num_batches_tracked"  # absent in old checkpoints


@dataclass(frozen=True)
class Match:
    """Tensors that match a network, in its shapes, and the names of those that do not match."""

    loaded: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]


def match_tensors(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], exactly: bool = False) -> Match:
    """Match weights with a network's tensors.

    Args:
        own: the network's tensors by name.
        weights: tensors by senet's names.
        exactly: whether shapes must be equal and dtypes are ignored. By default a linear layer also matches a 1x1
            convolution, and floating point tensors match only floating point tensors.
    """
    loaded, shapes = {}, []
    for name, tensor in weights.items():
        if name not in own:
            continue
        fitting = tensor if exactly else _in_shape_of(own[name], tensor)
        if fitting.shape != own[name].shape:
            shapes.append(f"{name} {tuple(tensor.shape)}, here {tuple(own[name].shape)}")
        elif not exactly and fitting.is_floating_point() != own[name].is_floating_point():
            shapes.append(f"{name} {fitting.dtype}, here {own[name].dtype}")
        else:
            loaded[name] = fitting
    missing = [name for name in own if name not in weights and not name.endswith(_COUNTER)]
    unexpected = [name for name in weights if name not in own and not _counts(name, own)]
    return Match(loaded, missing, unexpected, shapes)


def _counts(name: str, own: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor is the counter of a batch norm that has none here, such as a frozen one."""
    return name.endswith(f".{_COUNTER}") and f"{name.removesuffix(_COUNTER)}running_mean" in own


def _in_shape_of(own: Tensor, tensor: Tensor) -> Tensor:
    """Reshape between a linear layer and a 1x1 convolution, which differ only in trailing axes of length 1."""
    short, long = sorted((own.shape, tensor.shape), key=len)
    if len(short) == 2 and len(long) > 2 and tuple(long[:2]) == tuple(short) and set(long[2:]) == {1}:
        return tensor.reshape(own.shape)
    return tensor


def choose_names(model: nn.Module, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Choose between senet's tensor names and the original ones, and return the original name of each tensor."""
    own = model.state_dict().keys()
    theirs = checkpoint.contents.tensors
    if len(own & theirs.keys()) > len(own & checkpoint.tensors.keys()):
        tensors, names = theirs, dict(zip(theirs, theirs, strict=True))
    else:
        tensors, names = checkpoint.tensors, checkpoint.names
    there, here = _heads(model, tensors)
    if not there:
        return tensors, names
    moved = {name: f"{here}{name.removeprefix(there)}" if name.startswith(there) else name for name in tensors}
    return {moved[name]: tensors[name] for name in tensors}, {moved[name]: origin for name, origin in names.items()}


def _heads(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the classifier's prefixes in the source and in the network if they differ, otherwise empty ones."""
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        return "", ""
    here, own = classifier_prefix(model), model.state_dict().keys()
    if f"{here}weight" in tensors or f"{here}weight" not in own:
        return "", ""
    usual = [f"{name}." for name in HEADS if f"{name}.weight" in tensors and f"{name}.weight" not in own]
    found = usual or [f"{name}." for name in unusual_heads(tensors) if f"{name}.weight" not in own]
    return (found[0], here) if len(found) == 1 else ("", "")


def classifier_prefix(model: nn.Module) -> str:
    """Return the prefix of the classifier's tensor names, such as "fc.": as described, or the last linear layer.

    Raises:
        ValueError: the network has no linear layer.
    """
    name = getattr(model, "pretrained_cfg", None) or {}
    name = name.get("classifier") if hasattr(name, "get") else None
    if isinstance(name, str):
        return f"{name}."
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".se." not in name]
    if not linear:
        raise ValueError("head=False keeps the classifier, and this network has no linear layer that could be one")
    return f"{linear[-1]}."
