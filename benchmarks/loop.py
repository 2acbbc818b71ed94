"""The speed of the training loop relative to a bare loop, with images in memory; and of networks to each other.

The bare loop has its batches ready as normalized float tensors and does nothing but forward, loss, backward and step.
The training loop takes the images from memory, crops and mirrors them at random, normalizes them, checks that loss and
gradient are finite, and records metrics. Every network trains the same number of steps in both, interleaved in one
process; each round gives one ratio.

    python benchmarks/loop.py --data CIFAR/train.tar --networks resnet20 se_resnet20 --batch 128 --output loop.json
    python benchmarks/loop.py --data CIFAR/train.tar --networks resnet50 --size 96 --batch 16 --steps 3
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

import senet
from senet.data import Loader, open_loader
from senet.recipes import Recipe, load_recipe
from senet.runs import Silent
from senet.training import Trainer, train_epoch
from senet.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "se_resnet20"], help="the first is the twin")
    parser.add_argument("--data", default="digits", help="a spec with images for at least --steps batches")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side, to which the images are enlarged")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of the recipe")
    parser.add_argument("--steps", type=int, default=11, help="steps of a round, on each side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    args = parser.parse_args()

    size = [f"batch={args.batch}", f"crop_size={args.size}", f"resize={args.size}"]
    recipe = load_recipe("cifar-short", [*size, "lr=1e-6", *args.set])
    data = senet.open_data(args.data, "train")
    data = data.subset(torch.arange(min(len(data), args.batch * args.steps)).numpy())
    loader = open_loader(data, recipe.preprocessing, recipe.augmentation, batch=args.batch)
    if len(loader) != args.steps:
        parser.error(f"{args.data} has images for {len(loader)} steps of {args.batch} only; give fewer --steps")
    sides = [side for name in args.networks for side in _sides(name, loader, recipe)]
    for side in sides:
        side(0)  # warm up
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(args.rounds):
        # The order rotates over rounds, so that a machine that slows down slows all sides.
        for index in sorted(range(len(sides)), key=lambda index: (index + number) % len(sides)):
            start = time.perf_counter()
            sides[index](number)
            seconds[index].append(time.perf_counter() - start)

    result = {
        "networks": {
            name: {
                "images_per_second": round(args.steps * args.batch / statistics.median(seconds[2 * index + 1])),
                "speed_of_bare_loop": _ratio(seconds[2 * index], seconds[2 * index + 1]),
                f"time_of_{args.networks[0]}": _ratio(seconds[2 * index + 1], seconds[1]),
            }
            for index, name in enumerate(args.networks)
        },
        "batch": args.batch,
        "size": args.size,
        "settings": args.set,
        "steps": args.steps,
        "rounds": args.rounds,
        "senet": senet.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {platform.system()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    print(json.dumps(result, indent=2))
    if args.output:
        write_json(args.output, result)


def _sides(name: str, loader: Loader, recipe: Recipe) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """The bare loop over a network, and the training loop over the same."""
    ready = [(loader.preprocessing.normalize(pixels), labels) for pixels, labels in loader.epoch()]
    model = senet.create_model(name, num_classes=len(loader.data.classes)).to(memory_format=torch.channels_last)
    # The learning rate is next to nothing: these few images over and over would teach the network oddly.
    trainer = Trainer(model, recipe, loader)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=1e-6,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )

    def bare(number: int) -> None:
        model.train()
        for inputs, labels in ready:
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def ours(number: int) -> None:
        train_epoch(trainer, Silent())
        trainer.start_epoch()

    return bare, ours


def _ratio(above: list[float], below: list[float]) -> dict[str, float | list[float]]:
    low, median, high = statistics.quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)]}


if __name__ == "__main__":
    main()
