"""The cost of recording gates: `senet.record_gates` relative to the evaluation of the same batches.

Both use the same images in memory, interleaved in one process; each round gives one ratio.

    python benchmarks/recording.py --network se_resnet20 --size 32 --batch 128 --output recording.json
    python benchmarks/recording.py --network se_resnet50 --size 224 --batch 32 --steps 2
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import senet
from senet.data import ImageData, Preprocessing, open_loader
from senet.evaluation.evaluate import evaluate_loader
from senet.gates.recording.recorder import record_gates
from senet.utils.files import write_json


class _Noise:
    """Images of noise, of one size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def name(self, index: int) -> str:
        return f"noise {index}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="se_resnet20")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="batches of a round, on each side")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--sample", type=int, default=256)
    parser.add_argument("--correlation", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = senet.create_model(args.network, num_classes=args.classes).to(memory_format=torch.channels_last)
    images = args.batch * args.steps
    data = ImageData(
        "noise", _Noise(args.size), np.arange(images) % args.classes, [str(n) for n in range(args.classes)]
    )
    preprocessing = Preprocessing(args.size, args.size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    loader = open_loader(data, preprocessing, batch=args.batch)

    def evaluate() -> None:
        evaluate_loader(model, loader)

    def record() -> None:
        record_gates(model, loader, sample=args.sample, correlation=args.correlation)

    sides = (evaluate, record)
    seconds: list[list[float]] = [[], []]
    for side in sides:
        side()  # warm up
    for number in range(args.rounds):
        # The order rotates over rounds, so that a machine that slows down slows both.
        for index in (number % 2, 1 - number % 2):
            start = time.perf_counter()
            sides[index]()
            seconds[index].append(time.perf_counter() - start)
    low, median, high = statistics.quantiles([b / a for a, b in zip(*seconds, strict=True)], n=4)
    result = {
        "time_of_evaluation": {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)]},
        "seconds": {
            "evaluate": round(statistics.median(seconds[0]), 3),
            "record": round(statistics.median(seconds[1]), 3),
        },
        "network": args.network,
        "classes": args.classes,
        "size": args.size,
        "batch": args.batch,
        "steps": args.steps,
        "rounds": args.rounds,
        "sample": args.sample,
        "correlation": args.correlation,
        "senet": senet.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    print(json.dumps(result, indent=2))
    if args.output:
        write_json(args.output, result)


if __name__ == "__main__":
    main()
