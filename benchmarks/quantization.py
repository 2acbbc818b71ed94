"""What 8 bits cost an SE network: error, size and speed, with more or less of SE in float32, and where it is lost.

Published CIFAR-10 networks are measured unchanged, and fine-tuned with SE; networks of timm that have SE are trained
from random weights. `--folder` keeps those. Each is exported, quantized with training images, and compared with float32
on the validation images, in ONNX Runtime and in OpenVINO on one thread. Results are written after every case; those in
the file are kept. Times need an idle machine: `--seconds 0` measures none, and a later run adds them.

    python benchmarks/quantization.py --data CIFAR/train.tar --val CIFAR/val.tar --weights resnet20=resnet20.th
        resnet56=resnet56.th --folder runs --output quantization.jsonl
    python benchmarks/quantization.py --output quantization.jsonl --no-measuring --write docs/deploy.md
"""

import argparse
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from common import check_section, read_results, write_results, write_section
from quantization_cases.cases import Images, compare
from quantization_cases.engines import TOOLS, export
from quantization_cases.networks import images_of, network, trained
from quantization_cases.page import sections
from quantization_cases.ranges import effects

import senet
from senet.benchmark import hardware
from senet.deployment.quantization import KeepFloat, open_calibration

__all__ = ["main"]

BEGIN = "<!-- measured: written by benchmarks/quantization.py -->"
# Images whose values are rounded one by one.
_RANGES = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="training images, for fine-tuning and calibration: see senet.open_data")
    parser.add_argument("--val", help="validation images")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="pretrained plain networks")
    parser.add_argument("--scratch", nargs="+", default=[], metavar="timm/NAME", help="networks with SE to train")
    parser.add_argument("--scratch-epochs", type=int, default=8, help="of their training, on all images")
    parser.add_argument("--folder", type=Path, help="of the networks with SE: those in it are used, others trained")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="GLOB", help="such as 'se_resnet20, openvino'")
    parser.add_argument("--images", type=int, default=5000, help="validation images")
    parser.add_argument("--epochs", type=int, default=4, help="of fine-tuning, on 10,000 images")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the measurement of speed of each case")
    parser.add_argument("--quick", action="store_true", help="few images: a smoke test")
    parser.add_argument(
        "--output", type=Path, required=True, help="a file of JSON lines for the results; those in it are kept"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page")
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    try:
        if args.write:
            check_section(args.write, BEGIN)
        results = _earlier(args.output, None if args.no_measuring else _about(args))
    except ValueError as error:
        parser.error(str(error))
    if not args.no_measuring:
        if not (args.data and args.val and (args.weights or args.scratch) and args.folder):
            parser.error("--data, --val, --folder, and --weights or --scratch are required to measure")
        _measure(args, parser, results)
    if args.write:
        write_section(args.write, BEGIN, sections(results))
    return 0


def _measure(args: Any, parser: argparse.ArgumentParser, results: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    weights = dict(one.partition("=")[::2] for one in args.weights)
    if missing := [file for file in weights.values() if not Path(file).is_file()]:
        parser.error(f"invalid --weights: there is no file {missing[0]!r}; expected NAME=FILE")
    cases = [case for plain in weights for case in _cases(plain)]
    cases += [(name, how, tool) for name in args.scratch for how in ("", " deployed") for tool in TOOLS]
    names = [f"{name}{how}, {what}" for name, how, what in cases]
    chosen = [name for name in names if any(fnmatchcase(name, glob) for glob in args.cases)]
    if not chosen:
        parser.error(f"--cases {' '.join(args.cases)} matches none of: {'; '.join(names)}")
    for name in chosen:
        if name not in results["cases"] or (args.seconds and _lacks_times(name, results["cases"][name])):
            start = time.perf_counter()
            results["cases"][name] = _case(name, args, weights)
            write_results(args.output, {"about": results["about"]} | results["cases"])
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _cases(plain: str) -> list[tuple[str, str, str]]:
    """Return network, " deployed" or "", and what is measured, for all cases of a network and its SE network."""
    se = f"se_{plain}"
    tools = [(name, how, tool) for name, how in ((plain, ""), (se, ""), (se, " deployed")) for tool in TOOLS]
    return [(se, "", "ranges"), *tools]


def _lacks_times(name: str, found: dict[str, Any]) -> bool:
    return not name.endswith("ranges") and any("milliseconds" not in one for one in found.values())


def _case(name: str, args: Any, weights: dict[str, str]) -> dict[str, Any]:
    """Measure one case."""
    which, _, what = name.partition(", ")
    which, _, deployed = which.partition(" ")
    if which in args.scratch:
        options = {"images": 256, "epochs": 1} if args.quick else {"images": 10**9, "epochs": args.scratch_epochs}
        model = trained(which, args.data, args.val, args.folder, **options)
    else:
        options = {"images": 256, "epochs": 1} if args.quick else {"images": 10_000, "epochs": args.epochs}
        file = weights[which.removeprefix("se_")]
        model = network(which, file, args.data, args.val, args.folder, **options)
    images, labels = images_of(model, args.val, 64 if args.quick else args.images)
    if what == "ranges":
        return {"effects": effects(model, images[:_RANGES])}
    if deployed:
        model = senet.deploy(model, images[:2])
    calibration = open_calibration(model, args.data, images=64 if args.quick else 512)
    levels = get_args(KeepFloat) if which.startswith(("se_", "timm/")) else ("none",)
    given = Images(calibration, images.numpy(), labels.numpy(), seconds=0.01 if args.quick else args.seconds)
    with TemporaryDirectory() as folder:
        return compare(
            export(model, images[:2], Path(folder), "openvino" if what == "openvino" else "onnx"), levels, given
        )


def _earlier(output: Path, about: dict[str, Any] | None) -> dict[str, Any]:
    """Return the results of an earlier run.

    Raises:
        ValueError: see `read_results`, or the folder is missing.
    """
    if not output.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write {output.name} to; make it first")
    if not output.is_file():
        return {"about": about or {}, "cases": {}}
    found = read_results(output, about)
    return {"about": found.pop("about"), "cases": found}


def _about(args: Any) -> dict[str, Any]:
    """Return what results must have in common to stand in one table."""
    versions = {library: version(library) for library in ("nncf", "onnx", "onnxruntime", "openvino")}
    return {"hardware": hardware(), "smoke test": args.quick} | versions


if __name__ == "__main__":
    sys.exit(main())
