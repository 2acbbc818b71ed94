"""What SE costs: senet's, torchvision's and timm's networks, plain and with SE, interleaved in one run per case.

A case is a network, a size and a kind of step, such as resnet50-224-train. All sides of a case are interleaved in one
process, with the same images, memory format, dtype, optimizer and compile setting. The results are written after every
case, and a case that was already measured with the same machine, versions and options is skipped.

    python benchmarks/training.py --output training.json
    python benchmarks/training.py --output training.json --cases 'resnet50-224-*' --rounds 31
    python benchmarks/training.py --output training.json --write docs/performance.md --no-measuring
    python benchmarks/training.py --cases resnet50-224-train --profile
"""

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import Side, cell, compare, markdown, progress_lines, write, write_section
from page_charts import draw_cpu
from ratio_chart import pictures

import senet
from senet.benchmark import Setting, Step, hardware, open_network
from senet.benchmark.networks import image_channels
from senet.utils.sizes import size_pair

BEGIN = "<!-- measured: written by benchmarks/training.py -->"
# What a step is, and how its results are called.
KINDS = {"train": "train, eager", "train-compiled": "train, compiled", "infer": "evaluation, eager"}


@dataclass(frozen=True)
class Group:
    """Cases of one network and size."""

    network: str
    batch: int
    size: int
    sides: tuple[Side, ...]


def _imagenet(network: str, batch: int, size: int, timm_se: str, **options: Any) -> Group:
    """Ours has torchvision's stride and pool, so that all sides do the same work; the first side is the base."""
    library = {name: (lambda name=name: open_network(f"{name}/{network}")[1]) for name in ("torchvision", "timm")}
    sides = [
        Side(f"torchvision/{network}", library["torchvision"], f"torchvision/{network}"),
        Side(network, lambda: senet.create_model(network, **options), network),
        Side(f"se_{network}", lambda: senet.create_model(f"se_{network}", **options), network),
    ]
    for name, build in library.items():
        inserted = lambda build=build: senet.insert(build(), init="paper")  # noqa: E731
        sides.append(Side(f"{name}/{network} + senet.insert", inserted, f"{name}/{network}"))
    sides.append(Side(f"timm/{network}", library["timm"], f"timm/{network}"))
    sides.append(Side(f"timm/{timm_se}", lambda: open_network(f"timm/{timm_se}")[1], f"timm/{network}"))
    return Group(network, batch, size, tuple(sides))


def _cifar(network: str, batch: int) -> Group:
    names = (network, f"se_{network}")
    sides = [Side(name, partial(senet.create_model, name), network) for name in names]
    return Group(network, batch, 32, tuple(sides))


GROUPS = (
    _imagenet("resnet50", 16, 224, "seresnet50", stride_in="conv2", pool="pad"),
    _imagenet("resnet50", 64, 96, "seresnet50", stride_in="conv2", pool="pad"),
    _imagenet("resnext50_32x4d", 16, 224, "seresnext50_32x4d", pool="pad"),
    _imagenet("resnext50_32x4d", 64, 96, "seresnext50_32x4d", pool="pad"),
    _cifar("resnet20", 128),
)
CASES = {f"{group.network}-{group.size}-{kind}": (group, kind) for group in GROUPS for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="GLOB", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--sides", nargs="+", default=["*"], metavar="GLOB", help="of networks; the first is always in")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, help="instead of the cases' own, to try this out")
    parser.add_argument("--size", type=int, help="the same")
    parser.add_argument("--output", type=Path, help="a JSON file for the results; those in it are kept")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE.md", help="write table and chart into a page; needs --output"
    )
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes, instead of ratios")
    args = parser.parse_args()
    chosen = [name for name in CASES if any(fnmatchcase(name, glob) for glob in args.cases)]
    if not chosen:
        parser.error(f"--cases {' '.join(args.cases)} matches none of: {', '.join(CASES)}")
    if args.write and not args.output:
        parser.error("--write needs --output, the results to write from")
    results: dict[str, Any] = {}
    if args.output and args.output.is_file():
        results = json.loads(args.output.read_text(encoding="utf-8"))

    for name in () if args.no_measuring else chosen:
        group, kind = CASES[name]
        sides = [
            side
            for index, side in enumerate(group.sides)
            if index == 0 or any(fnmatchcase(side.name, glob) for glob in args.sides)
        ]
        setting = Setting(
            mode="train" if kind.startswith("train") else "infer",
            compile=kind.endswith("compiled"),
            batch=args.batch or group.batch,
            size=args.size or group.size,
            threads=args.threads,
        )
        if args.profile:
            _profile(name, sides, setting)
            continue
        asked = {"sides": [side.name for side in sides], "rounds": args.rounds, "setting": asdict(setting)}
        asked |= {"hardware": hardware(setting.device)}
        if name in results and results[name]["asked"] == asked:
            print(f"{name} is there already", file=sys.stderr)
            continue
        results[name] = {"asked": asked} | _measure(name, sides, setting, args.rounds)
        print(json.dumps({name: results[name]["sides"]}, indent=2), flush=True)
        if args.output:
            write(args.output, json.dumps(results, indent=2) + "\n")
    if args.write:
        _page(args.write, {name: results[name] for name in CASES if name in results})


