"""The speed of shards relative to the .tar of class folders they were written from: opening, reading, decoding.

Both are interleaved in one process, with the same images in the same random order; each round gives one ratio. A
stream is the same shards through `pipe:cat`, in their order.

    senet shard CIFAR/train.tar --split train -o SHARDS
    python benchmarks/shards.py --tar CIFAR/train.tar --shards SHARDS --output shards.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import senet
from senet.data import ImageData, open_data
from senet.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tar", required=True, help="the archive that the shards were written from")
    parser.add_argument("--shards", required=True, type=Path, help="the folder of shards named train-000000.tar, ...")
    parser.add_argument("--images", type=int, default=5000, help="number of images read in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    args = parser.parse_args()

    count = len(list(args.shards.glob("train-*.tar")))
    braces = f"train-{{000000..{count - 1:06d}}}.tar"
    index = args.shards / "train.index.json"
    specs = {
        "tar": args.tar,
        "shards": f"wds:{args.shards}/{braces}",
        "stream": f"wds:pipe:cat {args.shards}/{braces}?index={index}",
    }
    data = {name: open_data(spec, "train") for name, spec in specs.items()}
    places = np.random.default_rng(0).permutation(len(data["tar"]))[: args.images]
    # The key of an image of a shard is its number in the source.
    where = {int(Path(data["shards"].name(i)).stem): i for i in range(len(data["shards"]))}
    orders = {
        "tar": places.tolist(),
        "shards": [where[place] for place in places.tolist()],
        "stream": list(range(args.images)),
    }
    times = {
        "open": _rounds({name: _opening(spec) for name, spec in specs.items()}, max(3, args.rounds // 3)),
        "read": _rounds({n: _reading(data[n], orders[n], False) for n in specs}, args.rounds),
        "read and decode": _rounds({n: _reading(data[n], orders[n], True) for n in specs}, args.rounds),
    }
    result = {
        "speed_against_tar": {
            what: {name: _ratio(rounds["tar"], rounds[name]) for name in ("shards", "stream")}
            for what, rounds in times.items()
        },
        "images_per_second": {
            name: round(args.images / statistics.median(seconds)) for name, seconds in times["read and decode"].items()
        },
        "images": args.images,
        "shards": count,
        "rounds": args.rounds,
        "senet": senet.__version__,
        "machine": f"{platform.machine()} {platform.system()}",
    }
    print(json.dumps(result, indent=2))
    if args.output:
        write_json(args.output, result)


def _opening(spec: str) -> Callable[[], None]:
    def open_it() -> None:
        open_data(spec, "train")

    return open_it


def _reading(data: ImageData, order: list[int], decode: bool) -> Callable[[], None]:
    def read() -> None:
        for index in order:
            if decode:
                data[index]
            else:
                file: Any
                with data.source.read(int(data.indices[index])) as file:
                    file.read()

    return read


def _rounds(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # warm up: the files are in memory afterwards
    names = list(sides)
    for number in range(rounds):
        # The order rotates over rounds, so that a machine that slows down slows all sides.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _ratio(above: list[float], below: list[float]) -> dict[str, float | list[float]]:
    low, median, high = statistics.quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)]}


if __name__ == "__main__":
    main()
