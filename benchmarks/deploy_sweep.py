"""Deploy every SE network of timm with random weights and statistics, and compare it with the original.

All networks of timm are built without weights, to find those with SE; one network of each architecture is compared, the
smallest first. A network is equal if its output differs by at most 1e-9 in float64, on two sizes of images, and if its
error in float32 is at most twice that of the original. Results are JSON lines, one for each network, written after it;
networks that are in the file are not run again.

    python benchmarks/deploy_sweep.py --output sweep.jsonl
    python benchmarks/deploy_sweep.py --output sweep.jsonl --networks 'regnet*' 'mobilenetv3*'
    python benchmarks/deploy_sweep.py --output sweep.jsonl --write docs/deploy.md --no-running

The exit status is 1 where a network differs.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import timm
import torch
from common import check_section, read_results, write, write_section
from sweep_cases.compare import compare
from sweep_cases.networks import describe
from sweep_cases.page import WAITING, architectures, sections, summary

import senet
from senet.cli.common.console import progress
from senet.utils.errors import first_line
from senet.utils.memory_errors import is_out_of_memory

BEGIN = "<!-- measured: written by benchmarks/deploy_sweep.py -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["*"], metavar="GLOB", help="of timm's names")
    parser.add_argument("--largest", type=float, default=150, help="the most parameters of a network, in millions")
    parser.add_argument("--memory", type=float, metavar="GIB", help="of the process; larger networks are rejected")
    parser.add_argument("--again", nargs="+", default=[], metavar="GLOB", help="run networks in --output again")
    parser.add_argument("--output", type=Path, required=True, help="a file of JSON lines; results in it are kept")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page")
    parser.add_argument("--no-running", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    about = {"timm": timm.__version__, "torch": torch.__version__, "senet": senet.__version__}
    results: dict[str, Any] = {"about": about}
    try:
        if args.write:
            check_section(args.write, BEGIN)
        if args.output.is_file():
            results = read_results(args.output, None if args.no_running else about)
    except ValueError as error:
        parser.error(str(error))
    names = [name for name in timm.list_models() if _matches(name, args.networks)]
    if not names:
        parser.error(f"--networks {' '.join(args.networks)} matches no network of timm")
    if not args.no_running:
        _limit(args.memory)
        for name in names:
            if _matches(name, args.again) and "seconds" in results.get(name, {}):
                results[name]["status"] = WAITING
        _run(args, names, results)
    print(summary(results))
    if args.write:
        write_section(args.write, BEGIN, sections(results, len(timm.list_models())))
    return int(any(result.get("status") == "differs" for result in results.values()))


def _matches(name: str, globs: list[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _limit(gib: float | None) -> None:
    """Limit the memory of this process: it fails with an error where the system would end it."""
    if gib is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), resource.RLIM_INFINITY))


def _run(args: Any, names: list[str], results: dict[str, Any]) -> None:
    """Describe and compare the networks without results."""
    warnings.filterwarnings("ignore")  # of networks about their own options
    write(args.output, "".join(_line(name, one) for name, one in results.items()))
    with args.output.open("a", encoding="utf-8") as file:

        def keep(name: str, found: dict[str, Any]) -> None:
            results[name] = results.get(name, {}) | found
            file.write(_line(name, results[name]))
            file.flush()

        for name in _each([name for name in names if name not in results], "find SE"):
            keep(name, _described(name))
        waiting = [name for name in architectures(results) if name in names and results[name]["status"] == WAITING]
        for name in _each(sorted(waiting, key=lambda name: float(results[name]["millions"])), "compare"):
            found = _compared(name, results[name]["millions"], args.largest)
            keep(name, found)
            if found["status"] != "equal":
                print(name, *(f"{key}={value}" for key, value in found.items()), file=sys.stderr, flush=True)


def _each(names: list[str], what: str) -> Iterator[str]:
    for index in progress(range(len(names)), len(names), what):
        yield names[index]


def _line(name: str, found: dict[str, Any]) -> str:
    return json.dumps({"case": name} | found) + "\n"


def _described(name: str) -> dict[str, Any]:
    found = _caught("not built", describe, name)
    if "status" not in found:
        found["status"] = WAITING if found["modules"] else "no SE"
    return found


def _compared(name: str, millions: float, largest: float) -> dict[str, Any]:
    if millions > largest:
        return {"status": f"too large here: more than {largest:g} million parameters (--largest)"}
    start = time.perf_counter()
    found = _caught("rejected", compare, name)
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def _caught(what: str, do: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    """Return what a function returns for a network, or the reason why it fails."""
    try:
        return do(name)
    except Exception as error:  # the reason is the result
        if is_out_of_memory(error):
            return {"status": "too large here: out of memory"}
        return {"status": f"{what}: {type(error).__name__}: {first_line(error)}"}


if __name__ == "__main__":
    sys.exit(main())
