"""The command line in this process: what it answers, and how it refuses."""

import json
import re
from typing import Any

from typer.testing import CliRunner, Result

from senet.cli import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="senet")


def answer(*arguments: object) -> Any:
    """The JSON on standard output, which holds nothing else."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refuses(message: str, *arguments: object, status: int = 2) -> None:
    """One line on standard error, the last one; the only one, and no answer, where no work had started."""
    result = invoke(*arguments)
    assert result.exit_code == status, result.output
    *before, line = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert result.stdout == ""
    assert status == 1 or not before
