"""The checkpoint of a run, and what may change before the run is resumed.

The file is a `torch.save` of tensors, numbers and text, and is read with `weights_only=True`: it never runs code. It is
written under a temporary name, flushed to disk and renamed, so that the previous file stays until the new one is
complete.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from senet import model_file
from senet.data import ImageData, Loader
from senet.recipes.recipe import DEFAULTS, FREE, Recipe
from senet.runs.metrics import Epoch
from senet.tasks import get_task
from senet.training.reproducibility import rounding
from senet.training.trainer import Trainer
from senet.utils.errors import ModelFileError
from senet.utils.files import atomic_path
from senet.utils.input_files import parse_json, reading
from senet.utils.renamed import RENAMED_KEYS, current_recipe, rename
from senet.version import __version__

__all__ = [
    "FORMAT",
    "describe_changes",
    "identity",
    "read_checkpoint",
    "restore",
    "rounds_differently",
    "skipped_images",
    "write_checkpoint",
]

# Increased when an older senet could misread a file.
FORMAT = 1
_ORDER = "order of the training images"
# What may change, in addition to what decides how sums are rounded.
_FREE = {f"recipe.{key}" for key in FREE}
_ROUNDING = "rounding."


def identity(
    model: nn.Module, recipe: Recipe, training: ImageData, validation: ImageData, processes: int = 1
) -> dict[str, Any]:
    """Return what must be unchanged for a run to be resumed: network, recipe and data.

    Data are identified by their classes, and by the name and label of every image; their path may change. What decides
    how sums are rounded is recorded as well, see `senet.training.reproducibility`; a change of it is reported, and
    allowed.
    """
    network = json.loads(model_file.describe(model))
    del network["version"]
    return {
        "network": network,
        "recipe": json.loads(json.dumps(asdict(recipe), default=str)),
        "training data": _fingerprint(training),
        "validation data": _fingerprint(validation),
        "rounding": rounding(model, recipe, min(recipe.batch, len(training)), processes),
    }


def skipped_images(training: Loader, validation: Loader) -> dict[str, Any]:
    """Return the part of `identity` that is known once images are read: unreadable images, and the order of others."""
    loaders = {"training data": training, "validation data": validation}
    return {
        "images left out": {name: [Path(bad).name for bad in loader.skipped] for name, loader in loaders.items()},
        _ORDER: training.order,
    }


def _fingerprint(data: ImageData) -> dict[str, Any]:
    """Return the number of images and classes of data, and hashes of their names and labels."""
    images = hashlib.sha256()
    for index, label in enumerate(data.label_values()):
        images.update(f"{Path(data.name(index)).name}\0{label}\n".encode(errors="surrogateescape"))
    classes = hashlib.sha256("\0".join(data.classes).encode())
    return {
        "images": len(data),
        "classes": len(data.classes),
        "names and labels": images.hexdigest()[:16],
        "class names": classes.hexdigest()[:16],
    }


def write_checkpoint(trainer: Trainer, run: Mapping[str, Any], path: Path) -> None:
    """Save a trainer.

    Args:
        trainer: in training.
        run: `identity` of the run, with `skipped_images`.
        path: of the checkpoint.

    Raises:
        OSError: the file cannot be written; the previous one is unchanged.
    """
    state = {"format": FORMAT, "version": __version__, "identity": json.dumps(run), "state": trainer.state_dict()}
    # With a path instead of a file, PyTorch would not report a full disk.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # such as a full disk, which PyTorch's own message does not name
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `write_checkpoint`, on the CPU.

    Raises:
        ModelFileError: the file is truncated, damaged, of another kind or of a newer senet, or would run code.
    """
    remedy = f"replace it by a copy, or start again in another folder than {path.parent}"
    message = f"the checkpoint {{name}} is truncated or damaged ({{reason}}): {remedy}"
    with reading(path, error=ModelFileError, message=message):
        with zipfile.ZipFile(path) as archive:  # PyTorch does not check the checksums
            damaged = archive.testzip()
            kinds = {(part.external_attr, part.compress_type, part.flag_bits) for part in archive.infolist()}
        if damaged is not None:
            raise ValueError(f"the checksum of its part {damaged} is wrong")
        if len(kinds) > 1:
            raise ValueError("its table of contents is wrong")
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ModelFileError(
                f"the checkpoint {path} holds more than tensors and text, and is not loaded: {remedy}"
            ) from error
        if int(found["format"]) > FORMAT:
            raise ModelFileError(
                f"the checkpoint {path} was written by senet {found.get('version')}: upgrade senet to resume it"
            )
        identity, state = parse_json(found["identity"]), dict(found["state"])
        identity["recipe"], state = current_recipe(identity["recipe"]), rename(state, RENAMED_KEYS)
        _check_parts(identity, state)
        return {"identity": identity, "state": state, "version": found.get("version")}