def _measure(name: str, sides: list[Side], setting: Setting, rounds: int) -> dict[str, Any]:
    """Ratios of all sides of a case to the first, and to their twins."""
    start = time.perf_counter()
    found = compare(sides, setting, rounds=rounds, progress=progress_lines(name))
    gc.collect()
    torch.compiler.reset()  # the code of one case is no use to the next, and counts against the limit of recompiling
    return found | {"minutes": round((time.perf_counter() - start) / 60, 1)}


def _profile(name: str, sides: list[Side], setting: Setting) -> None:
    """The operations that take most of a step of each side."""
    torch.set_num_threads(setting.threads)
    for side in sides:
        model = side.build()
        images = torch.randn(setting.batch, image_channels(model), *size_pair(setting.size))
        step = Step(side.name, model, images, setting)
        for _ in range(3):
            step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(3):
                step()
        print(f"\n{name}, {side.name}: three steps")
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=60))
        torch.compiler.reset()


def _page(page: Path, results: dict[str, Any]) -> None:
    """Put tables and chart between the markers of a page."""
    parts = [pictures("Time of a step relative to the first network's, with quartiles.", page.stem)]
    parts += [_table(cases) for cases in _groups(results)]
    write_section(page, BEGIN, parts)
    draw_cpu(page)


def _groups(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Results by kind of step, for each network and size that has any."""
    found = []
    for group in GROUPS:
        cases = {kind: results.get(f"{group.network}-{group.size}-{kind}") for kind in KINDS}
        found.append({kind: case for kind, case in cases.items() if case})
    return [cases for cases in found if cases]


def _table(cases: dict[str, Any]) -> str:
    """Markdown: a row for each network, a column for each kind of step and for what it is compared with."""
    any_case = next(iter(cases.values()))
    names, setting, facts = (any_case["asked"][key] for key in ("sides", "setting", "hardware"))
    header, rows = ["network", "parameters"], [[f"`{name}`"] for name in names]
    for row, side in zip(rows, any_case["sides"], strict=True):
        row.append(f"{side['parameters']:,}")
    for kind, case in cases.items():
        sides = {side["name"]: side for side in case["sides"]}
        header += [KINDS[kind], "to its twin", "images a second"]
        for name, row in zip(names, rows, strict=True):
            side = sides.get(name)
            row += ["-"] * 3 if side is None else [cell(side, "base"), cell(side, "twin"), _figure(side)]
        if kind != "infer":
            header.append("saved, to its twin")
            for name, row in zip(names, rows, strict=True):
                saved = sides.get(name, {}).get("twin", {}).get("saved")
                row.append("-" if saved is None else f"{saved:.4f}")
    rounds = sorted({case["asked"]["rounds"] for case in cases.values()})
    unlike = {json.dumps(_common(case), sort_keys=True) for case in cases.values()}
    if len(unlike) > 1:
        raise SystemExit(f"the cases of {names[0]} are of other batches, sizes, threads, machines or versions")
    device = facts.get("gpu") or facts["processor"] or facts["machine"]
    caption = (
        f"Time of a step, relative to `{names[0]}`: median of {' or '.join(map(str, rounds))} rounds, and quartiles; "
        f"`?` where the 95 % interval of the median reaches more than 5 % from it. {device} ({facts['capability']}), "
        f"{setting['threads']} threads, {setting['dtype']}, {setting['memory_format']}, {setting['optimizer']}; "
        f"PyTorch {facts['torch']}, torchvision {facts['torchvision']}, timm {facts['timm']}, senet {facts['senet']}."
    )
    title = f"### {names[0].rpartition('/')[2]}, batch {setting['batch']}, {setting['size']}x{setting['size']}"
    return "\n".join([title, "", markdown(header, rows), "", caption])


def _common(case: dict[str, Any]) -> dict[str, Any]:
    """What is to be the same for all cases of a table."""
    setting = {key: value for key, value in case["asked"]["setting"].items() if key not in ("mode", "compile")}
    return {"setting": setting, "hardware": case["asked"]["hardware"]}


def _figure(side: dict[str, Any]) -> str:
    return f"{side['images_per_second']:.4g}"


if __name__ == "__main__":
    main()
