"""`senet insert`: put SE into a network and save it, or show where it would go."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, table
from senet.cli.common.networks import EntryOption, NetworkOption, WeightsOption, build_network, open_file
from senet.cli.common.outputs import MODEL, check_file_option
from senet.utils.choices import Gate, Initialization, Placement, Squeeze

__all__ = ["insert"]


def insert(
    network_or_file: Annotated[
        str,
        typer.Argument(metavar="NETWORK|FILE", help="A network's name, a model file, or bare weights with --network."),
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", help="The model file to write.")] = None,
    placement: Annotated[Placement, typer.Option(help="Where SE acts in a unit (paper section 6.5).")] = "standard",
    reduction: Annotated[float, typer.Option(help="The ratio r of channels to hidden units.")] = 16,
    squeeze: Annotated[Squeeze, typer.Option(help="The pooling over space.")] = "avg",
    gate: Annotated[Gate, typer.Option(help="The last activation.")] = "sigmoid",
    bias: Annotated[bool, typer.Option(help="Whether SE's two layers have biases.")] = True,
    stages: Annotated[
        str | None, typer.Option(help="Only these stages, such as 2,3; the first stage of blocks is 2.")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="Only sites, units or modules of this name or glob. Repeatable.")
    ] = None,
    init: Annotated[
        Initialization,
        typer.Option(help="identity keeps the network's function; paper is the paper's initialisation."),
    ] = "identity",
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    weights: WeightsOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the sites; change and write nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Put SE into a network and save it as a model file; plain weights stay as they are."""
    import senet
    from senet.insertion.sites import find_sites
    from senet.models import names_file

    if output is None and not dry_run:
        raise ValueError("give -o OUT, the model file to write, or --dry-run to see the sites alone")
    inputs = () if dry_run else (network_or_file, weights)
    check_file_option("--output", output, not_suffixes=MODEL, inputs=inputs)
    chosen: Any = None if stages is None else _stages(stages)
    if names_file(network_or_file):
        if weights is not None:
            raise ValueError(f"--weights goes with the name of a network, and {network_or_file!r} has weights")
        model = open_file(network_or_file, network, set_, weights_entry)
    elif network is not None:
        raise ValueError(f"--network goes with a file of bare weights, and {network_or_file!r} is no file")
    else:
        model = build_network(network_or_file, set_, weights, entry=weights_entry)
    sites = find_sites(model, placement, stages=chosen, at=at)
    # In a dry run too: what would be refused is refused there.
    senet.insert(
        model, placement, reduction=reduction, squeeze=squeeze, gate=gate, bias=bias, stages=chosen, at=at, init=init
    )
    if output is not None and not dry_run:
        senet.save(model, output)
    if json:
        print_json({"sites": [asdict(site) for site in sites], "output": None if dry_run else output})
        return
    rows = [[site.name, "-" if site.stage is None else site.stage, site.how, site.channels] for site in sites]
    table(f"{placement}: {len(sites)} sites", ["site", "stage", "how", "channels"], rows, text=3)
    note("nothing was changed" if dry_run else f"wrote {output}")


def _stages(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",")}
    except ValueError as error:
        raise ValueError(f"--stages must be whole numbers with commas between, such as 2,3; got {text!r}") from error
