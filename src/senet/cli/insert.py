"""`senet insert`: insert SE into a network and save it, or list the sites."""

from typing import Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json
from senet.cli.common.inputs import InputOption
from senet.cli.common.networks import EntryOption, NetworkArgument, NetworkOption, WeightsOption, open_network
from senet.cli.common.outputs import MODEL, check_file_option
from senet.cli.common.site_report import AtOption, StagesOption, as_data, find, parse_stages, print_report
from senet.utils.choices import Gate, Initialization, Placement, Squeeze
from senet.utils.sizes import parse_size

__all__ = ["insert"]


def insert(
    network_or_file: NetworkArgument,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The model file to write.")] = None,
    placement: Annotated[Placement, typer.Option(help="Where SE acts in a unit (paper section 6.5).")] = "standard",
    reduction: Annotated[float, typer.Option(help="Reduction ratio r: channels per hidden unit.")] = 16,
    squeeze: Annotated[Squeeze, typer.Option(help="The pooling over space.")] = "avg",
    gate: Annotated[Gate, typer.Option(help="The last activation.")] = "sigmoid",
    bias: Annotated[bool, typer.Option(help="Biases in SE's two layers.")] = True,
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
            help="Size of training images, such as 224 or 64x32: on larger ones, SE squeezes over windows that have "
            "the size of its map in training.",
            metavar="SIZE",
        ),
    ] = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    weights: WeightsOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the sites; write nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Insert SE into a network and save it as a model file. Plain weights are unchanged."""
    import senet

    if output is None and not dry_run:
        raise ValueError("missing -o OUT, the model file to write; use --dry-run to list the sites only")
    inputs = () if dry_run else (network_or_file, weights)
    check_file_option("--output", output, not_suffixes=MODEL, inputs=inputs)
    model = open_network(network_or_file, network, set_, weights, weights_entry)
    options: dict[str, Any] = {"reduction": reduction, "squeeze": squeeze, "gate": gate, "bias": bias}
    report = find(model, placement, stages=stages, at=at, inputs=input_, **options)
    options |= {"init": init, "window": None if window is None else parse_size(window, "--window")}
    # In a dry run too, to report its errors.
    senet.insert(model, placement, **options, stages=parse_stages(stages), at=at, example=report.example)
    if output is not None and not dry_run:
        senet.save(model, output)
    if json:
        print_json(as_data(report) | {"output": None if dry_run else output})
        return
    print_report(report)
    note("nothing was written" if dry_run else f"wrote {output}")
