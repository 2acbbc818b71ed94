"""Runs whose batches are made on the device: the same bits as batches of the host, resumed or not. The CPU stands in
for a GPU as the device, which shows all but streams and speed."""

from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.data import preprocessing
from senet.data.loading import factory
from senet.training import loaders
from tests.slow import fast_if
from tests.training.runs import KillAt, Killed, Notes, assert_same, run
from tests.training.small import small_trainer, steps

RECIPES: dict[str, tuple[str, ...]] = {
    "averaged, mixed, in parts": ("epochs=1", "ema=0.9", "mixup=0.4", "cutmix=1.0", "accumulate=3"),
    "balanced": ("epochs=1", "sampling=balanced", "class_weights=balanced"),
    "areas": ("epochs=1", "crop=area"),
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The CPU as the device that batches are made on, from the call on."""
    return lambda: monkeypatch.setattr(loaders, "batch_device", lambda device: torch.device("cpu"))


@pytest.mark.parametrize("name", RECIPES)
@fast_if(lambda name: name == "averaged, mixed, in parts")
def test_runs_are_those_of_the_host(tmp_path: Path, device: Any, name: str) -> None:
    notes = Notes()
    run(tmp_path / "host", *RECIPES[name], reporter=notes)
    assert not [note for note in notes.notes if " data: " in note]
    device()
    run(tmp_path / "device", *RECIPES[name])
    assert_same(tmp_path / "device", tmp_path / "host")


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_and_resumed_there(tmp_path: Path, device: Any) -> None:
    settings = ("epochs=2", "checkpoint_every=2")
    run(tmp_path / "host", *settings)
    device()
    with pytest.raises(Killed):
        run(tmp_path / "run", *settings, reporter=KillAt(2, 3))
    run(tmp_path / "run", *settings, resume=True)
    assert_same(tmp_path / "run", tmp_path / "host")


def test_a_run_says_where_its_data_are(tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there, full = Notes(), Notes()
    device()
    run(tmp_path / "there", "epochs=1", "resize=32", "crop_size=32", reporter=there)
    monkeypatch.setattr(factory, "keep_on_device", lambda *_: None)
    run(tmp_path / "full", "epochs=1", "resize=32", "crop_size=32", reporter=full)
    # 3 channels of 32x32 pixels and a label of 8 bytes.
    megabytes = f"{24 * (3 * 32 * 32 + 8) / 1e6:.1f} MB"
    assert f"training data: 24 images kept on cpu as 8-bit pixels ({megabytes})" in there.notes
    assert any(note.startswith("validation data: 24 images kept on cpu") for note in there.notes)
    assert "training data: copied to cpu from pinned memory, one batch ahead" in full.notes


def test_a_step_keeps_the_tensors_that_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph of it reads them by address, whatever caches keep."""
    trainer = small_trainer()
    monkeypatch.setattr(preprocessing, "_scale", None)
    steps(trainer)
    assert trainer.state.step == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_on_a_gpu_keeps_its_data_there(tmp_path: Path) -> None:
    notes = Notes()
    found = run(tmp_path / "run", "device=cuda", reporter=notes)
    assert any(note.startswith("training data: 24 images kept on cuda") for note in notes.notes)
    assert isinstance(found, senet.runs.Run)
    assert len(found.epochs) == 3
