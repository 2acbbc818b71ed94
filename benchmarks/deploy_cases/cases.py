"""Networks in engines: which sides a case compares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
from torch import nn

import senet
from senet.benchmark.engine_process import Job
from senet.benchmark.engines import measure_processes, prepare
from senet.benchmark.networks import without_se
from senet.benchmark.ratios import ratio
from senet.utils.choices import BenchEngine

__all__ = ["CASES", "NETWORKS", "Case", "Run"]

NETWORKS = (
    "se_resnet50",
    "timm/efficientnet_b0",
    "timm/regnety_016",
    "timm/mobilenetv3_large_100",
    "se_resnext50_32x4d",
    "senet154",
)
ENGINES: tuple[BenchEngine, ...] = ("openvino", "onnxruntime", "compile", "eager")
BATCHES = (1, 8)
# Seconds of the rounds of a case, and seconds to export and open its networks, at most.
SECONDS = {1: 4.0, 8: 8.0}
NEEDS = 60.0
# Many parameters: exporting takes longer.
LARGE = ("senet154",)


@dataclass
class Run:
    """What all cases have in common.

    Attributes:
        folder: for exported networks; those of a network and an engine serve both batches.
        threads: of each engine.
        quick: a tiny network in few rounds.
    """

    folder: Path
    threads: int
    quick: bool
    paths: dict[tuple[str, str, str], Path] = field(default_factory=dict)

    def path(self, name: str, engine: BenchEngine, side: str) -> Path:
        """Return the file of a side, written once for all batches."""
        key = (name, engine, side)
        if key not in self.paths:
            model = _build(name, self.quick)
            if side.startswith("plain"):
                model = without_se(name, model)[1].eval()
            stem = self.folder / str(len(self.paths))
            size = (32, 32) if self.quick else (224, 224)
            deployed = side in ("deployed", "plain, deployed")
            self.paths[key] = prepare(model, engine, stem, size=size, batch=None, deployed=deployed)
        return self.paths[key]


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        run: measures it.
        needs: seconds that it may take; it is left out if fewer are left.
    """

    run: Callable[[Run], dict[str, Any]]
    needs: float


def _build(name: str, quick: bool) -> nn.Module:
    if quick:
        return senet.create_model("se_resnet20").eval()
    model: nn.Module = senet.create_model(name) if "/" not in name else timm.create_model(name[5:], pretrained=False)
    return model.eval()


def compare(name: str, engine: BenchEngine, batch: int) -> Callable[[Run], dict[str, Any]]:
    """Return a case: a network and its plain twin, each original and deployed."""

    def measure(run: Run) -> dict[str, Any]:
        sides = {side: (name, side) for side in ("plain, deployed", "plain", "original", "deployed")}
        if engine == "eager" and name == "se_resnet50" and not run.quick:
            sides["timm's, original"] = ("timm/seresnet50", "original")
        side_length = 32 if run.quick else 224
        shape = (2 if run.quick else batch, 3, side_length, side_length)
        jobs = [
            (label, Job(engine, str(run.path(network, engine, side)), shape, run.threads))
            for label, (network, side) in sides.items()
        ]
        length: dict[str, Any] = {"rounds": 2, "warm_up": 1} if run.quick else {"seconds": SECONDS[batch]}
        times, _ = measure_processes(jobs, **length)
        found: dict[str, Any] = {"network": name, "engine": engine, "batch": batch, "sides": {}}
        for number, label in enumerate(sides):
            own = times.seconds[:, number]
            entry: dict[str, Any] = {"seconds": np.quantile(own, [0.5, 0.25, 0.75]).tolist()}
            for what, base in (("to plain", "plain, deployed"), ("to itself", "original")):
                one = ratio(own, times.seconds[:, list(sides).index(base)])
                entry[what] = {"median": one.median, "quartiles": one.quartiles, "conclusive": one.conclusive}
            found["sides"][label] = entry
        return found | {"rounds": len(times.seconds), "steps": times.steps}

    return measure


CASES = {
    f"{engine}-{name.removeprefix('timm/')}-{batch}": Case(
        compare(name, engine, batch), NEEDS * (3 if name in LARGE else 1)
    )
    for engine in ENGINES
    for name in NETWORKS
    for batch in BATCHES
}
