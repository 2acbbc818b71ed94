"""Write model files."""

from os import PathLike
from typing import Any

from torch import Tensor, nn

from senet.insertion.network_checks import check_module
from senet.model_file.file_format import KEY
from senet.model_file.given_network import describe_se, se_tensors
from senet.model_file.named_network import describe_named_network
from senet.nn.inserted_se import find_inserted_se
from senet.utils.errors import ModelFileError
from senet.utils.files import write_safetensors
from senet.utils.option_types import check_path, check_switch

__all__ = ["describe", "save"]


def save(model: nn.Module, path: str | PathLike[str], *, se_only: bool = False) -> None:
    """Write a network to one file, for `load`. The file is written completely or not at all.

    The file of a network of `create_model` has all that is needed to rebuild it. The file of any other network has the
    weights, and the sites and options of the SE that `insert` added: `load(path, model=MyNet())` inserts this SE.

    Args:
        model: a network of `create_model`, with SE inserted, removed or changed, where an SE module that is part of
            another library's network may be replaced by `torch.nn.Identity`; or any other network with inserted SE.
        path: of the file, usually `.safetensors`.
        se_only: write only SE: its sites, options and weights. `load(path, model=...)` inserts it into a network that
            has its own weights and, up to the last unit with SE, the same layers. If the rest of the network was
            trained with SE, those weights must be loaded as well.

    Raises:
        ModelFileError: a network of `create_model` was changed so that it cannot be rebuilt, or its `pretrained_cfg`
            has values that JSON does not support; another network, or one of which only SE is written, has no inserted
            SE; an entry of the state dict is not a tensor, or is on the meta device.
        OSError: the file cannot be written.
        TypeError: `model` is not a network, `path` not a path, or `se_only` not True or False.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> senet.save(model, "cats.safetensors")
        >>> senet.save(model, "cats-se.safetensors", se_only=True)
    """
    check_module(model)
    check_path("path", path)
    check_switch("se_only", se_only)
    text = describe(model, se_only=se_only)
    tensors = se_tensors(find_inserted_se(model)) if se_only else model.state_dict()
    write_safetensors(_writable(tensors), path, {KEY: text})


def describe(model: nn.Module, *, se_only: bool = False) -> str:
    """Return the description of a network in its file, as JSON, after a check that `load` can read it.

    Raises:
        ModelFileError: it cannot be loaded again, see `save`.
    """
    if isinstance(getattr(model, "architecture", None), dict) and not se_only:
        return describe_named_network(model)
    return describe_se(model, se_only=se_only)


def _writable(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict as safetensors stores them: on the CPU, contiguous, sharing no memory."""
    found: dict[str, Tensor] = {}
    memory = set()
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ModelFileError(
                f"{key!r} of the state dict is a {type(value).__name__}, and a model file holds tensors only; save the "
                f"state dict with torch.save, or SE with senet.save(model, path, se_only=True)"
            )
        if value.is_meta:
            raise ModelFileError(f"{key!r} is on the meta device and has no values; load or initialize the weights")
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        found[key] = tensor.clone() if storage in memory else tensor  # a shared module has several names
        memory.add(storage)
    return found
