"""Networks of a command: a name of the catalogue, a model file, weights with a name, or a user's own function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from senet.cli.common.completion import complete_network
from senet.cli.common.console import note
from senet.cli.common.user_code import call_function, names_function
from senet.utils.arguments import as_options
from senet.utils.choices import Missing, TaskName
from senet.utils.errors import ModelFileError

__all__ = [
    "EntryOption",
    "FileArgument",
    "MissingOption",
    "NetworkArgument",
    "NetworkOption",
    "RunnableArgument",
    "TaskOption",
    "WeightsOption",
    "build_network",
    "check_task",
    "network_options",
    "open_file",
    "open_network",
    "open_runnable",
]

NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK|FILE|FILE.py:FUNCTION",
        help="A network's name (senet models lists them), timm/NAME or torchvision/NAME; a model file, or weights with "
        "--network; or a function without arguments, or a class, that returns a network: senet runs your file.",
        autocompletion=complete_network,
    ),
]

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FILE.py:FUNCTION",
        help="A model file; or, with --network, weights: .pth, .th, .safetensors, .caffemodel, timm:NAME, "
        "torchvision:NAME or hf-hub:OWNER/NAME; or a function that returns a trained network, for which senet runs "
        "your file.",
    ),
]
RunnableArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE|FILE.py:FUNCTION",
        help="A model file; an exported network: .onnx, .xml or .pt2; weights with --network: .pth, .th, .safetensors, "
        ".caffemodel, timm:NAME, torchvision:NAME or hf-hub:OWNER/NAME; or a function that returns a trained network, "
        "for which senet runs your file.",
    ),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.py:FUNCTION",
        help="The network of the weights, such as resnet20; or a function that returns it, for which senet runs your "
        "file. Options that the weights imply are set automatically; set others with --set, such as "
        "network.stride_in=conv2.",
        autocompletion=complete_network,
    ),
]
TaskOption = Annotated[
    TaskName | None, typer.Option(help="What the network must have been trained for; any task by default.")
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
    typer.Option(help="gates: load weights of the plain network; SE is initialized as the identity."),
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


def check_task(found: Any, wanted: TaskName | None) -> None:
    """Check the task of a network.

    Args:
        found: the `Task` of the network.
        wanted: of --task; None accepts any.

    Raises:
        ValueError: it is another one.
    """
    if wanted is not None and found.name != wanted:
        raise ValueError(f"the network was trained with task={found.name}, and --task is {wanted}; give another file")


def build_network(
    name: str,
    settings: Sequence[str] | None,
    weights: str | None = None,
    missing: Missing | None = None,
    entry: str | None = None,
) -> Any:
    """Build a network by its name, and load weights if given; options implied by the weights go to standard error.

    Args:
        name: as for `senet.create_model`; or FILE.py:FUNCTION, which runs the file.
        settings: options of a named network.
        weights, missing, entry: as for `senet.create_model`.

    Raises:
        FileError: a Python file cannot be read, or has no such function.
        ModelFileError: the weights cannot be read, or do not fit the network.
        ValueError: an unknown network or option, or a function that fails.
    """
    options = network_options(settings)
    if names_function(name):
        if options:
            raise ValueError(f"--set requires a named network; set the options in {name} instead")
        return _of_function(name, weights, missing, entry)
    given = {"weights": weights, "missing": missing, "entry": entry}
    options |= {key: value for key, value in given.items() if value is not None}
    model = _create(name, options)
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


def _create(name: str, options: dict[str, Any]) -> Any:
    """Build a named network; messages name its options as --set does."""
    from senet.models import create_model

    with as_options({option: f"network.{option}" for option in options if option not in _WITH_WEIGHTS}):
        return create_model(name, **options)


# Options of `create_model` that are options of commands.
_WITH_WEIGHTS = ("weights", "missing", "entry")


def _of_function(name: str, weights: str | None, missing: Missing | None, entry: str | None) -> Any:
    from senet.weights import load_weights

    model = call_function(name)
    if weights is not None:
        load_weights(model, weights, missing=missing, entry=entry)
    elif missing is not None or entry is not None:
        raise ValueError("--missing and --weights-entry require weights")
    return model


def open_network(
    given: str,
    network: str | None = None,
    settings: Sequence[str] | None = None,
    weights: str | None = None,
    entry: str | None = None,
) -> Any:
    """Open a `NetworkArgument`: a named network with initial weights, a file, or the network of a function.

    Args:
        given: the argument.
        network: of a file of weights.
        settings: options of the network.
        weights: initial weights of a named network, or of a function's.
        entry: the state dict to read from a file that has several.

    Raises:
        FileError, ModelFileError, ValueError: as in `build_network` and `open_file`, or options that contradict
            the argument.
    """
    from senet.models import names_file

    if names_file(given) and not names_function(given):
        if weights is not None:
            raise ValueError(f"--weights requires the name of a network, and {given!r} is a file")
        return open_file(given, network, settings, entry)
    if network is not None:
        raise ValueError(f"--network requires a file of bare weights, and {given!r} is not a file")
    return build_network(given, settings, weights, entry=entry)


def open_file(path: str, network: str | None, settings: Sequence[str] | None, entry: str | None = None) -> Any:
    """Load the network of a file, in evaluation mode.

    Args:
        path: a model file; or, with the name of a network, a source of `senet.load_weights`; or FILE.py:FUNCTION.
        network: the name, or FILE.py:FUNCTION; also of a model file that does not build its network.
        settings: options of the network.
        entry: the state dict to read from a file that has several.

    Raises:
        ModelFileError: the file cannot be loaded, or it holds weights only and no network is named.
        ValueError: options for a model file, which records its own; or the name of a network.
    """
    from senet.deployment.engines import is_exported
    from senet.model_file import is_model_file, load, requires_network
    from senet.weights import open_checkpoint

    if is_exported(path):
        raise ModelFileError(
            f"{path} is an exported network, which only senet evaluate, predict and bench run; give the model file "
            f"that it was exported from"
        )
    function = names_function(path)
    if not function:
        _refuse_name(path)
    if function or is_model_file(path):
        if network is not None and entry is None and not function and requires_network(path):
            return load(path, model=build_network(network, settings))
        if network or network_options(settings) or entry is not None:
            why = "a function, which returns its network" if function else "a model file, which records its network"
            raise ValueError(f"{path} is {why} and options; leave out --network, --set and --weights-entry")
        return call_function(path).eval() if function else load(path)
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


def _refuse_name(given: str) -> None:
    """Refuse the name of a network where its weights are needed.

    Raises:
        ValueError: it is one, or an unknown name of another library.
    """
    from senet.models import is_of_library, names_file, plain_name

    if Path(given).exists() or names_file(given):
        return
    try:
        plain_name(given)
    except ValueError:
        if is_of_library(given):
            raise
        return
    library, _, name = given.partition("/")
    source = f"such as {library}:{name}, with" if is_of_library(given) and library[:3] != "se_" else "with"
    raise ValueError(
        f"{given} is a network without trained weights: give a model file, or weights, {source} --network {given}"
    )


def open_runnable(path: str, network: str | None, settings: Sequence[str] | None, entry: str | None = None) -> Any:
    """Open a network to run it: a file as `open_file` does, or an exported one.

    Raises:
        ImportError: the engine of an exported network is not installed.
        ModelFileError, ValueError: see `open_file`.
    """
    from senet.deployment.engines import is_exported, load_exported

    if not is_exported(path):
        return open_file(path, network, settings, entry)
    if network or network_options(settings) or entry is not None:
        raise ValueError(f"{path} is an exported network; leave out --network, --set and --weights-entry")
    return load_exported(path)
