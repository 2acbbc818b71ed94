"""Draw the picture on top of the README from two real runs: validation error by epoch, and what the first predicts.

senet train se_resnet20 --data CIFAR/train.tar --val-data CIFAR/val.tar --recipe cifar-short --output runs/se_resnet20
senet train resnet20    --data CIFAR/train.tar --val-data CIFAR/val.tar --recipe cifar-short --output runs/resnet20
python docs/overview.py runs/se_resnet20 runs/resnet20 --data CIFAR/val.tar
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import senet

COLOURS = ("#1f5fbf", "#8a8f98")
ROWS, COLUMNS = 3, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of senet train; the first one predicts")
    parser.add_argument("--data", required=True, help="spec of the images to predict")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("overview.png"))
    args = parser.parse_args()

    figure: Any = Figure(figsize=(13, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.45))
    _curves(left, args.runs)
    _predictions(right, args.runs[0], args.data)
    figure.savefig(args.output, dpi=110)


def _curves(figure: Figure, runs: list[Path]) -> None:
    axes = figure.subplots()
    for run, colour in zip(runs, COLOURS, strict=False):
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        errors = [epoch["top1_error"] for epoch in epochs]
        label = f"{run.name}: {min(errors):.2f} %"
        axes.plot([epoch["epoch"] for epoch in epochs], errors, color=colour, marker="o", markersize=4, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 error (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _predictions(figure: Figure, run: Path, spec: str) -> None:
    model = senet.load(run / "best.safetensors")
    model_cfg: Any = model.pretrained_cfg
    data = senet.open_data(spec, classes=model_cfg["label_names"])
    chosen = np.random.default_rng(1).choice(len(data), ROWS * COLUMNS, replace=False)
    images = [data[int(index)] for index in chosen]
    found = senet.predict(model, [image for image, _ in images], top=1)
    grid = figure.subplots(ROWS, COLUMNS)
    for axes, (image, label), prediction in zip(grid.flat, images, found, strict=True):
        axes.imshow(image, interpolation="bilinear")
        axes.axis("off")
        name, probability = prediction.classes[0], prediction.probabilities[0]
        right = name == data.classes[label]
        text = f"{name} {100 * probability:.0f} %" if right else f"{name}, is {data.classes[label]}"
        axes.set_title(text, fontsize=8, color="black" if right else "#c2410c")
    figure.suptitle(f"{run.name}: predictions on images that it was not trained on", fontsize=10)


if __name__ == "__main__":
    main()
