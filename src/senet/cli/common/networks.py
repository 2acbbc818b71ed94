"""Open the network that a command names: one of the catalogue, a model file, or weights with a name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from senet.cli.common.console import note
from senet.utils.choices import Missing
from senet.utils.errors import ModelFileError

__all__ = [
    "EntryOption",
    "FileArgument",
    "MissingOption",
    "NetworkOption",
    "WeightsOption",
    "build_network",
    "network_options",
    "open_file",
]

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A model file; or, with --network, weights: .pth, .th, .safetensors, .caffemodel, timm:NAME, "
        "torchvision:NAME or hf-hub:OWNER/NAME.",
    ),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The network that weights are of, such as resnet20. What they say of its architecture is taken from them; "
        "the rest with --set, such as network.stride_in=conv2.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Weights to start from: .pth, .th, .safetensors, .caffemodel, timm:NAME, torchvision:NAME or "
        "hf-hub:OWNER/NAME.",
    ),
]
EntryOption = Annotated[
    str | None,
    typer.Option(
        "--weights-entry",
        metavar="KEY",
        help="Which state dict of a file with several, such as model or ema; averaged weights are taken unless given.",
    ),
]
MissingOption = Annotated[
    Missing | None,
    typer.Option(help="gates: the weights are those of the plain network, and SE starts as identity."),
]


def network_options(settings: Sequence[str] | None) -> dict[str, Any]:
    """Options of a network from settings "network.KEY=VALUE".

    Raises:
        ValueError: a setting of something else, or an option that no command can do with.
    """
    from senet.recipes.toml import apply_settings

    values = apply_settings({}, settings or [])
    options: dict[str, Any] = values.pop("network", {})
    if values:
        raise ValueError(f"--set {next(iter(values))}=... is no option of the network; write network.KEY=VALUE")
    if options.get("features_only"):
        raise ValueError("features_only gives a network without classes, which no command can use; leave it out")
    return options


def build_network(
    name: str,
    settings: Sequence[str] | None,
    weights: str | None = None,
    missing: Missing | None = None,
    entry: str | None = None,
) -> Any:
    """A network by its name, with weights where they are given; what they change of it is told on standard error.

    Raises:
        ModelFileError: the weights cannot be read, or are not the network's.
        ValueError: an unknown network or option.
    """
    from senet.models import create_model

    options = network_options(settings)
    given = {"weights": weights, "missing": missing, "entry": entry}
    options |= {key: value for key, value in given.items() if value is not None}
    model = create_model(name, **options)
    found = getattr(model, "weights_report", None)
    if found is None:
        return model
    built = getattr(model, "architecture", None) or {"options": {}}
    said = {option: value for option, value in built["options"].items() if option not in options}
    said |= {option: found.implied[option] for option in ("hidden_channels",) if option in found.implied}
    if said:
        listed = ", ".join(f"{option}={value!r}" for option, value in said.items())
        note(f"{found.source} is of {found.format}, and says {listed}")
    for text in found.notes:
        note(f"{found.source}: {text}")
    return model


def open_file(path: str, network: str | None, settings: Sequence[str] | None, entry: str | None = None) -> Any:
    """The network in a file, in evaluation mode.

    Args:
        path: a model file; or what `senet.load_weights` takes, with a network's name.
        network: the name.
        settings: options of the network.
        entry: which state dict of a file with several.

    Raises:
        ModelFileError: the file cannot be loaded, or holds bare weights and no network is named.
        ValueError: options for a file that says itself how it is built.
    """
    from senet.model_file import is_model_file, load
    from senet.runs import RunFolder
    from senet.weights import open_checkpoint

    if is_model_file(path):
        if network or network_options(settings) or entry is not None:
            raise ValueError(
                f"{path} is a model file, which says itself how it is built; leave out --network, --set, "
                f"--weights-entry"
            )
        return load(path)
    given = Path(path)
    folder = RunFolder(given.parent)
    if given.name == folder.checkpoint.name and folder.best_model.is_file():
        raise ModelFileError(
            f"{path} is the checkpoint of a run, without the size, mean and std of its images; give {folder.best_model}"
        )
    if network is None:
        open_checkpoint(path, entry=entry)  # a file that cannot be read at all is the nearer complaint
        raise ModelFileError(f"{path} holds bare weights; say with --network NAME which network they are of")
    return build_network(network, settings, weights=path, entry=entry).eval()
