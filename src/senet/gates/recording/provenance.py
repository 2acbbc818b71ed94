"""Identify the network, data and options of a recording, which must agree to resume or merge it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from senet.data import Loader
from senet.gates.recording.batches import Batches, loader_length

__all__ = ["data_name", "differences", "digest_of_labels", "digest_of_weights", "identity_of"]


def digest_of_weights(model: nn.Module) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(values.numpy().data)
    return digest.hexdigest()


def digest_of_labels(labels: Tensor, before: str = "") -> str:
    """Return the SHA-256 of labels, chained to the digest of the labels before them."""
    return hashlib.sha256(before.encode() + labels.to(torch.int64).contiguous().numpy().tobytes()).hexdigest()


def identity_of(model: nn.Module, loader: Batches, classes: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must agree to resume or merge a recording, as JSON values by name.

    Args:
        model: the network.
        loader: the batches.
        classes: names of the classes.
        options: options of the recording.
    """
    found: dict[str, Any] = {
        "weights": digest_of_weights(model),
        "network": f"{type(model).__module__}.{type(model).__qualname__}",
        "classes": hashlib.sha256("\0".join(classes).encode()).hexdigest(),
    }
    if isinstance(loader, Loader):
        found |= {
            "data": f"{loader.data.spec}, {len(loader.data)} images",
            "labels": digest_of_labels(torch.from_numpy(loader.data.labels)),
            "preprocessing": repr(loader.preprocessing),
            "batch": loader.batch,
        }
    else:
        # The labels of an iterable are compared batch by batch.
        found |= {"data": data_name(loader), "batches": loader_length(loader)}
    return found | dict(options)


def data_name(loader: Batches) -> str:
    """Return the spec of the data, or the type of the loader."""
    return loader.data.spec if isinstance(loader, Loader) else f"batches of {type(loader).__name__}"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Describe the entries that differ; "" if none do."""
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} ({_short(one.get(name))} and {_short(other.get(name))})" for name in names)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12]
