"""`senet insert`: insert SE into a network and save it, or list the sites."""

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
    reduction: Annotated[float, typer.Option(help="Reduction ratio r: channels per hidden unit.")] = 16,
    squeeze: Annotated[Squeeze, typer.Option(help="The pooling over space.")] = "avg",
    gate: Annotated[Gate, typer.Option(help="The last activation.")] = "sigmoid",
    bias: Annotated[bool, typer.Option(help="Biases in SE's two layers.")] = True,
    stages: Annotated[
        str | None, typer.Option(help="Only these stages, such as 2,3. The first stage of blocks is 2.")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="Only sites, units or modules with this name or glob. Repeatable.")
    ] = None,
    init: Annotated[
        Initialization,
        typer.Option(help="identity keeps the network's function; paper is the paper's initialisation."),
    ] = "identity",
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    weights: WeightsOption = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the sites; write nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Insert SE into a network and save it as a model file. Plain weights are unchanged."""
    import senet
    from senet.insertion.sites import find_sites
    from senet.models import names_file

    if output is None and not dry_run:
        raise ValueError("missing -o OUT, the model file to write; use --dry-run to list the sites only")
    inputs = () if dry_run else (network_or_file, weights)
    check_file_option("--output", output, not_suffixes=MODEL, inputs=inputs)
    chosen: Any = None if stages is None else _stages(stages)
    if names_file(network_or_file):
        if weights is not None:
            raise ValueError(f"--weights requires the name of a network, and {network_or_file!r} is a file")
        model = open_file(network_or_file, network, set_, weights_entry)
    elif network is not None:
        raise ValueError(f"--network requires a file of bare weights, and {network_or_file!r} is not a file")
    else:
        model = build_network(network_or_file, set_, weights, entry=weights_entry)
    sites = find_sites(model, placement, stages=chosen, at=at)
    # In a dry run too, to report its errors.
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
    note("nothing was written" if dry_run else f"wrote {output}")


def _stages(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",")}
    except ValueError as error:
        raise ValueError(f"invalid --stages {text!r}: expected integers separated by commas, such as 2,3") from error
