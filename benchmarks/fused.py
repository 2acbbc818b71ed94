"""What SE of other libraries costs in training, fused and not, against the same network without SE, interleaved.

Each network is measured three times in one process: without SE (each SE module is an identity), as the library has it,
and after `senet.fuse`. Results are JSON lines, one for each network, written after it.

    python benchmarks/fused.py --output fused.jsonl
    python benchmarks/fused.py --output fused.jsonl --networks timm/efficientnet_b0 --batch 16 --threads 1 --rounds 9
    python benchmarks/fused.py --networks timm/test_efficientnet --size 32 --batch 2 --rounds 2     # a smoke test
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import Side, cell, compare, markdown, progress_lines
from torch import nn

import senet
from senet.benchmark import Setting, hardware
from senet.graph.se_modules import find_se
from senet.insertion.placing import replace_module

NETWORKS = (
    "timm/efficientnet_b0",
    "timm/mobilenetv3_large_100",
    "timm/regnety_016",
    "timm/seresnet50",
    "torchvision/efficientnet_v2_s",
)
SIDES = ("plain", "unfused", "fused")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="timm/NAME or torchvision/NAME")
    parser.add_argument("--mode", default="train", help="train or infer")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, help="of each network; by default as many as take --seconds")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--output", type=Path, help="a file of JSON lines, to which results are added")
    args = parser.parse_args(arguments)
    try:
        options = {key: getattr(args, key) for key in ("mode", "batch", "size", "dtype", "device", "threads")}
        setting = Setting(**options)
    except ValueError as error:
        parser.error(str(error))
    rows = []
    for name in args.networks:
        sides = [Side(side, partial(build, name, side), twin="plain", also="unfused") for side in SIDES]
        progress = progress_lines(name)
        found = compare(sides, setting, rounds=args.rounds, seconds=args.seconds, progress=progress)
        line = {"case": name, "setting": asdict(setting), "hardware": hardware(setting.device)} | found
        if args.output:
            with args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        rows.append(_row(name, found["sides"]))
        print(name, *rows[-1][1:], file=sys.stderr)
    header = ["network", "unfused to plain", "fused to plain", "saved, fused to unfused", "peak, fused to unfused"]
    print(markdown([*header, "images/s"], rows))
    return 0


def build(name: str, side: str) -> nn.Module:
    """Build a network of a library, without SE, with SE as it is, or with fused SE."""
    torch.manual_seed(0)
    model: Any = senet.create_model(name, num_classes=1000)
    if side == "plain":
        for unit in find_se(model):
            if unit.form == "block":
                replace_module(model, unit.module, nn.Identity())
    elif side == "fused":
        print(senet.fuse(model).fuse_report, file=sys.stderr)
    return model  # type: ignore[no-any-return]


def _row(name: str, sides: list[dict[str, Any]]) -> list[str]:
    _, unfused, fused = sides
    saved = fused["also"]["saved"]
    cells = [cell(unfused, "base"), cell(fused, "base"), "-" if saved is None else f"{saved:.3f}"]
    return [f"`{name}`", *cells, f"{fused['also']['peak']:.3f}", f"{fused['images_per_second']:.1f}"]


if __name__ == "__main__":
    sys.exit(main())
