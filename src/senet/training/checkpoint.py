"""One file from which a run goes on as if it had never been stopped, and whether it may.

The file is a `torch.save` of tensors, numbers and text, and is read with `weights_only=True`: it never runs code. It
is written under a temporary name, flushed to disk and renamed, so that the one before stays until it is whole.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from senet import model_file
from senet.data import ImageData, Loader
from senet.recipes.recipe import FREE, Recipe
from senet.runs.metrics import Epoch
from senet.training.reproducibility import rounding
from senet.training.trainer import Trainer
from senet.utils.errors import ModelFileError
from senet.utils.files import atomic_path
from senet.utils.input_files import parse_json, reading
from senet.utils.renamed import RENAMED_KEYS, current_recipe, rename
from senet.version import __version__

__all__ = [
    "FORMAT",
    "identity",
    "left_out",
    "read_checkpoint",
    "restore",
    "rounds_otherwise",
    "what_changes",
    "write_checkpoint",
]

# Rises when a file could be read wrongly by an older senet.
FORMAT = 1
_ORDER = "order of the training images"
# What may change, besides all that decides how sums are rounded.
_FREE = {f"recipe.{key}" for key in FREE}
_ROUNDING = "rounding."


def identity(
    model: nn.Module, recipe: Recipe, training: ImageData, validation: ImageData, processes: int = 1
) -> dict[str, Any]:
    """What has to be the same for a run to go on: network, recipe and data.

    The data are told by their classes, and by name and label of every image; wherever they lie. What decides how sums
    are rounded is recorded with it, see `senet.training.reproducibility`: a change of that is reported, not refused.
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


def left_out(training: Loader, validation: Loader) -> dict[str, Any]:
    """Of the same, what is known once the images are read: those that cannot be, and the order of the others."""
    loaders = {"training data": training, "validation data": validation}
    return {
        "images left out": {name: [Path(bad).name for bad in loader.skipped] for name, loader in loaders.items()},
        _ORDER: training.order,
    }


def _fingerprint(data: ImageData) -> dict[str, Any]:
    images = hashlib.sha256()
    for index, label in enumerate(data.labels.tolist()):
        images.update(f"{Path(data.name(index)).name}\0{label}\n".encode(errors="surrogateescape"))
    classes = hashlib.sha256("\0".join(data.classes).encode())
    return {
        "images": len(data),
        "classes": len(data.classes),
        "names and labels": images.hexdigest()[:16],
        "class names": classes.hexdigest()[:16],
    }


def write_checkpoint(trainer: Trainer, run: Mapping[str, Any], path: Path) -> None:
    """Save a trainer; `run` is its `identity`.

    Raises:
        OSError: the file cannot be written, and the one before is as it was.
    """
    state = {"format": FORMAT, "version": __version__, "identity": json.dumps(run), "state": trainer.state_dict()}
    # Given the file's name alone, PyTorch would have no word for a full disk.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # of which PyTorch's writer makes a riddle
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of `write_checkpoint`, on the CPU.

    Raises:
        ModelFileError: it is cut short, damaged, of another kind or of a newer senet, or would run code.
    """
    remedy = f"put a copy of it in its place, or start again in another folder than {path.parent}"
    message = f"the checkpoint {{name}} is cut short or damaged ({{reason}}): {remedy}"
    with reading(path, error=ModelFileError, message=message):
        with zipfile.ZipFile(path) as archive:  # PyTorch reads without a look at the checksums
            spoilt = archive.testzip()
            kinds = {(part.external_attr, part.compress_type, part.flag_bits) for part in archive.infolist()}
        if spoilt is not None:
            raise ValueError(f"the checksum of its part {spoilt} is wrong")
        if len(kinds) > 1:
            raise ValueError("its table of contents is wrong")
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ModelFileError(
                f"the checkpoint {path} holds more than tensors and text, and is not read: {remedy}"
            ) from error
        if int(found["format"]) > FORMAT:
            raise ModelFileError(
                f"the checkpoint {path} is of senet {found.get('version')}: upgrade senet to go on with it"
            )
        identity, state = parse_json(found["identity"]), dict(found["state"])
        identity["recipe"], state = current_recipe(identity["recipe"]), rename(state, RENAMED_KEYS)
        _check_parts(identity, state)
        return {"identity": identity, "state": state, "version": found.get("version")}


def _check_parts(identity: Any, state: Mapping[str, Any]) -> None:
    """Whether a checkpoint has what is read of it before a trainer takes the rest.

    Raises:
        Exception: any, of a part that is missing or something else.
    """
    for key in ("network", "recipe", "training data", "validation data"):
        dict(identity[key])
    dict(identity.get("rounding", {}))
    for epoch in state["epochs"]:
        Epoch(**epoch)
    if not all(isinstance(name, str) for name in state["skipped"]) or int(state["step"]) < 0:
        raise ValueError("it has names or counts that cannot be")


def what_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe, state: Mapping[str, Any]
) -> list[str]:
    """Compare a checkpoint's `identity` with that of the run that is to go on with it.

    Returns:
        What is allowed to change and does, one line each.

    Raises:
        ValueError: something else differs; the message says what.
    """
    # A key that this senet has and that one had not, had its default's effect.
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    known = {_ORDER: now.get(_ORDER), **before}  # the order follows from the data where the file does not say it
    was, wanted = (
        _flat({**known, "recipe": defaults | before["recipe"], "rounding": _recorded(before, now)}),
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
        raise ValueError(f"this run cannot go on otherwise than it began: {lines}{more}. Take another folder for that")
    return [f"{key.partition('.')[2]}: {_show(was.get(key))} -> {_show(wanted.get(key))}" for key in differing]


def rounds_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether sums are rounded differently than in a checkpoint's run, both given by their `identity`."""
    return _recorded(before, now) != dict(now.get("rounding", {}))


def _recorded(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of rounding; of what it does not record, nothing is known to have changed."""
    return dict(now.get("rounding", {})) | {"processes": 1} | dict(before.get("rounding", {}))


def _check_epochs(before: int, recipe: Recipe, state: Mapping[str, Any]) -> None:
    """Whether a run may have another number of epochs, given how far it is."""
    done = len(state["epochs"])
    what = f"epochs was {before} and is {recipe.epochs}"
    if recipe.schedule in ("one_cycle", "cosine"):
        raise ValueError(
            f"{what}: the schedule {recipe.schedule!r} spreads over all epochs, so that the steps already made would "
            f"have been others; take another folder for that"
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
    text = "not there" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def restore(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    """Put a trainer where a checkpoint was.

    Raises:
        ModelFileError: the checkpoint does not fit.
    """
    with reading(path, error=ModelFileError, message="the checkpoint {name} does not fit this run: {reason}"):
        trainer.load_state_dict(state)
