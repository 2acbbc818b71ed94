"""Networks of a command: a name of the catalogue, a model file, or weights with a name."""

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
        help="The network of the weights, such as resnet20. Options that the weights imply are set automatically; set "
        "others with --set, such as network.stride_in=conv2.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Initial weights: .pth, .th, .safetensors, .caffemodel, timm:NAME, torchvision:NAME or hf-hub:OWNER/NAME.",
    ),
]
EntryOption = Annotated[
    str | None,
    typer.Option(
        "--weights-entry",
        metavar="KEY",
        help="The state dict to read from a file that has several, such as model or ema; default: averaged weights.",
    ),
]
MissingOption = Annotated[
    Missing | None,
    typer.Option(help="gates: load weights of the plain network; SE is initialised as the identity."),
]


def network_options(settings: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of a network from settings "network.KEY=VALUE".

    Raises:
        ValueError: a setting without "=" or of another key, or an option that no command supports.
    """
    from senet.utils.renamed import current_settings
    from senet.utils.settings import parse_setting

    options: dict[str, Any] = {}
    for setting in current_settings(settings or []):
        key, value = parse_setting(setting)
        table, _, option = key.partition(".")
        if table != "network" or not option:
            raise ValueError(f"--set {key}=... is not an option of the network; write network.KEY=VALUE")
        options[option] = value
    if options.get("features_only"):
        raise ValueError("features_only builds a network without classes, which no command supports; leave it out")
    return options


def build_network(
    name: str,
    settings: Sequence[str] | None,
    weights: str | None = None,
    missing: Missing | None = None,
    entry: str | None = None,
) -> Any:
    """Build a network by its name, and load weights if given; options implied by the weights go to standard error.

    Raises:
        ModelFileError: the weights cannot be read, or do not fit the network.
        ValueError: an unknown network or option.
    """
    from senet.models import create_model

    options = network_options(settings)
    given = {"weights": weights, "missing": missing, "entry": entry}
    options |= {key: value for key, value in given.items() if value is not None}
    model = create_model(name, **options)
    report = getattr(model, "weights_report", None)
    if report is None:
        return model
    built = getattr(model, "architecture", None) or {"options": {}}
    implied = {option: value for option, value in built["options"].items() if option not in options}
    implied |= {option: report.implied[option] for option in ("hidden_channels",) if option in report.implied}
    if implied:
        listed = ", ".join(f"{option}={value!r}" for option, value in implied.items())
        note(f"{report.source} has weights of {report.format}; they imply {listed}")
    for text in report.notes:
        note(f"{report.source}: {text}")
    return model


def open_file(path: str, network: str | None, settings: Sequence[str] | None, entry: str | None = None) -> Any:
    """Load the network of a file, in evaluation mode.

    Args:
        path: a model file; or, with the name of a network, a source of `senet.load_weights`.
        network: the name.
        settings: options of the network.
        entry: the state dict to read from a file that has several.

    Raises:
        ModelFileError: the file cannot be loaded, or it holds weights only and no network is named.
        ValueError: options for a model file, which records its own.
    """
    from senet.model_file import is_model_file, load
    from senet.weights import open_checkpoint

    if is_model_file(path):
        if network or network_options(settings) or entry is not None:
            raise ValueError(
                f"{path} is a model file, which records its network and options; leave out --network, --set and "
                f"--weights-entry"
            )
        return load(path)
    given = Path(path)
    if given.name == "checkpoint.pt":
        from senet.runs import RunFolder  # imports recipes, which no other file needs

        best = RunFolder(given.parent).best_model
        if best.is_file():
            raise ModelFileError(
                f"{path} is the checkpoint of a run, without the size, mean and std of its images; use {best}"
            )
    if network is None:
        open_checkpoint(path, entry=entry)  # raises the error of a file that cannot be read at all
        raise ModelFileError(f"{path} holds weights only; name their network with --network NAME")
    return build_network(network, settings, weights=path, entry=entry).eval()
