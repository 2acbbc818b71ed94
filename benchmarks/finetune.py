"""Does SE help a pretrained network? Fine-tune it plain, with SE and with controls, and compare over seeds.

Every run starts from the published weights and follows the recipe `cifar-short` with another learning rate and number
of epochs; `finetune_cases/arms.py` lists arms and stages in order of priority. Runs of one seed have the same images in
the same order, with the same crops. A GPU trains several networks at once (`--lanes`). Each run is written when it
ends, and a run that is in the file already is skipped, so `--minutes` may cut the study anywhere.

    python benchmarks/finetune.py --data CIFAR/train.tar --val CIFAR/val.tar --weights resnet20=resnet20.th
        resnet56=resnet56.th --output finetune.jsonl --minutes 4
    python benchmarks/finetune.py --output finetune.jsonl --no-measuring --write docs/fine-tuning.md
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from common import read_results, write_results
from finetune_cases.arms import ARMS, STAGES, Job, plan
from finetune_cases.session import Settings
from finetune_cases.workers import run_all

from senet.benchmark import hardware

__all__ = ["main"]

_REPORTED = 10.0  # seconds between two lines of progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit status."""
    start = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="training images, see senet.open_data")
    parser.add_argument("--val", help="validation images")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="pretrained networks")
    parser.add_argument("--output", type=Path, required=True, help="a file of JSON lines for the results")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help=f"of: {', '.join(STAGES)}; all unless given")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="of these stages, by priority; all unless given")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the whole study")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one, unless given")
    parser.add_argument("--lanes", type=int, default=6, help="runs at once of each process on a GPU")
    parser.add_argument("--workers", type=int, default=1, help="processes; several are for CPUs")
    parser.add_argument("--no-graphs", action="store_true", help="run steps on a GPU without CUDA graphs")
    parser.add_argument("--fused", default="auto", help="how networks with SE are computed, see senet.set_fused")
    parser.add_argument("--quick", action="store_true", help="two epochs of 256 images: a smoke test")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="PAGE.md",
        help="write tables into a page, and curves to PAGE.png",
    )
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    failure = "" if args.no_measuring else _measure(args, parser, start)
    if args.write:
        from finetune_cases.report import write_report

        results = _read(args.output, None, parser)
        write_report(args.write, results.pop("about"), list(results.values()))
    if failure:
        print(failure, file=sys.stderr)
    return int(bool(failure))


def _measure(args: Any, parser: argparse.ArgumentParser, start: float) -> str:
    """Run what is missing; returns the message of a failure, after which the results so far are kept."""
    jobs, settings = _jobs(args, parser), _settings(args, parser)
    about = {"settings": asdict(settings), "smoke test": args.quick, "hardware": hardware(args.device)}
    results: dict[str, Any] = {"about": about}
    if args.output.is_file():
        results = _read(args.output, about, parser)
    # Without a last line that was cut off, to which the next one would be appended.
    write_results(args.output, results)
    missing = [job for job in jobs if job.id not in results]
    print(f"{len(missing)} of {len(jobs)} runs to do in {args.minutes:g} minutes", file=sys.stderr)
    if not missing:
        return ""
    images, count, last = 0, 0, time.time()
    options = {"lanes": args.lanes, "workers": args.workers, "end": start + 60 * args.minutes}
    with args.output.open("a", encoding="utf-8") as file:
        try:
            for result in run_all(settings, missing, **options):
                file.write(json.dumps({"case": result["id"]} | result) + "\n")
                file.flush()
                images, count = images + result["images"] * result["epochs"], count + 1
                if count == 1 or time.time() - last > _REPORTED:
                    last = time.time()
                    seconds = last - start
                    print(
                        f"{seconds:.0f} s: {count} runs, {images / seconds:,.0f} images/s; {result['id']}: "
                        f"{result['errors'][-1]:.2f} %; without graph: {result['without graph'] or 'no'}",
                        file=sys.stderr,
                        flush=True,
                    )
        except RuntimeError as error:
            return f"{type(error).__name__}: {error}"
    seconds = time.time() - start
    print(f"{seconds:.0f} s: {count} runs, {images / seconds:,.0f} images/s", file=sys.stderr)
    return ""


def _settings(args: Any, parser: argparse.ArgumentParser) -> Settings:
    if not (args.data and args.val and args.weights):
        parser.error("--data, --val and --weights are required to measure")
    weights = dict(one.partition("=")[::2] for one in args.weights)
    for name, file in weights.items():
        if not Path(file).is_file():
            parser.error(f"invalid --weights '{name}={file}': expected NAME=FILE of a file that exists")
    settings = Settings(
        data=args.data,
        val=args.val,
        weights=weights,
        device=args.device,
        graphs=not args.no_graphs,
        fused=args.fused,
    )
    return replace(settings, batch=32, most_val=100) if args.quick else settings


def _jobs(args: Any, parser: argparse.ArgumentParser) -> list[Job]:
    stages = args.stages or list(STAGES)
    for stage in stages:
        if stage not in STAGES:
            parser.error(f"invalid --stages {stage!r}: expected some of {', '.join(map(repr, STAGES))}")
    for arm in args.arms or ():
        if arm not in ARMS:
            parser.error(f"invalid --arms {arm!r}: expected some of {', '.join(map(repr, ARMS))}")
    names = {one.partition("=")[0] for one in args.weights}
    jobs = [job for job in plan(stages, args.arms, quick=args.quick) if job.network in names]
    if not jobs and args.weights:
        parser.error(
            f"--weights has none of the networks of these stages and --arms; it has {', '.join(sorted(names))}"
        )
    assert all(job.arm in ARMS for job in jobs)
    return jobs


def _read(path: Path, about: dict[str, Any] | None, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the results of an earlier run, see `read_results`."""
    try:
        return read_results(path, about)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
