import errno
import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from senet import ModelFileError, TrainingError
from senet.data import open_data
from senet.training import checkpoint
from senet.training.checkpoint import FORMAT, read_checkpoint, write_checkpoint
from tests.data.coco_sets import content, rewrite, write_coco
from tests.images import write_classes
from tests.training.runs import KillAt, Killed, assert_same, recipe, run
from tests.training.small import small_trainer


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its second epoch."""
    torch.manual_seed(0)
    output = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        run(output, "checkpoint_every=1", reporter=KillAt(2, 2))
    return output


@pytest.fixture
def stopped(killed: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def test_holds_all_that_decides_how_training_continues(stopped: Path) -> None:
    found = read_checkpoint(stopped / "checkpoint.pt")
    assert set(found["state"]) == {
        *("model", "ema", "optimizer", "scaler", "epochs", "skipped"),
        *("step", "images", "wrong", "learned", "left_out", "loss_sum", "seconds", "lr"),
    }
    assert len(found["state"]["epochs"]) == 1
    assert found["state"]["step"] == 1
    assert found["identity"]["recipe"]["lr"] == recipe().lr


class Hostile:
    """What a stranger's file might hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def cut(text: bytes) -> bytes:
    return text[: len(text) // 2]


def flip_bits(text: bytes) -> bytes:
    """Damage in the middle of a tensor: sizes and headers are unchanged."""
    middle = len(text) // 2
    return text[:middle] + bytes(byte ^ 255 for byte in text[middle : middle + 64]) + text[middle + 64 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "is truncated or damaged"),
        (flip_bits, "is truncated or damaged .the checksum of its part .*/data/.* is wrong"),
        (lambda text: b"", "is truncated or damaged"),
        (lambda text: b"no checkpoint", "is truncated or damaged"),
        (lambda text: pickle.dumps({"format": 1}), "is truncated or damaged"),
    ],
    ids=["truncated", "flipped bits", "empty", "text", "a pickle"],
)
def test_damaged(stopped: Path, spoil: Any, message: str) -> None:
    path = stopped / "checkpoint.pt"
    spoilt = spoil(path.read_bytes())
    path.write_bytes(spoilt)
    with pytest.raises(
        ModelFileError,
        match=f"the checkpoint .*checkpoint.pt ({message}).*: replace it by a copy, or start again in another",
    ):
        run(stopped, "checkpoint_every=1", resume=True)
    assert path.read_bytes() == spoilt  # and nothing else was written over it


@pytest.mark.parametrize("where", ["the whole", "a part", "the identity"])
def test_hostile(stopped: Path, tmp_path: Path, where: str) -> None:
    path, trap = stopped / "checkpoint.pt", Hostile(tmp_path / "trap")
    good = torch.load(path, weights_only=True)
    torch.save(
        {"the whole": trap, "a part": good | {"state": trap}, "the identity": good | {"identity": trap}}[where], path
    )
    with pytest.raises(ModelFileError, match="holds more than tensors and text, and is not loaded"):
        run(stopped, "checkpoint_every=1", resume=True)
    assert not trap.path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["model"].pop("conv1.weight"),
        lambda state: state["model"].update({"conv1.weight": torch.zeros(1)}),
        lambda state: state.pop("optimizer"),
        lambda state: state["optimizer"].update(param_groups=[]),
        lambda state: state.update(step="x"),
        lambda state: state.update(epochs=[{"epoch": 1}]),
        lambda state: state.update(epochs=7),
    ],
)
def test_does_not_fit(stopped: Path, change: Any) -> None:
    path = stopped / "checkpoint.pt"
    good = torch.load(path, weights_only=True)
    change(good["state"])
    torch.save(good, path)
    with pytest.raises(ModelFileError, match="the checkpoint .* (does not fit this run: |is truncated or damaged)"):
        run(stopped, "checkpoint_every=1", resume=True)


