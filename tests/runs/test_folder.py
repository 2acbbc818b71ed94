import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from senet.recipes import load_recipe
from senet.runs import folder
from senet.runs.folder import RunFolder
from senet.runs.publishing import is_published
from senet.utils.errors import FolderInUseError
from tests import forked
from tests.helpers import shallow_resnet20


def lock(output: Path, mark: Path) -> None:
    with RunFolder(output).locked():
        mark.touch()
        time.sleep(60)


@contextmanager
def another_run(output: Path) -> Iterator[BaseProcess]:
    """While it lasts, another process keeps a folder locked."""
    mark = output.with_name("locked")
    process = forked.start(lock, output, mark)
    while not mark.exists():
        assert process.is_alive()
        time.sleep(0.01)
    yield process
    process.join()


def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_PATIENCE", 0.5)
    with another_run(tmp_path / "run") as process:
        with pytest.raises(ValueError, match="another run is writing to .*run: wait for it, or choose another folder"):
            RunFolder(tmp_path / "run").locked().__enter__()
        process.kill()
    with RunFolder(tmp_path / "run").locked():  # a dead process holds no lock
        pass


def test_within_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_PATIENCE", 0.2)
    with RunFolder(tmp_path).locked(), pytest.raises(ValueError, match="another run is writing") as caught:
        RunFolder(tmp_path).locked().__enter__()
    assert isinstance(caught.value, FolderInUseError)
    assert caught.value.folder == tmp_path
    again = pickle.loads(pickle.dumps(caught.value))  # as from another process of a pool
    assert (type(again), str(again), again.folder) == (FolderInUseError, str(caught.value), tmp_path)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    for name in (".checkpoint-ab12_x9z.pt", ".curves-00000000.png", ".mine.txt", ".keep-short.pt", "a-abcd1234.pt"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path).locked():
        left = sorted(os.listdir(tmp_path))
    assert left == [".keep-short.pt", ".lock", ".mine.txt", "a-abcd1234.pt"]


def test_a_new_folder_in_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder(tmp_path / "new").locked():
        raise KeyError
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyError), RunFolder(tmp_path / "old").locked():
        raise KeyError
    assert (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("there", "resume", "expected"),
    [
        (None, False, False),
        (None, True, False),
        ((), False, False),
        (("recipe.toml", "run.json", ".lock", "tensorboard"), False, False),
        ((".checkpoint-abcd1234.pt",), True, False),
        (("checkpoint.pt", "metrics.jsonl"), True, True),
        (("checkpoint.pt",), False, "is in use: add --resume to resume its run, or choose another folder"),
        (("metrics.jsonl", "recipe.toml"), True, "it holds 'metrics.jsonl', and no checkpoint.pt to resume"),
        (("photo.jpg",), False, "it holds 'photo.jpg', and no checkpoint.pt"),
    ],
)
def test_whether_a_run_resumes(tmp_path: Path, there: Any, resume: bool, expected: bool | str) -> None:
    output = tmp_path / "run"
    if there is not None:
        output.mkdir()
        for name in there:
            (output / name).touch()
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            RunFolder(output).find_checkpoint(resume)
    else:
        assert RunFolder(output).find_checkpoint(resume) is expected


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is in use: it is a file; choose another name, or remove it"):
        RunFolder(tmp_path / "file").find_checkpoint(True)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, quick_curves: None) -> Path:
    """A run of two epochs, made once; curves take half of its time."""
    from tests.training.runs import run

    output = tmp_path_factory.mktemp("complete") / "run"
    with shallow_resnet20():
        run(output, "epochs=2")
    return output


@pytest.mark.parametrize("damage", ["cut", "garbage", "nan", "more"])
def test_damaged_metrics_are_written_again(tmp_path: Path, complete: Path, damage: str) -> None:
    """Resuming a complete run writes them from its checkpoint."""
    from tests.training.runs import run

    shutil.copytree(complete, tmp_path, dirs_exist_ok=True)
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text()
    one, two = whole.splitlines(keepends=True)
    error = json.loads(two)["top1_error"]
    damaged = {
        "cut": one + two[:40],
        "garbage": "x\n" + two,
        "nan": one + two.replace(f'"top1_error": {error}', '"top1_error": NaN'),
        "more": whole + two.replace('"epoch": 2', '"epoch": 3'),
    }[damage]
    assert damaged != whole
    metrics.write_text(damaged)
    assert not is_published(RunFolder(tmp_path), load_recipe(tmp_path / "recipe.toml"))
    with shallow_resnet20():
        run(tmp_path, "epochs=2", resume=True)
    assert metrics.read_text() == whole
    assert is_published(RunFolder(tmp_path), load_recipe(tmp_path / "recipe.toml"))


@pytest.mark.usefixtures("quick_curves")
def test_best_is_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without links it is copied."""
    from tests.training.runs import result, run

    with shallow_resnet20():
        run(tmp_path / "linked")
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("no links here")))
        run(tmp_path / "copied")
        assert result(tmp_path / "linked")[1] == result(tmp_path / "copied")[1]
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (tmp_path / "linked" / path).read_bytes() == (tmp_path / "copied" / path).read_bytes()
