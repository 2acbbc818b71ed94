"""`senet insert`: insert SE into a network and save it, or list the sites."""

from typing import Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, refuse, table
from senet.cli.common.inputs import InputOption
from senet.cli.common.networks import EntryOption, NetworkArgument, NetworkOption, WeightsOption, open_network
from senet.cli.common.outputs import MODEL, check_file_option
from senet.cli.common.site_report import (
    AtOption,
    PlacementOption,
    StagesOption,
    as_data,
    find,
    parse_stages,
    print_report,
)
from senet.utils.choices import Attention, Gate, Initialization, Squeeze

__all__ = ["insert"]


def insert(
    network_or_file: NetworkArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The model file to write, usually .safetensors.")
    ] = None,
    placement: PlacementOption = "standard",
    reduction: Annotated[float, typer.Option(help="Reduction ratio r: channels per hidden unit.")] = 16,
    attention: Annotated[
        Attention,
        typer.Option(help="Layers from the squeeze to the gate: SE's two, ECA's convolution, or effective SE's one."),
    ] = "se",
    squeeze: Annotated[Squeeze, typer.Option(help="The pooling over space.")] = "avg",
    gate: Annotated[
        Gate | None, typer.Option(help="The last activation. Default: sigmoid, hard_sigmoid for ese.")
    ] = None,
    bias: Annotated[bool | None, typer.Option(help="Biases in the layers. Default: yes, no for eca.")] = None,
    stages: StagesOption = None,
    at: AtOption = None,
    input_: InputOption = None,
    init: Annotated[
        Initialization,
        typer.Option(help="identity keeps the network's function; paper is the paper's initialization."),
    ] = "identity",
    window: Annotated[
        str | None,
        typer.Option(
            help="Size of training images, such as 224, 64x32 or 16x112x112: on larger ones, SE squeezes over windows "
            "that have the size of its map in training.",
            metavar="SIZE",
        ),
    ] = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    weights: WeightsOption = None,
    set_: SetOption = None,
    se: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file of --se-only: insert its SE, with its weights, instead of new SE. The network keeps its own "
            "weights, and must be the one that the file was made from.",
        ),
    ] = None,
    se_only: Annotated[
        bool,
        typer.Option(
            "--se-only",
            help="Write SE alone, a small file for --se. The network may have its SE already, as a trained one has.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the sites; write nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Insert SE into a network and save it as a model file. Plain weights are unchanged.

    senet sites shows the places and costs first. A network of net.py:make is opened later by --network net.py:make:
    the file has its weights and SE, and no code.
    """
    import senet
    from senet.nn.inserted_se import find_inserted_se

    if output is None and not dry_run:
        raise ValueError("missing -o OUT, the model file to write; use --dry-run to list the sites only")
    inputs = () if dry_run else (network_or_file, network, weights, se)
    check_file_option("--output", output, not_suffixes=MODEL, inputs=inputs)
    model = open_network(network_or_file, network, set_, weights, weights_entry)
    of_se: dict[str, Any] = {"reduction": reduction, "attention": attention, "squeeze": squeeze}
    of_se |= {"gate": gate, "bias": bias}
    others: dict[str, Any] = {"init": init, "window": None if window is None else _parse_window(window)}
    report = None
    if se is not None or (se_only and find_inserted_se(model)):
        what = "with --se, whose file has the sites" if se is not None else "for a network that has SE already"
        chosen = {"placement": placement, "stages": stages, "at": at, "input": input_, **of_se, **others}
        refuse({f"--{name}": value != _DEFAULTS.get(name) for name, value in chosen.items()}, f"has no effect {what}")
        if se is not None:
            _load_se(se, model)
    else:
        report = find(model, placement, stages=stages, at=at, inputs=input_, **of_se)
        # In a dry run too, to report its errors.
        senet.insert(model, placement, **of_se, **others, stages=parse_stages(stages), at=at, example=report.example)
    if output is not None and not dry_run:
        senet.save(model, output, se_only=se_only)
    sites = [{"name": one.name, "channels": one.se.channels, "how": one.how} for one in find_inserted_se(model)]
    if json:
        data = {"sites": sites} if report is None else as_data(report)
        print_json(data | {"output": None if dry_run else output})
        return
    if report is None:
        table(
            f"{len(sites)} {'site' if len(sites) == 1 else 'sites'}",
            ["site", "attached", "channels"],
            [[s["name"], s["how"], s["channels"]] for s in sites],
            text=2,
        )
    else:
        print_report(report)
    note("nothing was written" if dry_run else f"wrote {output}")


def _parse_window(text: str) -> int | tuple[int, ...]:
    """Parse `--window`: one length for all spatial axes, or one for each.

    Raises:
        ValueError: it is not lengths.
    """
    try:
        lengths = tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ValueError(
            f"invalid --window {text!r}: expected the size of training images, such as 224, 64x32 or 16x112x112"
        ) from error
    return lengths[0] if len(lengths) == 1 else lengths


# Of options that choose and make new SE; None for the others.
_DEFAULTS = {
    "placement": "standard",
    "reduction": 16,
    "attention": "se",
    "squeeze": "avg",
    "init": "identity",
}


def _load_se(path: str, model: Any) -> None:
    """Insert the SE of a file into a network.

    Raises:
        ModelFileError: the file holds more than SE, or does not fit the network.
    """
    from senet.model_file import holds_se_only, load
    from senet.utils.errors import ModelFileError

    if not holds_se_only(path):
        raise ModelFileError(f"--se {path!r} is the file of a whole network; write its SE with senet insert --se-only")
    load(path, model=model)
