"""Short runs and their results: three classes of the digits, three steps an epoch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

import senet
import senet.runs
from senet.data import ImageData, open_data
from senet.recipes import Recipe, load_recipe
from senet.runs import Silent
from senet.training.checkpoint import read_checkpoint


class Killed(BaseException):
    """As sudden as SIGKILL: nothing in a run may catch it, or save anything."""


def digits(classes: int = 3, images: int = 8) -> tuple[ImageData, ImageData]:
    """A little of the digits, training and validation."""
    splits = []
    for split in ("train", "val"):
        whole = open_data("digits", split)
        kept = [i for label in range(classes) for i in (whole.labels == label).nonzero()[0][:images]]
        few = whole.subset(torch.tensor(kept).numpy())
        splits.append(few.with_classes([str(n) for n in range(classes)]))
    return splits[0], splits[1]


def recipe(*settings: str) -> Recipe:
    """Three epochs of three steps on small images, with something random in the network; the second is not the best.

    They run on the CPU, also where there is a GPU, unless a setting names the device.
    """
    quick = ("device=cpu", "epochs=3", "warmup=0.5", "batch=8", "lr=0.05", "workers=0", "network.drop_path_rate=0.2")
    return load_recipe("digits", [*quick, "resize=16", "crop_size=16", "seed=6", *settings])


def run(output: Path, *settings: str, network: Any = "se_resnet20", **options: Any) -> senet.runs.Run:
    return senet.train(network, digits(), recipe(*settings), output, **options)


def result(output: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All weights of both models, and the metrics but for their seconds."""
    weights = {
        f"{name}.{key}": value
        for name in ("last", "best")
        for key, value in senet.load(output / f"{name}.safetensors").state_dict().items()
    }
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return weights, [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]


def assert_same(output: Path, expected: Path) -> None:
    """The same bits, and nothing left over."""
    (weights, epochs), (expected_weights, expected_epochs) = result(output), result(expected)
    assert epochs == expected_epochs
    assert weights.keys() == expected_weights.keys()
    assert not [key for key, value in expected_weights.items() if not torch.equal(value, weights[key])]
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in expected.iterdir())
    # Few steps are taken, so a scaler or an optimizer that was not restored may not show in the weights.
    state, expected_state = (read_checkpoint(folder / "checkpoint.pt")["state"] for folder in (output, expected))
    assert state["scaler"] == expected_state["scaler"]
    assert_same_leaves(state["optimizer"], expected_state["optimizer"])


def assert_same_leaves(tree: Any, expected: Any) -> None:
    """The same tensors, bit for bit, and other values, in dicts and lists."""
    leaves, structure = tree_flatten(tree)
    expected_leaves, expected_structure = tree_flatten(expected)
    assert structure == expected_structure
    for leaf, other in zip(leaves, expected_leaves, strict=True):
        assert torch.equal(leaf, other) if isinstance(leaf, torch.Tensor) else leaf == other


class KillAt(Silent):
    """Kills at a step of an epoch, both from 1."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def step(self, epoch: int, step: int, *rest: Any) -> None:
        if (epoch, step) == self.at:
            raise Killed


class Notes(Silent):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, epoch: int, step: int, *rest: Any) -> None:
        self.steps.append((epoch, step))


def refusing(names: Sequence[str]) -> Any:
    """A stand-in for `Path.replace` that is killed before files of some names get them: in the middle of a save."""
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name in names:
            raise Killed
        return replace(self, target)

    return killed