def _check_parts(identity: Any, state: Mapping[str, Any]) -> None:
    """Check the parts of a checkpoint that are read before a trainer loads the rest.

    Raises:
        Exception: of any class; a part is missing or invalid.
    """
    for key in ("network", "recipe", "training data", "validation data"):
        dict(identity[key])
    dict(identity.get("rounding", {}))
    task = get_task(identity["recipe"].get("task", "classification"))  # earlier versions had no other
    for epoch in state["epochs"]:
        Epoch.from_row(epoch, task)
    if not all(isinstance(name, str) for name in state["skipped"]) or int(state["step"]) < 0:
        raise ValueError("it has invalid names or counts")


def describe_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe, state: Mapping[str, Any]
) -> list[str]:
    """Compare the `identity` of a checkpoint with the identity of the run that resumes it.

    Args:
        before: of the checkpoint.
        now: of the run.
        recipe: of the run.
        state: of the checkpoint.

    Returns:
        The allowed changes, one line each.

    Raises:
        ValueError: something else has changed; the message says what.
    """
    known = {_ORDER: now.get(_ORDER), **before}  # a file without the order has the one that follows from the data
    was, wanted = (
        _flat({**known, "recipe": DEFAULTS | before["recipe"], "rounding": _recorded(before, now)}),
        _flat(now),
    )
    differing = [key for key in dict.fromkeys((*was, *wanted)) if was.get(key) != wanted.get(key)]
    epochs = "recipe.epochs"
    if epochs in differing:
        _check_epochs(was[epochs], recipe, state)
    refused = [key for key in differing if key not in _FREE and key != epochs and not key.startswith(_ROUNDING)]
    if refused:
        lines = "; ".join(f"{key} was {_show(was.get(key))} and is {_show(wanted.get(key))}" for key in refused[:8])
        more = f"; and {len(refused) - 8} more" if len(refused) > 8 else ""
        raise ValueError(f"cannot resume a changed run: {lines}{more}. Use another folder for that")
    return [f"{key.partition('.')[2]}: {_show(was.get(key))} -> {_show(wanted.get(key))}" for key in differing]


def rounds_differently(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether sums are rounded differently than in a checkpoint's run, given both `identity` dicts."""
    return _recorded(before, now) != dict(now.get("rounding", {}))


def _recorded(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint records of rounding; what it does not record counts as unchanged."""
    return dict(now.get("rounding", {})) | {"processes": 1} | dict(before.get("rounding", {}))


def _check_epochs(before: int, recipe: Recipe, state: Mapping[str, Any]) -> None:
    """Check that a run may have another number of epochs, given the epochs and steps that it has completed."""
    done = len(state["epochs"])
    what = f"epochs was {before} and is {recipe.epochs}"
    if recipe.schedule in ("one_cycle", "cosine"):
        raise ValueError(
            f"{what}: the schedule {recipe.schedule!r} depends on the number of epochs, so that the completed steps "
            f"would have been different; use another folder for that"
        )
    if recipe.epochs < done or (recipe.epochs == done and state["step"]):
        raise ValueError(f"{what}: {done} epochs are done already; give that many, or more")
    frozen = recipe.freeze_bn_epochs
    if frozen and done + bool(state["step"]) > min(before, recipe.epochs) - frozen:
        raise ValueError(f"{what}: the last {frozen} epochs, with frozen batch norms, have begun; keep epochs={before}")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: v for name, value in values.items() for key, v in _flat(value, f"{prefix}.{name}".strip(".")).items()}


def _show(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def restore(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    """Restore a trainer from the state of a checkpoint.

    Raises:
        ModelFileError: the checkpoint does not fit the trainer.
    """
    with reading(path, error=ModelFileError, message="the checkpoint {name} does not fit this run: {reason}"):
        trainer.load_state_dict(state)
