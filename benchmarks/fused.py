"""What SE of other libraries costs in training, fused and not, against the same network without SE, interleaved.

Each network is measured three times in one process: without SE (each SE module is an identity), unfused,
and after `senet.fuse`; first a step of training, then a forward pass in evaluation mode. `--profile` adds where the
time of a training step goes. Results are JSON lines, one for each network, written after it; a network that is in the
file is not measured again.

    python benchmarks/fused.py --output fused.jsonl --profile --write docs/performance.md
    python benchmarks/fused.py --output fused.jsonl --networks timm/efficientnet_b0 --batch 16 --threads 1 --rounds 9
    python benchmarks/fused.py --output fused.jsonl --write docs/performance.md --no-measuring
    python benchmarks/fused.py --networks timm/test_efficientnet --size 32 --batch 2 --rounds 2     # a smoke test
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    Side,
    cell,
    check_section,
    compare,
    markdown,
    paragraph,
    progress_lines,
    read_results,
    write,
    write_section,
)
from torch import nn

import senet
from senet.benchmark import Setting, Step, hardware
from senet.benchmark.networks import image_channels
from senet.graph.se_modules import find_se
from senet.insertion.placing import replace_module
from senet.utils.choices import BenchMode
from senet.utils.sizes import size_pair

BEGIN = "<!-- measured: written by benchmarks/fused.py -->"
NETWORKS = (
    "timm/efficientnet_b0",
    "timm/mobilenetv3_large_100",
    "timm/regnety_016",
    "timm/seresnet50",
    "torchvision/efficientnet_v2_s",
)
SIDES = ("plain", "unfused", "fused")
# Memory for which the largest batch is given, in bytes; steps of a profile.
MEMORY, PROFILED = 8 * 2**30, 2
# Kinds of operations, by what their names contain, in this order.
KINDS = {
    "passes of senet": ("CompiledFxGraph", "_Squeeze", "_Scale", "senet"),
    "convolutions, linear layers": ("convolution", "mkldnn", "addmm", "aten::mm"),
    "batch norms": ("batch_norm",),
    "activations": ("silu", "relu", "hardswish", "hardsigmoid", "sigmoid", "hardtanh", "threshold"),
    "products, sums, means, copies": ("mul", "add", "mean", "sum", "copy", "div", "fill", "expand"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="timm/NAME or torchvision/NAME")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, help="of each network; by default as many as take --seconds")
    parser.add_argument("--seconds", type=float, default=90.0, help="of training; a third of it for evaluation")
    parser.add_argument("--profile", action="store_true", help="also measure the operations of a training step")
    parser.add_argument("--output", type=Path, help="a file of JSON lines; results in it are kept")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page; needs --output")
    parser.add_argument("--no-measuring", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    if (args.write or args.no_measuring) and not args.output:
        parser.error("--write and --no-measuring need --output, the results to write from")
    try:
        options = {key: getattr(args, key) for key in ("batch", "size", "dtype", "device", "threads")}
        setting = Setting(**options)
        about = {"setting": asdict(setting), "hardware": hardware(setting.device)}
        results: dict[str, Any] = {"about": about}
        if args.output and (args.no_measuring or args.output.is_file()):
            results = read_results(args.output, None if args.no_measuring else about)
        if args.write:
            check_section(args.write, BEGIN)
    except ValueError as error:
        parser.error(str(error))
    for name in () if args.no_measuring else [name for name in args.networks if name not in results]:
        results[name] = _measure(name, setting, args)
        if args.output:
            write(args.output, "".join(json.dumps({"case": case} | one) + "\n" for case, one in results.items()))
    parts = sections(results)
    print("\n\n".join(parts))
    if args.write:
        write_section(args.write, BEGIN, parts)
    return 0


def build(name: str, side: str) -> nn.Module:
    """Build a network of a library without SE, with unfused SE, or with fused SE."""
    torch.manual_seed(0)
    model: Any = senet.create_model(name, num_classes=1000)
    if side == "plain":
        for unit in find_se(model):
            if unit.form == "block":
                replace_module(model, unit.module, nn.Identity())
    elif side == "fused":
        senet.fuse(model)
    return model  # type: ignore[no-any-return]


def _measure(name: str, setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """Measure a network: training and evaluation, all sides interleaved."""
    start = time.perf_counter()
    report: Any = build(name, "fused").fuse_report
    found: dict[str, Any] = {"fused": len(report.fused), "modules": len(report.rows)}
    modes: dict[BenchMode, float] = {"train": args.seconds, "infer": args.seconds / 3}
    for mode, seconds in modes.items():
        sides = [Side(side, partial(build, name, side), twin="plain", also="unfused") for side in SIDES]
        one = replace(setting, mode=mode)
        progress = progress_lines(f"{name}, {mode}")
        found[mode] = compare(sides, one, rounds=args.rounds, seconds=seconds, progress=progress)
    if args.profile:
        found["profile"] = {side: _profile(build(name, side), setting) for side in SIDES}
    return found | {"minutes": round((time.perf_counter() - start) / 60, 1)}


def _profile(model: nn.Module, setting: Setting) -> dict[str, float]:
    """Return the milliseconds of a training step by kind of operation, on a CPU, without those inside of others."""
    torch.set_num_threads(setting.threads)
    images = torch.randn(setting.batch, image_channels(model), *size_pair(setting.size))
    step = Step("profile", model, images, setting)
    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(PROFILED):
            step()
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "other")
        times[kind] += event.self_cpu_time_total / 1000 / PROFILED
    return {kind: round(times[kind], 2) for kind in (*KINDS, "other")}


def sections(results: dict[str, Any]) -> list[str]:
    """Return the tables of a page."""
    setting, facts = (results["about"][key] for key in ("setting", "hardware"))
    cases = {name: one for name, one in results.items() if name != "about"}
    device = facts.get("gpu") or facts["processor"] or facts["machine"]
    rounds = sorted({one["train"]["rounds"] for one in cases.values()})
    caption = (
        f"Batch {setting['batch']}, {setting['size']}x{setting['size']}; median of {_range(rounds)} rounds, and "
        f"quartiles; `?` where the 95 % interval of the median reaches more than 5 % from it. {device} "
        f"({facts['capability']}), {setting['threads']} threads, {setting['dtype']}, {setting['memory_format']}, "
        f"{setting['optimizer']}; PyTorch {facts['torch']}, torchvision {facts['torchvision']}, timm {facts['timm']}, "
        f"senet {facts['senet']}."
    )
    speed = ["network", "SE modules fused", "unfused to plain", "fused to plain", "fused to unfused", "images/s, fused"]
    memory = ["network", "saved, unfused to plain", "fused to plain", "fused to unfused", "peak, fused to unfused"]
    memory.append("largest batch in 8 GiB: plain, unfused, fused")
    evaluated = ["network", "unfused to plain", "fused to plain", "fused to unfused"]
    speeds = [_speed(name, one) for name, one in cases.items()]
    memories = [_memory(name, one, setting["batch"]) for name, one in cases.items()]
    ratios = [[f"`{name}`", *_ratios(one["infer"])] for name, one in cases.items()]
    parts = [
        f"Time of a training step:\n\n{markdown(speed, speeds)}\n\n{paragraph(caption)}",
        f"Memory of a training step:\n\n{markdown(memory, memories)}",
        "The largest batch is computed from the peak of a step per image, without parameters.",
        f"Evaluation, where each module computes its own function:\n\n{markdown(evaluated, ratios)}",
    ]
    profiled = {name: one["profile"] for name, one in cases.items() if "profile" in one}
    if profiled:
        rows = [row for name, one in profiled.items() for row in _profile_rows(name, one)]
        table = markdown(["network", "side", *KINDS, "other"], rows)
        parts.append(f"Milliseconds of a training step by operation:\n\n{table}")
    return parts


def _speed(name: str, one: dict[str, Any]) -> list[str]:
    _, _, fused = one["train"]["sides"]
    counts = f"{one['fused']} of {one['modules']}"
    return [f"`{name}`", counts, *_ratios(one["train"]), f"{fused['images_per_second']:.4g}"]


def _ratios(found: dict[str, Any]) -> list[str]:
    _, unfused, fused = found["sides"]
    return [cell(unfused, "base"), cell(fused, "base"), cell(fused, "also")]


def _memory(name: str, one: dict[str, Any], batch: int) -> list[str]:
    _, unfused, fused = sides = one["train"]["sides"]
    saved = [unfused["base"]["saved"], fused["base"]["saved"], fused["also"]["saved"]]
    largest = ", ".join(str(int(MEMORY * batch / side["peak_bytes"])) for side in sides)
    return [f"`{name}`", *(f"{ratio:.3f}" for ratio in saved), f"{fused['also']['peak']:.3f}", largest]


def _profile_rows(name: str, one: dict[str, Any]) -> list[list[str]]:
    return [[f"`{name}`", side, *(f"{one[side][kind]:.0f}" for kind in (*KINDS, "other"))] for side in SIDES]


def _range(numbers: list[int]) -> str:
    return " to ".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1]))) if numbers else "0"


if __name__ == "__main__":
    sys.exit(main())