def test_of_a_newer_senet(stopped: Path) -> None:
    path = stopped / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | {"format": FORMAT + 1, "version": "99.0"}, path)
    with pytest.raises(ModelFileError, match="was written by senet 99.0: upgrade senet to resume it"):
        run(stopped, "checkpoint_every=1", resume=True)


def test_is_a_plain_zip_of_tensors_and_text(stopped: Path) -> None:
    """So that other programs can look into it, too."""
    with zipfile.ZipFile(io.BytesIO((stopped / "checkpoint.pt").read_bytes())) as archive:
        assert archive.testzip() is None


def test_disk_that_fills_up_in_a_save(tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch reports it as a RuntimeError; the previous checkpoint stays, and the run resumes from it."""
    before = (stopped / "checkpoint.pt").read_bytes()
    save = torch.save

    def full(value: Any, file: Any) -> None:
        save(value, file)
        file.truncate(1000)
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")  # noqa: B904

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        message = "No space left on device: .*run/checkpoint.pt'; .*checkpoint.pt holds 1 epoch and 1 step"
        with pytest.raises(TrainingError, match=message):
            run(stopped, "checkpoint_every=1", resume=True)
    assert (stopped / "checkpoint.pt").read_bytes() == before
    assert not list(stopped.glob(".checkpoint*"))
    run(stopped, "checkpoint_every=1", resume=True)
    run(tmp_path / "whole", "checkpoint_every=1")
    assert_same(stopped, tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, which not everybody may mount."""
    where = tmp_path / "small"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(where)]
    if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    """The first checkpoint takes 0.6 MB with its optimizer's; it is the real file system that says no."""
    with pytest.raises(TrainingError, match=r"No space left on device: .*run/checkpoint.pt'; .*nothing is saved"):
        run(small_disk / "run")
    assert shutil.disk_usage(small_disk).used < 100_000  # nothing half-written is left in the way
    assert not (small_disk / "run" / "checkpoint.pt").exists()


def test_folder_that_is_read_only(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match="Read-only file system") as caught:
        run(small_disk / "run")
    assert caught.value.errno == errno.EROFS


def test_fingerprint_identifies_data_wherever_they_are(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write_classes(tmp_path / name, {"cat": 3, "dog": 2})
    here, there = (checkpoint._fingerprint(open_data(str(tmp_path / name))) for name in ("here", "there"))
    assert here == there
    assert (here["images"], here["classes"]) == (5, 2)
    (tmp_path / "there" / "cat" / "0.png").rename(tmp_path / "there" / "cat" / "9.png")
    assert checkpoint._fingerprint(open_data(str(tmp_path / "there"))) != here


def test_fingerprint_identifies_boxes(tmp_path: Path) -> None:
    """Labels of images with boxes are the categories alone."""
    root, whole = write_coco(tmp_path / "set"), content(5)
    before = checkpoint._fingerprint(open_data(f"coco:{root}", "train"))
    whole["annotations"][0]["bbox"][0] += 0.5
    rewrite(root, whole)
    assert checkpoint._fingerprint(open_data(f"coco:{root}", "train")) != before


def test_a_process_of_its_own_reads_it(stopped: Path) -> None:
    """Neither the class nor the module of anything in it is needed."""
    program = f"import torch; print(sorted(torch.load({str(stopped / 'checkpoint.pt')!r}, weights_only=True)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['format', 'identity', 'state', 'version']"


@pytest.mark.parametrize("key", ["epochs", "skipped", "step"])
def test_checkpoint_that_lacks_what_is_read_first(tmp_path: Path, key: str) -> None:
    """A KeyError came out of the comparison of runs."""
    path = tmp_path / "checkpoint.pt"
    trainer = small_trainer()
    write_checkpoint(trainer, {name: {} for name in ("network", "recipe", "training data", "validation data")}, path)
    found = torch.load(path, weights_only=True)
    assert read_checkpoint(path)["state"].keys() == found["state"].keys()
    del found["state"][key]
    torch.save(found, path)
    with pytest.raises(ModelFileError, match=f"checkpoint .*checkpoint.pt is truncated or damaged .it lacks '{key}'"):
        read_checkpoint(path)
