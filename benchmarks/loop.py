"""How much of a bare loop's speed the training loop keeps, with images in memory.

The bare loop has its batches ready as normalised float tensors and does nothing but forward, loss, backward and step.
The training loop takes the images from memory, crops and mirrors them at random, normalises them, and keeps its
figures. Both train the same network on as many steps, in turns in one process; each round gives one ratio.

    python benchmarks/loop.py --network se_resnet20 --batch 128 --output loop.json
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import senet
from senet.data import open_loader
from senet.training import Silent, load_recipe, make_optimiser, train_epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="se_resnet20")
    parser.add_argument("--data", default="digits", help="a spec with images for at least --steps batches")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=11, help="steps of a round, on each side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    args = parser.parse_args()

    recipe = load_recipe("cifar-short", [f"batch={args.batch}"])
    data = senet.open_data(args.data, "train")
    data = data.subset(torch.arange(min(len(data), args.batch * args.steps)).numpy())
    loader = open_loader(data, recipe.preprocessing, recipe.augmentation, batch=args.batch)
    if len(loader) != args.steps:
        parser.error(
            f"{args.data} has images for {len(loader)} steps of {args.batch} only; give --steps or other --data"
        )
    ready = [(loader.preprocessing.normalise(pixels), labels) for pixels, labels in loader.epoch()]
    model = senet.create_model(args.network, num_classes=len(data.classes))
    optimiser, schedule = make_optimiser(model, recipe, 10**9)

    def bare() -> float:
        model.train()
        start = time.perf_counter()
        for inputs, labels in ready:
            loss = F.cross_entropy(model(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return time.perf_counter() - start

    def ours(number: int) -> float:
        start = time.perf_counter()
        train_epoch(model, optimiser, schedule, loader, recipe, number, Path("."), Silent())
        return time.perf_counter() - start

    bare(), ours(0)  # warm up
    ratios = []
    for number in range(args.rounds):
        # Speed is steps a second: above 1 would be faster than the bare loop. Sides take turns in going first.
        first, second = (bare(), ours(number)) if number % 2 else (ours(number), bare())
        ratios.append(first / second if number % 2 else second / first)
    low, median, high = statistics.quantiles(ratios, n=4)
    result = {
        "network": args.network,
        "batch": args.batch,
        "steps": args.steps,
        "rounds": args.rounds,
        "speed_of_bare_loop": {"median": median, "quartiles": [low, high]},
        "senet": senet.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
