"""Read model files."""

from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from senet.model_file.file_format import FORMAT, KEY
from senet.model_file.given_network import load_into
from senet.model_file.named_network import rebuild_network
from senet.utils.arguments import argument, argument_name, in_python_or
from senet.utils.errors import ModelFileError, shown
from senet.utils.input_files import parse_json, reading
from senet.utils.option_types import check_path
from senet.weights import hub_file

__all__ = ["holds_se_only", "is_model_file", "load", "requires_network"]

_HUB = "hf-hub:"


def load(path: str | PathLike[str], *, model: nn.Module | None = None) -> nn.Module:
    """Load a network from a file of `save`, in evaluation mode. Loading never runs code from the file.

    Args:
        path: of the file; or "hf-hub:OWNER/NAME", a repository of `senet.push_to_hub`.
        model: the plain network that gets the file's SE and weights, in place; required unless the file describes a
            network of `create_model`. Its tensors keep their device and dtype. With a file of `save(se_only=True)`, the
            network keeps its own weights.

    Returns:
        `model`, or a new network with the saved `pretrained_cfg` (classes as `label_names`, mean, std, sizes).

    Raises:
        ModelFileError: the file is missing, truncated, of another kind, or written by a newer senet; it requires
            `model`; its sites or weights do not fit `model`, which is then unchanged; or the download from the hub
            fails.
        TypeError: `path` is not a path, or `model` not a network.
        ValueError: `model` is wrapped, see `senet.insertion.wrappers`.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> senet.save(model, "cats.safetensors")
        >>> loaded = senet.load("cats.safetensors")
        >>> loaded.training, loaded.architecture["name"]
        (False, 'resnet20')
    """
    check_path("path", path)
    path = _local(path)
    description, tensors = _read(path)
    if model is not None:
        return load_into(model, description, tensors, str(path)).eval()
    if _is_given(description):
        what = "only SE" if description.get("se_only") else f"a {str(description.get('class'))[:80]}"
        command = f"{argument('network')} FILE.py:FUNCTION"
        if description.get("se_only"):
            command = f"senet insert NETWORK --se {path}"
        elif argument_name("network") == "network":  # the command has no such option
            command = "FILE.py:FUNCTION, a function that loads the file into it"
        remedy = in_python_or("senet.load(path, model=MyNet())", command)
        raise ModelFileError(f"{path} holds {what}, and not how to build the network: give the network, as in {remedy}")
    return rebuild_network(description, tensors, str(path)).eval()


def requires_network(path: str | PathLike[str]) -> bool:
    """Return whether `load` requires a network for a model file.

    Raises:
        ModelFileError: as `load`.
    """
    return _is_given(_read(_local(path), tensors=False)[0])


def holds_se_only(path: str | PathLike[str]) -> bool:
    """Return whether a model file was written by `save(se_only=True)`.

    Raises:
        ModelFileError: as `load`.
    """
    return bool(_read(_local(path), tensors=False)[0].get("se_only"))


def is_model_file(path: str | PathLike[str]) -> bool:
    """Return whether a file, local or on the hub, was written by `save`."""
    try:
        with safe_open(_local(path), framework="pt") as file:
            return KEY in (file.metadata() or {})
    except Exception:  # another format, damaged or missing: the reader of weights reports the error
        return False


def _is_given(description: dict[str, Any]) -> bool:
    """Return whether a description is of SE in a network that is given to `load`."""
    return "network" not in description and description["format"] >= 3


def _read(path: str | PathLike[str], *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a file."""
    if not Path(path).is_file():
        raise ModelFileError(f"no file at {path}")
    with (
        reading(path, error=ModelFileError, message="{name} is not a model file of senet, or is truncated: {reason}"),
        safe_open(path, framework="pt") as file,
    ):
        text = (file.metadata() or {}).get(KEY)
        # Copies: tensors in the mapped file are not aligned, and some kernels then round differently.
        found = {key: file.get_tensor(key).clone() for key in file.keys()} if text and tensors else {}  # noqa: SIM118
    if text is None:
        remedy = in_python_or("as in senet.create_model(NAME, weights=...)", "with --network NAME")
        raise ModelFileError(f"{path} holds weights only; name their network, {remedy}")
    return _parsed(text, path), found


def _parsed(text: str, path: str | PathLike[str]) -> dict[str, Any]:
    """Parse the description in a file.

    Raises:
        ModelFileError: it is not a JSON object with a format, or a newer senet wrote it.
    """
    with reading(path, error=ModelFileError, message="{name} has an invalid description: {reason}"):
        description: dict[str, Any] = parse_json(text)
        number = description["format"]
        if type(number) is not int or number < 1:
            raise ValueError(f"format must be a whole number of 1 or more, got {shown(number)}")
    if number > FORMAT:
        raise ModelFileError(
            f"{path} was written by senet {str(description.get('version'))[:40]} in format {number}; this version "
            f"reads formats up to {FORMAT}: upgrade senet"
        )
    return description


def _local(path: str | PathLike[str]) -> str | PathLike[str]:
    """Return the local path of a file; files of the hub are downloaded."""
    name = str(path)
    return hub_file(name.removeprefix(_HUB)) if name.startswith(_HUB) else path
