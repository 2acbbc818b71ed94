"""`senet detect`: the commands that train, evaluate and predict, with --task detection."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from senet.cli.common import boundary
from senet.cli.evaluate import evaluate
from senet.cli.predict import predict
from senet.cli.train import train

__all__ = ["detect"]

detect = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Train, evaluate and predict with detectors: `senet train|evaluate|predict` with `--task detection`.",
)


def _of_detectors(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the value of its option --task, and without the option."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        command(**arguments, task="detection")

    parameters = [one for one in inspect.signature(command).parameters.values() if one.name != "task"]
    vars(run)["__signature__"] = inspect.Signature([one.replace(kind=one.KEYWORD_ONLY) for one in parameters])
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


for _command in (train, evaluate, predict):
    detect.command()(boundary.command(_of_detectors(_command)))
