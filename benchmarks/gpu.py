"""What SE costs on a GPU: our networks, timm's and NVIDIA's form, each against its plain twin, interleaved in one run.

It takes less than four minutes on one GPU: a case that would exceed --minutes is skipped, and listed as such. With
--output, results are written after every case. Cases that an earlier run with the same machine and options measured
are kept, so skipped cases can be measured later.

    python benchmarks/gpu.py --output gpu.jsonl
    python benchmarks/gpu.py --output gpu.jsonl --cases 'compiled-*' --minutes 10
    python benchmarks/gpu.py --output gpu.jsonl --write docs/performance.md
    python benchmarks/gpu.py --output gpu.jsonl --write docs/performance.md --no-measuring
    python benchmarks/gpu.py --device cpu --quick      # a smoke test of the script, not a measurement

The exit status is 1 where a case failed, or an error against float64 is larger than rounding explains.
"""

import argparse
import gc
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from common import check_about, check_section, compare, progress_lines, read_results, write_results, write_section
from gpu_cases.first_step import first_step, time_first_steps
from gpu_cases.layers import device_time, host_time
from gpu_cases.networks import Networks
from gpu_cases.numerics import numerics
from gpu_cases.page import sections
from gpu_cases.trainer import trainer_speed
from page_charts import draw_gpu

import senet
from senet.benchmark import Setting, hardware
from senet.nn.fused import fused_by, fused_choice
from senet.utils.errors import first_line

BEGIN = "<!-- measured: written by benchmarks/gpu.py -->"
ALL = ("plain", "plain fused", "ours", "timm plain", "timm", "insert", "addcmul")
FUSED = ("plain", "plain fused", "ours", "timm plain", "timm")
PAIRS = ("plain", "ours", "timm plain", "timm")
# Seconds that importing PyTorch and starting CUDA take, which count as well.
START_UP = 15.0
# Seconds of the rounds of a case of steps; there are nine rounds or more.
SECONDS = 5.0


