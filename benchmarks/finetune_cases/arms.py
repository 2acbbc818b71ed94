"""The arms of the fine-tuning study, its stages in order of priority, and the runs that they consist of."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ARMS", "STAGES", "Arm", "Job", "Stage", "plan"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a pretrained network is fine-tuned.

    Attributes:
        se: initialization of the SE that is inserted; "none" leaves the network plain.
        reduction: of SE.
        lr: peak learning rate.
        se_lr: factor of the learning rate for SE.
        norm_lr: factor of the learning rate for weights and biases of batch norms.
        se_decay: whether the recipe's weight decay applies to the weights of SE.
        se_warmup: fraction of the run over which SE's learning rate has a second, linear warm-up.
        se_first: fraction of the epochs in which only SE is trained, with a schedule of their own.
    """

    se: Literal["none", "identity", "paper"] = "none"
    reduction: float = 4
    lr: float = 0.02
    se_lr: float = 1.0
    norm_lr: float = 1.0
    se_decay: bool = True
    se_warmup: float = 0.0
    se_first: float = 0.0


def _se(factor: float, **options: float | bool) -> Arm:
    return dataclasses.replace(Arm(se="identity", se_lr=factor), **options)  # type: ignore[arg-type]


ARMS = {
    "plain": Arm(),
    "se x1": _se(1),
    "se x10": _se(10),
    "se x50": _se(50),
    "se x100": _se(100),
    "se x200": _se(200),
    "paper x1": Arm(se="paper"),
    "paper x10": Arm(se="paper", se_lr=10),
    "paper x50": Arm(se="paper", se_lr=50),
    "plain, norms x10": Arm(norm_lr=10),
    "plain, norms x50": Arm(norm_lr=50),
    "plain, lr 0.005": Arm(lr=0.005),
    "plain, lr 0.01": Arm(lr=0.01),
    "plain, lr 0.05": Arm(lr=0.05),
    "se x50, lr 0.005": _se(50, lr=0.005),
    "se x50, lr 0.01": _se(50, lr=0.01),
    "se x50, lr 0.05": _se(50, lr=0.05),
    "se x200, lr 0.005": _se(200, lr=0.005),
    "se x100, lr 0.01": _se(100, lr=0.01),
    "se x50, r 16": _se(50, reduction=16),
    "se x50, no decay": _se(50, se_decay=False),
    "se x50, warm-up": _se(50, se_warmup=0.5),
    "se x50, first": _se(50, se_first=0.25),
    "se x1, first": _se(1, se_first=0.25),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the study: the runs of some arms with the same network and images.

    Attributes:
        network: name in `senet.list_models`.
        images: training images, at equal distances in the data set.
        epochs: passes over them.
        arms: names in `ARMS`.
        seeds: each seed has the same order, crops and flips of the images in every arm.
    """

    network: str
    images: int
    epochs: int
    arms: Sequence[str]
    seeds: Sequence[int]


# Seeds 0 to 2 chose what is measured here, on the same validation images.
_FEW, _MORE, _ALL = range(10, 14), range(14, 18), range(10, 18)
_MAIN = ("plain", "se x1", "se x50", "plain, norms x50", "paper x1", "se x10")
_RATES = tuple(name for name in ARMS if "lr 0." in name)
_VARIANTS = ("se x50, r 16", "se x50, no decay", "se x50, warm-up", "se x50, first", "se x1, first", "paper x10")
STAGES = {
    "main": Stage(
        network="resnet20", images=10_000, epochs=4, arms=(*_MAIN, "plain, norms x10", "paper x50"), seeds=_ALL
    ),
    "all images": Stage(network="resnet20", images=50_000, epochs=4, arms=_MAIN[:5], seeds=_FEW),
    "rates": Stage(network="resnet20", images=10_000, epochs=4, arms=(*_RATES, "se x100", "se x200"), seeds=_ALL),
    "variants": Stage(network="resnet20", images=10_000, epochs=4, arms=_VARIANTS, seeds=_FEW),
    "resnet56": Stage(network="resnet56", images=10_000, epochs=4, arms=_MAIN[:5], seeds=_FEW),
    "all images, more": Stage(network="resnet20", images=50_000, epochs=4, arms=_MAIN[:5], seeds=_MORE),
    "epochs 1": Stage(network="resnet20", images=10_000, epochs=1, arms=_MAIN[:3], seeds=_ALL),
    "epochs 10": Stage(network="resnet20", images=10_000, epochs=10, arms=_MAIN[:3], seeds=_ALL),
    "resnet56, more": Stage(network="resnet56", images=10_000, epochs=4, arms=_MAIN[:5], seeds=_MORE),
    "all images, rates": Stage(
        network="resnet20",
        images=50_000,
        epochs=4,
        arms=("plain, lr 0.01", "plain, lr 0.05", "se x50, lr 0.01", "se x10"),
        seeds=_FEW,
    ),
    "resnet56, all images": Stage(network="resnet56", images=50_000, epochs=4, arms=_MAIN[:3], seeds=_FEW),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run.

    Attributes:
        network, images, epochs: of its stage.
        arm: name in `ARMS`.
        seed: of order, crops and flips, and of SE's initial weights.
        curve: whether the network is also evaluated before the end.
    """

    network: str
    images: int
    epochs: int
    arm: str
    seed: int
    curve: bool = False

    @property
    def id(self) -> str:
        """What identifies the run in the results."""
        return f"{self.network}/{self.images}/{self.epochs}/{self.arm}/{self.seed}"


def plan(stages: Collection[str], arms: Sequence[str] | None = None, *, quick: bool = False) -> list[Job]:
    """Return the runs of some stages, seed by seed, so that a run that ends early leaves complete pairs.

    Args:
        stages: names in `STAGES`.
        arms: names in `ARMS`, in the order of the runs of a seed; None for all arms of a stage.
        quick: two epochs of 256 images and two seeds: a smoke test.
    """
    found = [STAGES[name] for name in stages]
    if arms is not None:
        found = [dataclasses.replace(stage, arms=[arm for arm in arms if arm in stage.arms]) for stage in found]
    jobs = {job.id: job for stage in found for job in _jobs(stage, quick)}
    return list(jobs.values())


def _jobs(stage: Stage, quick: bool) -> Iterator[Job]:
    images, epochs = (256, 2) if quick else (stage.images, stage.epochs)
    for seed in stage.seeds[:2] if quick else stage.seeds:
        for arm in stage.arms:
            yield Job(
                network=stage.network,
                images=images,
                epochs=epochs,
                arm=arm,
                seed=seed,
                curve=seed in _FEW,
            )
