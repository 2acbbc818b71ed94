"""Write the files of this folder, with version 0.1: see README.md."""

import shutil
import subprocess
import sys
from inspect import signature
from typing import Any

import torch

import senet
from tests.files_0_1.tiny import FOLDER, NETWORK, add_network, image, squares

RECIPE = """\
epochs = 2
batch = 6
lr = 0.1
optimiser = "sgd"
lr_batch = 12
schedule = "step"
drops = [1]
resize = 8
crop_size = 8
workers = 0

[network]
reduction = 2
start = "identity"
"""
STUDY = """\
title = "start and batch"

[grid]
network = ["resnet20", "se_resnet20"]
start = "identity"
lr_batch = [0, 64]
"""


# Of the files of a study.
KEPT = ("study.json", "recipe.toml", "report.json", "run.json", "metrics.jsonl")


class StopsInSecondEpoch:
    """A reporter that interrupts a run once its first epoch is saved."""

    def track(self, steps: Any, total: int, what: str) -> Any:
        """Show nothing."""
        return steps

    def step(self, epoch: int, *rest: Any) -> None:
        """End the run at the first step of the second epoch."""
        if epoch == 2:
            raise InterruptedError

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def write_model() -> None:
    """A model file with other options of SE than the default, and its logits."""
    torch.manual_seed(1)
    model = senet.create_model(NETWORK, placement="post", reduction=2, gate="hard_sigmoid", start="identity")
    model.pretrained_cfg["label_names"] = ["low", "middle", "high"]  # type: ignore[index, operator]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    senet.save(model, FOLDER / "model.safetensors")
    with torch.no_grad():
        torch.save(model.eval()(image()), FOLDER / "logits.pt")


def write_run() -> None:
    """A run that was stopped in its second epoch, and the metrics of the same run when it is not stopped."""
    data = squares(), squares()
    try:
        senet.train(NETWORK, data, FOLDER / "recipe.toml", FOLDER / "run", reporter=StopsInSecondEpoch())
    except (InterruptedError, senet.TrainingError):
        pass
    else:
        raise RuntimeError("the run was not stopped")
    senet.train(NETWORK, data, FOLDER / "recipe.toml", FOLDER / "whole")
    (FOLDER / "whole" / "metrics.jsonl").replace(FOLDER / "metrics.jsonl")
    shutil.rmtree(FOLDER / "whole")
    for name in ("curves.png", ".lock"):
        (FOLDER / "run" / name).unlink(missing_ok=True)


def write_gates() -> None:
    """A recording of the gates of the model file."""
    model = senet.load(FOLDER / "model.safetensors")
    gates = senet.record_gates(model, squares(), sample=3, thumbnail=4, correlation=True)
    gates.save(FOLDER / "recording.gates")


def write_study() -> None:
    """A study of four runs of one epoch, with its report; without the models and checkpoints."""
    folder, python = FOLDER / "study", [sys.executable, "-m", "senet", "study"]
    small = ["resize=16", "crop_size=16", "epochs=1", "batch=128"]
    command = [*python, "study.toml", "--data", "digits", "--recipe", "recipe.toml", "--seeds", "1", "-o", "study"]
    subprocess.run([*command, *(f"--set={setting}" for setting in small)], cwd=FOLDER, check=True)
    subprocess.run([*python, "report", "study"], cwd=FOLDER, check=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in KEPT:
            path.unlink()


if __name__ == "__main__":
    if "start" not in signature(senet.insert).parameters:
        raise SystemExit("these files are written by version 0.1: see README.md")
    add_network()
    (FOLDER / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (FOLDER / "study.toml").write_text(STUDY, encoding="utf-8")
    write_model()
    write_run()
    write_gates()
    write_study()
