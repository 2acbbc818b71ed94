"""What SE costs in inference engines: networks deployed and not, against their plain twins, on the CPU.

Each network runs in a process of its own, and the processes of a case alternate. Cases are ordered by importance; one
that would exceed --minutes is left for a later run. Results are JSON lines, one for each case, written after it. Cases
that are in the file already, from the same machine and versions, are not measured again. Exported files take longer
than the measurement: --files keeps them for later runs with the same version of senet.

    python benchmarks/deploy.py --output deploy.jsonl
    python benchmarks/deploy.py --output deploy.jsonl --cases 'openvino-*' --minutes 10
    python benchmarks/deploy.py --files exported --prepare      # measures nothing
    python benchmarks/deploy.py --output deploy.jsonl --write docs/deploy.md --no-measuring
    python benchmarks/deploy.py --quick      # a smoke test of the script, not a measurement

The exit status is 1 where a case failed.
"""

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import check_section, read_results, write, write_section
from deploy_cases.cases import CASES, FILES, Run
from deploy_cases.page import sections

from senet.benchmark import hardware
from senet.utils.errors import first_line

BEGIN = "<!-- measured: written by benchmarks/deploy.py -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="GLOB", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each engine")
    parser.add_argument("--minutes", type=float, default=25.0, help="of the whole run")
    parser.add_argument("--quick", action="store_true", help="one tiny network: a smoke test")
    parser.add_argument("--output", type=Path, help="a file of JSON lines for the results")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page; needs --output")
    parser.add_argument("--files", type=Path, metavar="DIR", help="keep exported networks, and use those that it has")
    parser.add_argument("--prepare", action="store_true", help="export the networks into --files, and end")
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    if (args.write or args.no_measuring) and not args.output:
        parser.error("--write and --no-measuring need --output, the results to write from")
    if args.prepare and not args.files:
        parser.error("--prepare needs --files, the folder of the exported networks")
    if not 0 < args.minutes < math.inf:
        parser.error(f"--minutes must be above 0 and finite, got {args.minutes:g}")
    if args.write:
        try:
            check_section(args.write, BEGIN)
        except ValueError as error:
            parser.error(f"--write: {error}")
    chosen = [name for name in CASES if any(fnmatchcase(name, glob) for glob in args.cases)]
    if not chosen:
        parser.error(f"--cases {' '.join(args.cases)} matches none of: {', '.join(CASES)}")
    if args.prepare:
        return _prepare(Run(args.files, args.threads, args.quick), chosen)
    versions = {engine: version(engine) for engine in FILES}
    about = {"smoke test": args.quick, "threads": args.threads, "hardware": hardware() | versions}
    results: dict[str, Any] = {}
    if args.output and args.output.is_file():
        try:
            results = read_results(args.output, None if args.no_measuring else about)
        except ValueError as error:
            parser.error(str(error))
    if not args.no_measuring:
        results = _measure(args, about, chosen, results)
    if args.write:
        write_section(args.write, BEGIN, sections(results["about"], results))
    return int(any("failed" in result for result in results.values()))


def _prepare(run: Run, chosen: list[str]) -> int:
    """Write the exported networks of the chosen cases; returns the exit status."""
    run.folder.mkdir(parents=True, exist_ok=True)
    status = 0
    for file in dict.fromkeys(file for name in chosen for file in CASES[name].sides if file[1] in FILES):
        start = time.monotonic()
        try:
            print(f"{run.path(*file).name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        except Exception:  # of one network; the others are written all the same
            traceback.print_exc()
            status = 1
    return status


def _measure(args: Any, about: dict[str, Any], chosen: list[str], results: dict[str, Any]) -> dict[str, Any]:
    """Measure the chosen cases that have no result, until the minutes are over."""
    end = time.monotonic() + 60 * args.minutes
    results = results or {"about": about}
    if args.files:
        args.files.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        run = Run(args.files or Path(folder), args.threads, args.quick)
        for name in chosen:
            if name in results and "failed" not in results[name]:
                continue
            if end - time.monotonic() < CASES[name].needs and not args.quick:
                print(f"{name}: left for a later run, it may take {CASES[name].needs:.0f} s", file=sys.stderr)
                continue
            start = time.monotonic()
            try:
                found = CASES[name].run(run)
            except Exception as error:  # of one case; the others are measured all the same
                traceback.print_exc()
                found = {"failed": f"{type(error).__name__}: {first_line(error)}"}
            results[name] = found | {"seconds": round(time.monotonic() - start, 1)}
            print(json.dumps({name: results[name]}), flush=True)
            if args.output:
                lines = [json.dumps({"case": case} | result) for case, result in results.items()]
                write(args.output, "\n".join(lines) + "\n")
    return results


if __name__ == "__main__":
    sys.exit(main())
