"""Fuzz the command line: hundreds of invalid command lines, damaged files of every kind, and valid ones among them.

    python -m tests.fuzz [--seed N] [--lines N] [--files N] [--seconds N]

Each case runs in this process, within a limit of time, and some as processes of their own. Reported are cases, and of
them tracebacks (an exception that no message explains counts as one), hangs, invalid input that was accepted, valid
input that was refused, and other faults: an exit status that is none of 0, 1, 2 and 128 + N, an error without a line
of its own, an escape sequence. The exit status is 1 if there is any.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SENET_FUSED", "aten")  # nothing is compiled

from rich.console import Console
from rich.table import Table

from tests.fuzz_cases import Case, command_lines

FAULTS = ("tracebacks", "hangs", "invalid accepted", "valid refused", "other")
LIMIT = 60.0  # seconds of a case; the slowest takes 3
PROCESSES = 6  # cases that also run as processes of their own


class Hang(BaseException):
    """A case takes longer than its limit."""


def main() -> None:
    """Run all cases and print a table of faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of what is chosen (default 0)")
    parser.add_argument("--lines", type=int, default=400, help="command lines (default 400)")
    parser.add_argument("--files", type=int, default=150, help="damaged files (default 150)")
    parser.add_argument("--seconds", type=float, default=450, help="of all cases; the rest is skipped (default 450)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        cases = list(all_cases(Path(folder), options.seed, options.lines, options.files))
        found = run_cases(cases, options.seconds)
    sys.exit(show(found, len(cases)))


def all_cases(folder: Path, seed: int, lines: int, files: int) -> Iterator[tuple[str, Case]]:
    """Cases by kind: command lines, and files."""
    import torch

    import senet
    from tests.hostile_files import command, hostile_files, valid_files

    torch.set_num_threads(1)
    valid = valid_files(folder / "valid")
    for name, network in (("plain", "resnet20"), ("timm", "se_resnet50")):
        valid[name] = folder / f"{name}.safetensors"
        senet.save(senet.create_model(network, num_classes=3), valid[name])
    (folder / "out").mkdir()
    for case in command_lines(valid, folder / "out", seed, lines):
        yield f"senet {case.arguments[0] if case.arguments else ''}".strip(), case
    damaged = list(hostile_files(folder / "hostile", valid, seed=seed))
    random.Random(seed).shuffle(damaged)
    for file in damaged[:files]:
        yield f"file: {file.kind}", Case(file.how, tuple(command(file, valid)), False if file.invalid else None)


def run_cases(cases: Iterable[tuple[str, Case]], seconds: float = float("inf")) -> dict[str, Counter[str]]:
    """Run cases, print each fault, and count them by kind of case."""
    found: dict[str, Counter[str]] = {}
    end, alone = time.monotonic() + seconds, 0
    for kind, case in cases:
        if time.monotonic() > end:
            break
        counts = found.setdefault(kind, Counter())
        counts["cases"] += 1
        results = [in_process(case.arguments)]
        if alone < PROCESSES and case.how in ("contradiction", "valid") and results[0][2] < 1:
            alone += 1
            results.append(as_process(case.arguments))
        faults = {fault: why for status, output, _ in results if (judged := judge(case, status, output))
                  for fault, why in [judged]}  # fmt: skip
        for fault, why in faults.items():
            counts[fault] += 1
            line = " ".join(repr(argument)[:80] for argument in case.arguments)
            print(f"{fault}: {kind}: {case.how}: {line}\n    {why[-500:]!r}", flush=True)
    return found


def in_process(arguments: tuple[str, ...]) -> tuple[int | None, str, float]:
    """Run a command line here: its status (None if it hangs), what it printed, and its seconds."""
    from typer.testing import CliRunner

    from senet.cli import app
    from senet.cli.common import boundary

    begun = time.monotonic()
    try:
        with limited(LIMIT):
            boundary.show_tracebacks(False)
            result = CliRunner().invoke(app, list(arguments), prog_name="senet")
    except Hang:
        return None, "", LIMIT
    crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
    text = f"{result.stderr}\nTraceback {result.exception!r}" if crashed else result.stderr
    return result.exit_code, result.stdout + text, time.monotonic() - begun


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang in a block that takes longer."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def as_process(arguments: tuple[str, ...]) -> tuple[int | None, str, float]:
    """The same as a process."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "senet", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, "", 2 * LIMIT
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begun


def judge(case: Case, status: int | None, output: str) -> tuple[str, str] | None:
    """Return a case's fault and what shows it, or None."""
    if status is None:
        return "hangs", f"no end after {LIMIT:.0f} s"
    if "Traceback" in output or "--debug shows the traceback" in output:
        return "tracebacks", output
    if status not in (0, 1, 2) and not 128 < status < 160:
        return "other", f"exit status {status}: {output}"
    if case.valid is False and status == 0:
        return "invalid accepted", output
    if case.valid and status != 0:
        return "valid refused", output
    if status and not re.search(r"^(error: .+|bad: .+)", output, re.M) and case.arguments:
        return "other", f"no error line: {output}"
    if re.search("[\x1b\x07\x9b]", output):
        return "other", f"an escape sequence: {output}"
    return None


def show(found: dict[str, Counter[str]], cases: int) -> int:
    """Print a table, and return the exit status."""
    table = Table("", "cases", *FAULTS, box=None)
    for kind, counts in found.items():
        table.add_row(kind, *(str(counts[column]) for column in ("cases", *FAULTS)))
    totals = sum(found.values(), Counter())
    table.add_row("all", *(str(totals[column]) for column in ("cases", *FAULTS)), style="bold")
    Console(width=110).print(table)
    if totals["cases"] < cases:
        print(f"{cases - totals['cases']} of {cases} cases were skipped: give more --seconds")
    return int(any(totals[fault] for fault in FAULTS) or totals["cases"] < cases)


if __name__ == "__main__":
    main()
