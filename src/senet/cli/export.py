"""`senet export`: write a network's weights for another library."""

from typing import Annotated

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, stdout
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file
from senet.cli.common.outputs import check_file_option
from senet.utils.choices import Library

__all__ = ["export"]


def export(
    file: FileArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="The file to write: .safetensors, .pth or .pt.")
    ],
    weights_format: Annotated[
        Library, typer.Option("--weights-format", help="The library whose names and shapes the weights get.")
    ],
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Write weights that timm or torchvision load with strict=True, if the library has the network.

    A gain of SE's gates is folded into the batch norm before them. An architecture that the library
    does not have (another stride, pool, gate, placement, or more hidden units) is an error.
    """
    from senet.weights import export_weights, write_weights

    check_file_option("--output", output, suffixes=(".safetensors", ".pth", ".pt"), inputs=(file,))
    exported = export_weights(open_file(file, network, set_, weights_entry), weights_format)
    write_weights(exported.tensors, output)
    if json:
        print_json(
            {
                "output": output,
                "library": exported.library,
                "network": exported.network,
                "options": exported.options,
                "tensors": len(exported.tensors),
            }
        )
    else:
        stdout.print(f"model = {exported.call}")
    note(f"wrote {output}: {len(exported.tensors)} tensors")
