"""Pretrained weights from timm, torchvision and the Hugging Face hub, loaded and cached by these libraries."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from senet.utils.arguments import argument
from senet.utils.errors import ModelFileError, first_line
from senet.weights.architecture import inner, of_model
from senet.weights.reading import HUB_FILES, Contents, read_config, read_file

__all__ = ["HUB_FILES", "SOURCES", "hub_file", "is_repository", "of_network", "open_source"]


def open_source(library: str, name: str, entry: str | None = None) -> Contents:
    """Load pretrained weights from a library.

    Args:
        library: one of `SOURCES`.
        name: the library's name of the network, or the name of the repository.
        entry: selects a state dict in a repository's file, see `senet.load_weights`.

    Raises:
        ModelFileError: the weights do not exist, or cannot be downloaded.
    """
    if entry is not None and library != "hf-hub":
        raise ModelFileError(
            f"invalid {argument('entry', entry)}: it selects a state dict in a file, and {library}:{name} is a single "
            f"network"
        )
    with _explained(library, name):
        return SOURCES[library](name, entry)


def is_repository(name: str) -> bool:
    """Return whether a name has the form OWNER/NAME of a hub repository."""
    return name.count("/") == 1 and all(name.split("/"))


def hub_file(name: str) -> str:
    """Download the weights file of a hub repository (a senet model file or bare weights), unless it is cached.

    Args:
        name: OWNER/NAME.

    Returns:
        The path of the local file.

    Raises:
        ModelFileError: the repository or the file does not exist, or there is no connection.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not is_repository(name):
        raise ModelFileError(f"invalid repository hf-hub:{name}: expected OWNER/NAME, such as {_EXAMPLES['hf-hub']}")
    with _explained("hf-hub", name):
        for file in HUB_FILES:
            try:
                return str(hf_hub_download(name, file))
            except LocalEntryNotFoundError:  # no connection; the file may exist
                raise
            except EntryNotFoundError:
                continue
        raise ModelFileError(f"hf-hub:{name} has neither of {' and '.join(HUB_FILES)}")


@contextmanager
def _explained(library: str, name: str) -> Iterator[None]:
    if not name:
        raise ModelFileError(f"invalid source '{library}:': expected a name after it, such as {_EXAMPLES[library]}")
    try:
        yield
    except (ModelFileError, ImportError):
        raise
    except Exception as error:  # unknown name, no connection, no permission: each library raises its own
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelFileError(
            f"{library}:{name} is not available from {library} ({reason}); check the name of the pretrained network, "
            f"and the connection"
        ) from error


def _timm(name: str, _: str | None) -> Contents:
    import timm

    model = timm.create_model(name, pretrained=True)
    preprocessing = dict(timm.data.resolve_model_data_config(model))
    return _of_library(model, f"timm:{name}", preprocessing)


def _torchvision(name: str, _: str | None) -> Contents:
    from torchvision.models import get_model, get_model_weights

    name, _, tag = name.partition(".")
    weights = get_model_weights(name)[tag] if tag else get_model_weights(name).DEFAULT
    transform = weights.transforms()
    preprocessing = {
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
        "interpolation": transform.interpolation.value,
        "input_size": (3, transform.crop_size[0], transform.crop_size[-1]),
        "crop_pct": transform.crop_size[0] / transform.resize_size[0],
        "label_names": list(weights.meta["categories"]),
    }
    return _of_library(get_model(name, weights=weights), f"torchvision:{name}", preprocessing)


def _of_library(model: nn.Module, source: str, preprocessing: dict[str, Any]) -> Contents:
    return replace(of_network(model), source=source, preprocessing=preprocessing)


def of_network(model: nn.Module) -> Contents:
    """Read the weights and architecture of a built network.

    Args:
        model: a network of any library; wrappers such as DataParallel and torch.compile are removed.

    Raises:
        ValueError: the network is on the meta device.
    """
    model = inner(model)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    known = {key: cfg[key] for key in _IMAGES if cfg.get(key) is not None} if isinstance(cfg, Mapping) else {}
    return Contents(
        f"the {type(model).__name__}",
        dict(model.state_dict()),
        facts=of_model(model),
        preprocessing=known,
        network=model,
    )


def _hub(name: str, entry: str | None) -> Contents:
    found = read_file(hub_file(name), entry)
    around = (*found.around, *_config(name))
    return replace(found, source=f"hf-hub:{name}", around=around)


def _config(name: str) -> list[dict[str, Any]]:
    """Read timm's config.json from a repository, if there is one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return [read_config(Path(hf_hub_download(name, "config.json")))]
    except EntryNotFoundError:
        return []


SOURCES: dict[str, Callable[[str, str | None], Contents]] = {"timm": _timm, "torchvision": _torchvision, "hf-hub": _hub}
# Keys of a network's `pretrained_cfg` that describe its images.
_IMAGES = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "label_names")
_EXAMPLES = {"timm": "timm:seresnet50", "torchvision": "torchvision:resnet50", "hf-hub": "hf-hub:timm/seresnet50"}
