"""Weights that other libraries and the hub have, by name; through their own loading, which keeps what it downloads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from senet.utils.errors import ModelFileError, first_line
from senet.weights.architecture import inner, of_model
from senet.weights.reading import HUB_FILES, Contents, read_config, read_file

__all__ = ["HUB_FILES", "SOURCES", "hub_file", "is_repository", "of_network", "open_source"]


def open_source(library: str, name: str, entry: str | None = None) -> Contents:
    """Weights of a library.

    Args:
        library: one of `SOURCES`.
        name: of the network there, or of the repository.
        entry: which of several state dicts of a repository's file, see `senet.load_weights`.

    Raises:
        ModelFileError: there are none of this name, or they cannot be had now.
    """
    if entry is not None and library != "hf-hub":
        raise ModelFileError(f"entry={entry!r} picks a state dict of a file, and {library}:{name} is one network")
    with _explained(library, name):
        return SOURCES[library](name, entry)


def is_repository(name: str) -> bool:
    """Whether a name is OWNER/NAME, as repositories of the hub are called."""
    return name.count("/") == 1 and all(name.split("/"))


def hub_file(name: str) -> str:
    """The file of weights in a repository of the hub, a model file of senet or bare, downloaded where it was not yet.

    Args:
        name: OWNER/NAME.

    Returns:
        Its path on this machine.

    Raises:
        ModelFileError: there is no such repository, no such file in it, or no connection.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not is_repository(name):
        raise ModelFileError(f"a repository is OWNER/NAME, as in {_EXAMPLES['hf-hub']}, got hf-hub:{name}")
    with _explained("hf-hub", name):
        for file in HUB_FILES:
            try:
                return str(hf_hub_download(name, file))
            except LocalEntryNotFoundError:  # no connection, rather than no such file
                raise
            except EntryNotFoundError:
                continue
        raise ModelFileError(f"hf-hub:{name} has neither of {' and '.join(HUB_FILES)}")


@contextmanager
def _explained(library: str, name: str) -> Iterator[None]:
    if not name:
        raise ModelFileError(f"{library}: is to be followed by a name, as in {_EXAMPLES[library]}")
    try:
        yield
    except (ModelFileError, ImportError):
        raise
    except Exception as error:  # unknown names, no network, no permission: each library has its own
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelFileError(
            f"{library}:{name} cannot be had from {library} ({reason}); see that the name is one of its pretrained "
            f"networks, and that there is a connection"
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
    """The weights of a network that is there, which says all of what it is.

    Args:
        model: the network, of any library; those of DataParallel, torch.compile and the like are of what they wrap.

    Raises:
        ValueError: it is on the meta device.
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
    """What a repository says of the network, where it has timm's config.json."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return [read_config(Path(hf_hub_download(name, "config.json")))]
    except EntryNotFoundError:
        return []


SOURCES: dict[str, Callable[[str, str | None], Contents]] = {"timm": _timm, "torchvision": _torchvision, "hf-hub": _hub}
# What a network's `pretrained_cfg` says of its images.
_IMAGES = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "label_names")
_EXAMPLES = {"timm": "timm:seresnet50", "torchvision": "torchvision:resnet50", "hf-hub": "hf-hub:timm/seresnet50"}
