"""`senet sites`: the sites of a network, what SE costs there, and a picture, before anything changes."""

from pathlib import Path
from typing import Annotated

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json
from senet.cli.common.inputs import InputOption
from senet.cli.common.networks import EntryOption, NetworkArgument, NetworkOption, open_network
from senet.cli.common.outputs import check_file_option
from senet.cli.common.site_report import AtOption, PlacementOption, StagesOption, as_data, draw, find, print_report

__all__ = ["sites"]


def sites(
    network_or_file: NetworkArgument,
    placement: PlacementOption = "standard",
    stages: StagesOption = None,
    at: AtOption = None,
    input_: InputOption = None,
    reduction: Annotated[float, typer.Option(help="Reduction ratio r of which the costs are counted.")] = 16,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    plot: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Draw the network with its sites, and what SE costs there.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show where SE can be inserted, and what it costs there. Nothing is changed.

    FILE.py:FUNCTION runs the code in your file: `senet sites net.py:make` calls its function make(), which returns
    the network.
    """
    from senet.nn.inserted_se import find_inserted_se

    check_file_option("--plot", plot, suffixes=(".png",), inputs=(network_or_file,))
    model = open_network(network_or_file, network, set_, entry=weights_entry)
    inserted = find_inserted_se(model)
    if inserted:
        raise ValueError(f"{network_or_file} has SE at {len(inserted)} sites already; give the plain network")
    report = find(model, placement, stages=stages, at=at, inputs=input_, reduction=reduction)
    if plot is not None:
        draw(report, plot, Path(network_or_file).name)
    if json:
        print_json(as_data(report))
    else:
        print_report(report)
    if plot is not None:
        note(f"drew {plot}")
