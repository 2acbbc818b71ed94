"""A run that is out of memory says what fits, wherever it happens."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import senet
from senet.models import ResNet
from senet.training.distributed.errors import explain_peer_loss
from senet.training.distributed.processes import Processes
from senet.training.memory import explain_memory, preparing
from senet.utils.errors import TrainingError
from tests.cli.helpers import refuses
from tests.images import write_classes
from tests.training.runs import digits, recipe, run
from tests.training.small import small_recipe
from tests.utils.test_memory_errors import CUDA, SIZES

NCCL = RuntimeError("NCCL error in: ProcessGroupNCCL.cpp. Last error:\nCuda failure 2 'out of memory'")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes forward passes fail: of so many images or more, in training mode, in evaluation or in both."""
    limits: dict[str, Any] = {"images": 1, "training": (True, False), "seen": []}
    forward = ResNet.forward

    def limited(self: ResNet, x: Tensor) -> Tensor:
        limits["seen"].append((self.training, len(x)))
        if len(x) >= limits["images"] and self.training in limits["training"]:
            raise torch.OutOfMemoryError(CUDA)
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", limited)
    return limits


@pytest.mark.parametrize(
    ("values", "processes", "expected"),
    [
        ({"batch": 8}, 1, "accumulate=2 makes the same steps with less, in parts of 4 images; or give a smaller batch"),
        ({"batch": 9, "accumulate": 2}, 1, "accumulate=4 .*, in parts of 3 images; or"),
        ({"batch": 8, "accumulate": 8}, 1, "a part is one image already; use a smaller crop_size, precision=bf16"),
        ({"batch": 1}, 1, "a part is one image already"),
        # Each process has its share of a batch, and parts are of the share.
        ({"batch": 8}, 2, "accumulate=2 .*, in parts of 2 images; or give a smaller batch, and base_batch_size=8"),
        ({"batch": 8}, 8, "a part is one image already"),
        ({"batch": 8, "accumulate": 4}, 2, "a part is one image already"),
    ],
)
def test_what_a_step_can_do(values: dict[str, int], processes: int, expected: str) -> None:
    found = explain_memory(torch.OutOfMemoryError(CUDA), small_recipe(**values), processes)
    start = f"out of memory with batch={values['batch']} and accumulate={values.get('accumulate', 1)}: "
    assert found.startswith(start)
    assert found.endswith(SIZES)
    assert re.search(expected, found)
    assert "\n" not in found


def test_other_errors_are_not_explained() -> None:
    assert explain_memory(RuntimeError("shapes"), small_recipe()) == ""
    with pytest.raises(RuntimeError, match="^shapes$"), preparing(small_recipe()):
        raise RuntimeError("shapes")


def test_nccl_without_memory_is_no_lost_process() -> None:
    assert explain_peer_loss(NCCL, 7) == ""
    assert explain_memory(NCCL, small_recipe(), 2).startswith("out of memory with batch=4 and accumulate=1: ")
    processes = Processes(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="NCCL error"), processes._detecting_peer_loss():
        raise NCCL


@pytest.mark.parametrize("training", [True, False], ids=["step", "evaluation"])
def test_a_step_and_an_evaluation(tmp_path: Path, short: dict[str, Any], training: bool) -> None:
    short |= {"images": 2, "training": (training,)}  # one image is what the checks before the run take
    kept = "no epoch was completed, and nothing is saved"
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "run")
    message = str(caught.value)
    assert message.startswith(
        "out of memory with batch=8 and accumulate=1: accumulate=2 makes the same steps with less"
    )
    assert message.endswith(f"{SIZES}; {kept}")


def test_the_advice_helps(tmp_path: Path, short: dict[str, Any]) -> None:
    """Images that did not fit at once fit in parts, in training and in evaluation."""
    short["images"] = 5
    with pytest.raises(TrainingError, match="accumulate=2 makes the same steps"):
        run(tmp_path / "whole", "epochs=1")
    short["seen"].clear()
    run(tmp_path / "parts", "epochs=1", "accumulate=2")
    assert {(True, 4), (False, 4)} <= set(short["seen"])


def test_before_the_first_step(tmp_path: Path, short: dict[str, Any]) -> None:
    message = (
        "out of memory before the first step, with batch=8 and accumulate=1: .*smaller network or crop_size.*free on"
    )
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_decoded_images_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("senet.training.loaders.open_loader", fails)
    with pytest.raises(TrainingError, match="lower memory=4 .GiB of decoded images.*nothing is saved$"):
        senet.train("resnet20", digits(), recipe(), tmp_path / "run")


def test_commands_end_with_status_1_and_name_their_option(tmp_path: Path, short: dict[str, Any]) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 4, "dog": 4})
    model = senet.create_model("se_resnet20", num_classes=2)
    model.pretrained_cfg["label_names"] = ["cat", "dog"]
    senet.save(model, file := tmp_path / "model.safetensors")
    data = ("--data", tmp_path / "data")
    sizes = re.escape(SIZES)
    remedy = f": use a smaller --batch, smaller images or a smaller network{sizes}$"
    refuses(f"out of memory with --batch 5{remedy}", "evaluate", file, *data, "--batch", 5, status=1)
    refuses(f"out of memory with --batch 128{remedy}", "gates", file, *data, "-o", tmp_path / "gates", status=1)
    refuses(f"out of memory with --batch 128{remedy}", "fold", file, *data, "-o", tmp_path / "folded", status=1)
    refuses(f"out of memory with --batch 4{remedy}", "bench", file, "--batch", 4, "--size", 16, status=1)
    image = next((tmp_path / "data" / "val").rglob("*.png"))
    refuses(f"out of memory with --batch 7{remedy}", "predict", file, image, "--batch", 7, status=1)
    refuses(f"out of memory{remedy}", "predict", file, image, status=1)
    options = ("--recipe", "digits", "--set", "batch=4", "-o", tmp_path / "run")
    refuses(
        "out of memory before the first step, with batch=4 and accumulate=1",
        "train",
        "resnet20",
        *data,
        *options,
        status=1,
    )
    short |= {"images": 2, "training": (True,)}
    message = "out of memory with batch=4 and accumulate=1: accumulate=2 makes the same steps"
    refuses(message, "train", "resnet20", *data, *options, status=1)
