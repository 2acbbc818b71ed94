"""`senet sites`: the sites of a network, what SE costs there, and a picture, before anything changes."""

from typing import Annotated

import typer

from senet.cli.common.console import JsonOption, SetOption, print_json
from senet.cli.common.inputs import InputOption
from senet.cli.common.networks import EntryOption, NetworkArgument, NetworkOption, open_network
from senet.cli.common.site_report import AtOption, StagesOption, as_data, find, print_report
from senet.utils.choices import Placement

__all__ = ["sites"]


def sites(
    network_or_file: NetworkArgument,
    placement: Annotated[Placement, typer.Option(help="Where SE acts in a unit (paper section 6.5).")] = "standard",
    stages: StagesOption = None,
    at: AtOption = None,
    input_: InputOption = None,
    reduction: Annotated[float, typer.Option(help="Reduction ratio r of which the costs are counted.")] = 16,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show where SE can be inserted, and what it costs there. Nothing is changed.

    FILE.py:FUNCTION runs the code in your file: `senet sites net.py:make` calls its function make(), which returns
    the network.
    """
    model = open_network(network_or_file, network, set_, entry=weights_entry)
    report = find(model, placement, stages=stages, at=at, inputs=input_, reduction=reduction)
    if json:
        print_json(as_data(report))
    else:
        print_report(report)
