"""Open the network that a command names: one of the catalogue, a model file, or bare weights with a name."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from senet.errors import ModelFileError

__all__ = ["FileArgument", "NetworkOption", "network_options", "open_file"]

FileArgument = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A model file, or bare weights (.pth, .th, .safetensors) with --network."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The network that bare weights are of, such as resnet20; its options with --set, such as "
        "network.stride_in=conv2 and network.pool=pad for torchvision's weights.",
    ),
]


def network_options(settings: Sequence[str] | None) -> dict[str, Any]:
    """Options of a network from settings "network.KEY=VALUE".

    Raises:
        ValueError: a setting of something else, or an option that no command can do with.
    """
    from senet.training.recipe_file import apply_settings

    values = apply_settings({}, settings or [])
    options: dict[str, Any] = values.pop("network", {})
    if values:
        raise ValueError(f"--set {next(iter(values))}=... is no option of the network; write network.KEY=VALUE")
    if options.get("features_only"):
        raise ValueError("features_only gives a network without classes, which no command can use; leave it out")
    return options


def open_file(path: str, network: str | None, settings: Sequence[str] | None) -> Any:
    """The network in a file, in evaluation mode.

    Raises:
        ModelFileError: the file cannot be loaded, or holds bare weights and no network is named.
        ValueError: options for a file that says itself how it is built.
    """
    from senet.model_file import is_model_file, load
    from senet.models import create_model
    from senet.weights import read_checkpoint

    options = network_options(settings)
    if is_model_file(path):
        if network or options:
            raise ValueError(f"{path} is a model file, which says itself how it is built; leave out --network, --set")
        return load(path)
    if network is None:
        read_checkpoint(path)  # a file that cannot be read at all is the nearer complaint
        raise ModelFileError(f"{path} holds bare weights; say with --network NAME which network they are of")
    if "num_classes" not in options:
        options["num_classes"] = _classes(read_checkpoint(path))
    return create_model(network, weights=path, **options).eval()


def _classes(weights: dict[str, Any]) -> int | None:
    """As many classes as bare weights have outputs; None where that cannot be told."""
    bias = weights.get("fc.bias")
    return len(bias) if bias is not None and bias.ndim else None
