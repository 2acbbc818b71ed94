"""Where senet finds sites in networks of other libraries, against expectations written from the networks' code.

Each network gets random weights. Its sites are compared with the expectation; SE is inserted with `init="identity"`,
and outputs, keys, gradients, a copy and removal are checked. The libraries are those of the optional dependencies
`networks`. Results are written after every network; those in the file are kept.

    python benchmarks/sites.py --output sites.json
    python benchmarks/sites.py --output sites.json --cases 'timm/*' --again
    python benchmarks/sites.py --output sites.json --write docs/insertion.md --no-running
"""

import argparse
import json
import sys
import time
import traceback
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common import write, write_section
from site_cases.checks import Result, check
from site_cases.further import FURTHER
from site_cases.listed import OWN, TIMM, TORCHVISION
from site_cases.page import sections, summary
from site_cases.segmentation import HUGGING_FACE, MONAI, PYTORCHCV, SMP

BEGIN = "<!-- measured: written by benchmarks/sites.py -->"
LISTED = (*TORCHVISION, *TIMM, *SMP, *MONAI, *HUGGING_FACE, *PYTORCHCV, *OWN)
CASES = {case.name: case for case in (*LISTED, *FURTHER)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="GLOB", help="of the names in the table")
    parser.add_argument("--output", type=Path, help="a JSON file for the results; those in it are kept")
    parser.add_argument("--again", action="store_true", help="run networks whose results are in the file again")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the table into a page; needs --output")
    parser.add_argument("--no-running", action="store_true", help="write from what --output has")
    args = parser.parse_args()
    chosen = [case for case in CASES.values() if any(fnmatchcase(case.name, glob) for glob in args.cases)]
    if not chosen:
        parser.error(f"--cases {' '.join(args.cases)} matches no network, such as {next(iter(CASES))}")
    if args.write and not args.output:
        parser.error("--write needs --output, the results to write from")
    results: dict[str, Any] = {}
    if args.output and args.output.is_file():
        results = json.loads(args.output.read_text(encoding="utf-8"))
    crashed = 0
    for case in () if args.no_running else chosen:
        if case.name in results and not args.again:
            continue
        start = time.perf_counter()
        try:
            result = check(case)
        except Exception:  # of one network; the others run all the same
            crashed += 1
            print(f"{case.name} failed:\n{traceback.format_exc(limit=-2)}", file=sys.stderr, flush=True)
            continue
        results[case.name] = result.to_json()
        faults = [*result.failed, *result.wrong[:3], *result.missing[:3], result.refusal]
        seconds = time.perf_counter() - start
        print(
            f"{case.name}: {result.verdict(case)}, {result.sites} sites, {seconds:.0f} s",
            *filter(None, faults),
            flush=True,
        )
        if args.output:
            write(args.output, json.dumps(results, indent=2) + "\n")
    known = [(case, Result(**results[case.name])) for case in chosen if case.name in results]
    print(summary(known))
    if args.write:
        write_section(args.write, BEGIN, sections(LISTED, FURTHER, results))
    sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    main()
