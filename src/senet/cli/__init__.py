"""The `senet` command line: one file for each command, `common/` for what they share.

Imports every package of `senet`; only `senet.__main__` and the console script import it.
"""

import typer

from senet.cli.bench import bench
from senet.cli.common import boundary
from senet.cli.compare import compare
from senet.cli.detect import detect
from senet.cli.doctor import doctor
from senet.cli.evaluate import evaluate
from senet.cli.export import export
from senet.cli.fold import fold
from senet.cli.gates import gates
from senet.cli.insert import insert
from senet.cli.models import models
from senet.cli.paper import paper
from senet.cli.predict import predict
from senet.cli.shard import shard
from senet.cli.sites import sites
from senet.cli.study import study
from senet.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="senet",
    cls=boundary.Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Squeeze-and-Excitation networks: insert SE, train, evaluate, inspect and fold gates, benchmark, export. "
    "Add --debug to any command to see the traceback of an error.",
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from senet import __version__

        typer.echo(__version__)
        raise typer.Exit


for command in (
    *(models, sites, insert, train, study, compare, evaluate, predict),
    *(gates, fold, bench, shard, export, paper, doctor),
):
    app.command()(boundary.command(command))
app.add_typer(detect, name="detect")


def main() -> None:
    """Run the command line on `sys.argv`."""
    boundary.prepare_process()
    # Typer's completion is for a program of this name, also where `python -m senet` installs it.
    app(prog_name="senet")
