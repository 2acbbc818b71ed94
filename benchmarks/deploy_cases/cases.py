"""Networks in engines: which sides a case compares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

import senet
from deploy_cases.profiles import profile
from senet.benchmark.engine_process import Job
from senet.benchmark.engines import measure_processes, prepare
from senet.benchmark.networks import without_se
from senet.benchmark.ratios import ratio
from senet.utils.choices import BenchEngine

__all__ = ["BATCHES", "CASES", "ENGINES", "NETWORKS", "PROFILED", "Case", "Run"]

NETWORKS = (
    "se_resnet50",
    "timm/efficientnet_b0",
    "timm/regnety_016",
    "timm/mobilenetv3_large_100",
    "se_resnext50_32x4d",
    "senet154",
)
ENGINES: tuple[BenchEngine, ...] = ("openvino", "onnxruntime", "eager", "compile")
BATCHES = (1, 8)
# Networks whose time is listed by operation, and that are also measured in 8 bits.
PROFILED = ("se_resnet50", "timm/efficientnet_b0")
FILES: tuple[BenchEngine, ...] = ("openvino", "onnxruntime")
# Seconds of the rounds of a case, and seconds to export and open its networks, at most.
SECONDS = {1: 5.0, 8: 10.0}
NEEDS = 60.0
# Many parameters: exporting takes longer, and rounds are fewer.
LARGE = ("senet154",)
LARGE_ROUNDS = {1: 9, 8: 7}
# Images of noise that show the ranges of values for 8 bits, enough to measure speed.
CALIBRATION = 16
SUFFIXES: dict[BenchEngine, str] = {"openvino": ".xml", "onnxruntime": ".onnx"}


@dataclass
class Run:
    """What all cases have in common.

    Attributes:
        folder: for exported networks. Those that it has already are used.
        threads: of each engine.
        quick: a tiny network in few rounds.
    """

    folder: Path
    threads: int
    quick: bool
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return 32 if self.quick else 224

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the images, of two in a smoke test."""
        return 2 if self.quick else batch, 3, self.size, self.size

    def path(self, name: str, engine: BenchEngine, side: str, batch: int) -> Path:
        """Return the file of a side, written unless the folder has it."""
        images = self.shape(batch)[0]
        key = "-".join((engine, name.replace("/", "_"), side.replace(", ", "-").replace("'", ""), str(images)))
        if key not in self.paths:
            path = self.folder / f"{key}{SUFFIXES.get(engine, '.pt')}"
            if engine not in FILES or not path.exists():
                self._write(name, engine, side, images, self.folder / key)
            self.paths[key] = path
        return self.paths[key]

    def _write(self, name: str, engine: BenchEngine, side: str, batch: int, stem: Path) -> None:
        model = _build(name, self.quick)
        if side.startswith("plain"):
            model = without_se(name, model)[1].eval()
        if side.endswith("int8"):
            generator = torch.Generator().manual_seed(0)
            shape = (batch, *self.shape(batch)[1:])
            images = [torch.randn(shape, generator=generator) for _ in range(CALIBRATION // batch)]
            path = stem.with_name(stem.name + SUFFIXES[engine])
            # Random weights: nothing about the accuracy is measured.
            senet.export(model, path, images[0], precision="int8", calibration=images, tolerance=1e9)
            return
        size = (self.size, self.size)
        prepare(model, engine, stem, size=size, batch=batch, deployed=not side.endswith("original"))


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        run: measures it.
        needs: seconds that it may take; it is left out if fewer are left.
        sides: network, engine, side and batch of the files that it needs.
    """

    run: Callable[[Run], dict[str, Any]]
    needs: float
    sides: tuple[tuple[str, BenchEngine, str, int], ...]


def _build(name: str, quick: bool) -> nn.Module:
    torch.manual_seed(0)
    if quick:
        return senet.create_model("se_resnet20").eval()
    model: nn.Module = senet.create_model(name) if "/" not in name else timm.create_model(name[5:], pretrained=False)
    return model.eval()


def compare(
    name: str, engine: BenchEngine, batch: int, sides: Mapping[str, tuple[str, str]], bases: Mapping[str, str]
) -> Case:
    """Return a case: a network in several forms.

    Args:
        name: of the network.
        engine: that runs it.
        batch: images per step.
        sides: network and form of each side.
        bases: the sides that all are compared with, by the name of the ratio.
    """
    files = tuple((network, engine, form, batch) for network, form in sides.values())

    def measure(run: Run) -> dict[str, Any]:
        jobs = [
            (label, Job(engine, str(run.path(*file)), run.shape(batch), run.threads))
            for label, file in zip(sides, files, strict=True)
        ]
        length: dict[str, Any] = {"seconds": SECONDS[batch]}
        if name in LARGE:
            length = {"rounds": LARGE_ROUNDS[batch], "warm_up": 3}
        if run.quick:
            length = {"rounds": 2, "warm_up": 1}
        times, _ = measure_processes(jobs, **length)
        found: dict[str, Any] = {"network": name, "engine": engine, "batch": batch, "sides": {}}
        for number, label in enumerate(sides):
            own = times.seconds[:, number]
            entry: dict[str, Any] = {"seconds": np.quantile(own, [0.5, 0.25, 0.75]).tolist()}
            for what, base in bases.items():
                one = ratio(own, times.seconds[:, list(sides).index(base)])
                entry[what] = {"median": one.median, "quartiles": one.quartiles, "conclusive": one.conclusive}
            found["sides"][label] = entry
        return found | {"rounds": len(times.seconds), "steps": times.steps}

    return Case(measure, NEEDS * (3 if name in LARGE else 1), files)


def _float(name: str, engine: BenchEngine, batch: int) -> Case:
    """Compare the network, original and deployed, with its plain twin; and with timm's in eager mode."""
    sides = {side: (name, side) for side in ("plain", "original", "deployed")}
    bases = {"to plain": "plain", "to itself": "original"}
    if engine == "eager" and name == "se_resnet50":
        sides["timm's"] = ("timm/seresnet50", "original")
        bases["to timm's"] = "timm's"
    return compare(name, engine, batch, sides, bases)


def _int8(name: str, engine: BenchEngine, batch: int) -> Case:
    """Compare the deployed network in 8 bits with its plain twin in 8 bits, and with itself in float32."""
    sides = {side: (name, side) for side in ("plain, int8", "deployed", "deployed, int8")}
    return compare(name, engine, batch, sides, {"to plain": "plain, int8", "to float32": "deployed"})


def _profile(name: str, engine: BenchEngine) -> Case:
    """List the time of the network and of its plain twin by operation."""
    files = {side: (name, engine, side, 1) for side in ("plain", "deployed")}

    def measure(run: Run) -> dict[str, Any]:
        parts = {side: profile(run.path(*file), run.shape(1), run.threads) for side, file in files.items()}
        return {"network": name, "engine": engine, "profile": parts}

    return Case(measure, NEEDS, tuple(files.values()))


def _cases() -> dict[str, Case]:
    """Return the cases by name, the most important ones first."""
    found: dict[str, Case] = {}

    def add(engine: BenchEngine, name: str) -> None:
        for batch in BATCHES:
            found[f"{engine}-{name.removeprefix('timm/')}-{batch}"] = _float(name, engine, batch)

    for engine in FILES:
        for name in NETWORKS:
            if name not in LARGE:
                add(engine, name)
    add("eager", "se_resnet50")
    for engine in FILES:
        for name in PROFILED:
            found[f"profile-{engine}-{name.removeprefix('timm/')}"] = _profile(name, engine)
    for name in LARGE:
        for engine in FILES:
            add(engine, name)
    for engine in FILES:
        for name in PROFILED:
            for batch in BATCHES:
                found[f"int8-{engine}-{name.removeprefix('timm/')}-{batch}"] = _int8(name, engine, batch)
    for engine in ENGINES:
        for name in NETWORKS:
            if f"{engine}-{name.removeprefix('timm/')}-1" not in found:
                add(engine, name)
    return found


CASES = _cases()
