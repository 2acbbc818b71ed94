"""Damaged files of every kind: each is read, or refused by name, within seconds and in little memory."""

import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import senet
from senet.data import open_data, open_image
from senet.gates import load_gates
from senet.model_file import load
from senet.recipes import load_recipe
from senet.runs.finished import read_run
from senet.study.plan.plan_file import load_plan
from senet.study.plan.study_file import read_study
from senet.study.reproduction.collect import collect
from senet.training.checkpoint import read_checkpoint
from senet.utils.errors import DataWarning, SenetError
from senet.weights import open_checkpoint
from tests.hostile_files import HostileFile, hostile_files, valid_files

# Seconds and bytes that a reader may take for a file of some kilobytes.
SECONDS, BYTES = 20, 4 * 2**30


def every_image(spec: str) -> None:
    data = open_data(spec)
    for index in range(len(data)):
        data[index]


def read(file: HostileFile, valid: dict[str, Path]) -> Any:
    """Read a file as the commands do, from the boundary on."""
    path = file.path
    readers = {
        "image": lambda: senet.data.Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3).pixels(open_image(path)),
        "tar": lambda: every_image(str(path)),
        "shards": lambda: every_image(f"wds:{path}/train-000000.tar?classes={valid['classes']}"),
        "index": lambda: every_image(f"wds:{path}"),
        "classes": lambda: every_image(f"wds:{valid['shards']}/train-000000.tar?classes={path}"),
        "model": lambda: load(path),
        "weights": lambda: senet.load_weights(senet.create_model("se_resnet20", num_classes=3), path),
        "caffe": lambda: open_checkpoint(path),
        "checkpoint": lambda: read_checkpoint(path / "checkpoint.pt"),
        "recipe": lambda: load_recipe(path),
        "study": lambda: read_study(path),
        "plan": lambda: load_plan(path),
        "run": lambda: read_run(path),
        "report": lambda: collect([path]),
        "gates": lambda: load_gates(path),
    }
    return readers[file.kind]()


@contextmanager
def bounded() -> Iterator[None]:
    """Little time and little memory more than there is in use."""

    def late(*_: object) -> None:
        raise TimeoutError("too slow")

    before, limits = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def problem(file: HostileFile, valid: dict[str, Path]) -> str:
    """What is wrong with how a file was read; empty where all is well."""
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # of files that an index says were passed over
            read(file, valid)
    except (SenetError, ValueError) as error:
        named = file.path.name if file.path.name != "folder" else file.path.parent.name
        # Of a recipe's values the message names the key; of an image the caller adds the file.
        if named not in str(error) and file.kind != "recipe" and not str(error).startswith("resized from"):
            return f"not named: {error!r}"
        return "" if len(str(error)) < 3000 else f"a message of {len(str(error)):,} letters"
    except BaseException as error:
        return repr(error)[:300]
    return "accepted" if file.invalid else ""


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return valid_files(tmp_path_factory.mktemp("valid"))


def test_good_files_are_read(valid: dict[str, Path]) -> None:
    wrong = {kind: problem(HostileFile(kind, "good", path, False), valid) for kind, path in valid.items()}
    assert not any(wrong.values()), wrong


def test_every_damaged_file_is_read_or_refused_by_name(valid: dict[str, Path], tmp_path: Path) -> None:
    some = islice(hostile_files(tmp_path, valid, seed=0, each=1), 0, None, 3)
    found = [(file.kind, file.how, problem(file, valid)) for file in some]
    assert len(found) >= 100
    assert not [one for one in found if one[2]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_damaged_files(seed: int, valid: dict[str, Path], tmp_path: Path) -> None:
    found = [(file.kind, file.how, problem(file, valid)) for file in hostile_files(tmp_path, valid, seed, each=12)]
    assert not [one for one in found if one[2]]