@dataclass
class Run:
    """What all cases have in common."""

    device: str
    quick: bool
    networks: Networks
    fused: str
    seconds_left: Callable[[], float]


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        run: measures it.
        needs: seconds that it may take on a GPU; it is skipped if fewer are left.
        on_cpu: whether a smoke test on a CPU has it, unless it is named.
    """

    run: Callable[[str, Run], dict[str, Any]]
    needs: float
    on_cpu: bool = True


def steps(names: Sequence[str], **setting: Any) -> Callable[[str, Run], dict[str, Any]]:
    """A case of steps of several networks."""

    def measure(name: str, run: Run) -> dict[str, Any]:
        options = setting | {"device": run.device, "size": 224}
        if run.quick:
            options |= {"batch": 2, "size": 32}
        if run.device == "cpu":
            options |= {"dtype": options["dtype"].replace("tf32", "float32"), "cuda_graph": False, "threads": 1}
        chosen = names
        if setting.get("compile") and run.seconds_left() < len(names) * 50:
            chosen = names[:2]
        sides = run.networks.sides(chosen)
        how = Setting(**options)
        length: dict[str, Any] = {"rounds": 1, "warm_up": 1} if run.quick else {"seconds": SECONDS}
        found = compare(sides, how, progress=progress_lines(name), **length)
        return {"setting": asdict(how)} | found

    return measure


def first(name: str, run: Run) -> dict[str, Any]:
    """The first step in a process of its own."""
    options = ["--first-step", "--device", run.device, "--fused", run.fused, *(["--quick"] if run.quick else [])]
    return first_step(Path(__file__).resolve(), options, timeout=max(60.0, run.seconds_left()))


BF16 = {"dtype": "bfloat16"}
CASES = {
    "numerics": Case(lambda name, run: numerics(run.device, run.quick), 15),
    "train-bf16-256": Case(steps(ALL, **BF16, batch=256), 30),
    "train-bf16-128": Case(steps(ALL, **BF16, batch=128), 20),
    "train-bf16-16": Case(steps(ALL, **BF16, batch=16), 15),
    "train-tf32-64": Case(steps(PAIRS, dtype="tf32", batch=64), 15),
    "graph-bf16-128": Case(steps(FUSED, **BF16, batch=128, cuda_graph=True), 15, on_cpu=False),
    "graph-bf16-16": Case(steps(FUSED, **BF16, batch=16, cuda_graph=True), 15, on_cpu=False),
    "infer-bf16-256": Case(steps(PAIRS, **BF16, batch=256, mode="infer"), 10),
    "infer-bf16-32": Case(steps(PAIRS, **BF16, batch=32, mode="infer"), 10),
    "infer-bf16-1": Case(steps(PAIRS, **BF16, batch=1, mode="infer"), 10),
    "trainer": Case(lambda name, run: trainer_speed(run.device, run.quick, 15, progress_lines(name)), 30),
    "host-time": Case(lambda name, run: host_time(run.device, run.quick), 5),
    "device-time": Case(lambda name, run: {"maps": device_time(run.device, run.quick)}, 5),
    "first-step": Case(first, 40),
    "compiled-bf16-128": Case(steps(PAIRS, **BF16, batch=128, compile=True), 100, on_cpu=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="GLOB", help=f"of: {', '.join(CASES)}; all unless given")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--fused", default="auto", help="how our SE networks are computed, see senet.set_fused")
    parser.add_argument("--minutes", type=float, default=4.0, help="of the whole run")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test")
    parser.add_argument("--output", type=Path, help="a file of JSON lines for the results")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page; needs --output")
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.device == "cpu" and not args.quick:
        parser.error("--device cpu needs --quick: it is a smoke test of this script, and no measurement")
    if args.device == "cuda" and not args.no_measuring and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; --device cpu --quick tries this script out")
    if (args.write or args.no_measuring) and not args.output:
        parser.error("--write and --no-measuring need --output, the results to write from")
    if not 0 < args.minutes < math.inf:
        parser.error(f"--minutes must be above 0 and finite, got {args.minutes:g}")
    # Before anything is measured: an error of writing would come after minutes otherwise.
    if args.output and not args.output.absolute().parent.is_dir():
        parser.error(f"there is no folder {args.output.parent} to write {args.output.name} to; make it first")
    if args.write:
        try:
            check_section(args.write, BEGIN)
        except ValueError as error:
            parser.error(f"--write: {error}")
    before = fused_choice()
    try:
        senet.set_fused(args.fused)
    except ValueError as error:
        parser.error(f"--fused: {error}")
    try:
        return _main(args, parser)
    finally:
        senet.set_fused(before)


def _main(args: Any, parser: argparse.ArgumentParser) -> int:
    """Run what is asked for, with our SE networks fused as asked for."""
    results = _earlier(args, parser) if args.output and not args.first_step else {}
    if not args.no_measuring:
        globs = args.cases or ["*"]
        chosen = [name for name in CASES if any(fnmatchcase(name, glob) for glob in globs)]
        if not chosen:
            parser.error(f"--cases {' '.join(globs)} matches none of: {', '.join(CASES)}")
        # On a CPU, Triton's kernels run with TRITON_INTERPRET=1 alone.
        kernels = "triton" if "triton" in (args.fused, fused_by(args.device)) else None
        if kernels is None and args.device == "cpu":
            kernels = "aten"  # which leaves plain units alone, and lets the smoke test have all sides
        networks = Networks(args.quick, args.fused, kernels)
        if args.first_step:
            _print_first_steps(args, networks)
            return 0
        results = _measure(args, networks, chosen, results or {"about": _about(args), "cases": {}})
    if args.write:
        write_section(args.write, BEGIN, sections(results, f"{args.write.stem}-gpu"))
        draw_gpu(args.write)
    return int(any("failed" in case or case.get("over tolerance") for case in results["cases"].values()))


def _measure(args: Any, networks: Networks, chosen: list[str], results: dict[str, Any]) -> dict[str, Any]:
    """Measure the chosen cases into `results`."""
    end = time.monotonic() + (60 * args.minutes - START_UP if args.device == "cuda" else 3600)
    run = Run(args.device, args.quick, networks, args.fused, lambda: end - time.monotonic())
    print(json.dumps({"about": results["about"]}, indent=2), flush=True)
    if args.quick:
        print("smoke test: sizes are tiny, and the figures are no measurement", file=sys.stderr)
    for name in chosen:
        case = CASES[name]
        if args.device == "cpu" and not case.on_cpu and not args.cases:
            found: dict[str, Any] = {"left out": "it is not a part of the smoke test on a CPU"}
        elif run.seconds_left() < case.needs:
            found = {
                "left out": f"it may take {case.needs:.0f} s, and {max(0.0, run.seconds_left()):.0f} s of --minutes "
                f"{args.minutes:g} are left; run it with --cases {name}"
            }
            if "seconds" in results["cases"].get(name, {}):
                continue  # what an earlier run measured stays
        else:
            found = _run(name, case, run)
        results["cases"][name] = found
        print(json.dumps({name: found}, indent=2), flush=True)
        if args.output:
            write_results(args.output, {"about": results["about"]} | results["cases"])
    return results


def _run(name: str, case: Case, run: Run) -> dict[str, Any]:
    """The result of a case, or how it failed: the others are measured all the same."""
    start = time.monotonic()
    try:
        found = case.run(name, run)
        if run.device == "cuda":
            torch.cuda.synchronize()  # an error of the device is this case's
    except Exception as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {first_line(error)}"}
    gc.collect()
    torch.compiler.reset()
    if run.device == "cuda":
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # after an illegal access, every call fails: the results so far are kept
            found.setdefault("failed", f"{type(error).__name__}: {first_line(error)}")
    return found | {"seconds": round(time.monotonic() - start, 1)}


def _about(args: Any) -> dict[str, Any]:
    """What results must have in common to stand in one table."""
    return {
        "device": args.device,
        "smoke test": args.quick,
        "fused": args.fused,
        "backend": fused_by(args.device),
        "hardware": hardware(args.device),
    }


def _earlier(args: Any, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Results of an earlier run."""
    if args.output.is_file():
        try:
            # Content first: finding the backend may compile a kernel, for seconds.
            found = read_results(args.output, None)
            if not args.no_measuring:
                check_about(args.output, found["about"], _about(args))
        except ValueError as error:
            parser.error(str(error))
        return {"about": found.pop("about"), "cases": found}
    if args.no_measuring:
        parser.error(f"no results at {args.output}: leave --no-measuring out")
    return {}


def _print_first_steps(args: Any, networks: Networks) -> None:
    batch, size = (2, 32) if args.quick else (16, 224)
    sides = {side.name: side.build for side in networks.sides(("plain", "ours"))}
    setting = Setting(device=args.device, dtype="bfloat16", batch=batch, size=size)
    print(json.dumps(time_first_steps(sides, setting)))


if __name__ == "__main__":
    sys.exit(main())
