"""Several processes train as one does; a launch takes seconds, so each has many checks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.training.distributed.processes import Processes
from senet.utils.isolation import package_path
from tests.forked import run_ranks
from tests.helpers import assert_close
from tests.slow import fast_if
from tests.training.exactness import CASES, FAST, train
from tests.training.runs import Notes, assert_same, digits, recipe
from tests.training.scenarios import SYNC, rank_of_two

ROOT = Path(__file__).parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO = ("--standalone", "--nproc-per-node", "2")
RUN = ["se_resnet20", "--data", "digits", "--recipe", "digits", "--set", "warmup=0.5", "--set", "batch=64"]
RUN += ["--set", "resize=16", "--set", "crop_size=16", "--set", "workers=0"]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join((package_path(), str(ROOT)))  # the senet of these tests, wherever another is installed
    return os.environ | {"OMP_NUM_THREADS": "1", "SENET_FUSED": "aten", "PYTHONPATH": path} | more


def launch(processes: int, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a module under torchrun; its worker processes have ended when this does."""
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", str(processes), "-m", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=600)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return senet.load(output / "last.safetensors").state_dict()


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes in one launch, forked: torchrun takes seconds more, and slow tests have it."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks(rank_of_two, (free_port(), folder, "exactness", "whole", "stopped", "spoilt", "refused"))
    return folder


@pytest.fixture(scope="module")
def torchrun_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes that torchrun starts."""
    folder = tmp_path_factory.mktemp("torchrun")
    done = launch(2, "tests.training.scenarios", folder, "more_exactness")
    assert done.returncode == 0, done.stderr
    return folder


def found(folder: Path, name: str) -> tuple[Any, Any]:
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(2))
    return first, second


@pytest.mark.parametrize("name", CASES)
@fast_if(lambda name: name in FAST)
def test_two_processes_follow_one(request: pytest.FixtureRequest, name: str) -> None:
    if name in FAST:
        two, other = found(request.getfixturevalue("folder"), "exactness")
    else:
        two, other = found(request.getfixturevalue("torchrun_folder"), "more_exactness")
    assert all(torch.equal(two[name]["weights"][key], value) for key, value in other[name]["weights"].items())
    one = train(Processes(torch.device("cpu")), **CASES[name])
    for key, value in one["weights"].items():
        assert_close(two[name]["weights"][key], value, 1e-9)
    for (images, wrong, loss), expected in zip(two[name]["counts"], one["counts"], strict=True):
        assert (images, wrong) == expected[:2]
        assert loss == pytest.approx(expected[2], rel=1e-9)
    # Each image of the validation data counts once; 13 of them leave one process without any of the last batch.
    scores, expected = two[name]["scores"], one["scores"]
    assert {key: scores[key] for key in scores if key != "loss"} == {k: expected[k] for k in expected if k != "loss"}
    assert scores["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_the_first_process_writes_and_reports(folder: Path) -> None:
    first, second = found(folder, "whole")
    assert first["epochs"] == second["epochs"] == 3
    assert first["notes"] == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3)]
    assert second["notes"] == []
    assert first["saved"] == [3, 3, 3]  # steps, before each evaluation: torchrun may kill in its middle
    names = ["best.safetensors", "checkpoint.pt", "curves.png", "last.safetensors", "metrics.jsonl"]
    assert sorted(path.name for path in (folder / "whole").iterdir()) == [".lock", *names, "recipe.toml", "run.json"]
    assert [line["epoch"] for line in metrics(folder / "whole")] == [1, 2, 3]
    assert json.loads((folder / "whole" / "run.json").read_text(encoding="utf-8"))["processes"] == 2


def test_a_signal_to_one_process_ends_all_at_the_same_step(folder: Path) -> None:
    first, second = found(folder, "stopped")
    assert first == second
    assert first["first"] == (signal.SIGTERM, 1, 2)
    assert first["other"] == (signal.SIGINT, 0, 2)


def test_as_many_processes_resume_bitwise_identically(folder: Path) -> None:
    assert found(folder, "stopped")[0]["second"] == (None, 3, 0)
    assert_same(folder / "stopped", folder / "whole")


def test_all_see_a_loss_that_is_not_finite_in_one(folder: Path) -> None:
    first, second = found(folder, "spoilt")
    assert first["left out"] == second["left out"] == [1, 0, 0]
    assert first["left out, read late"] == second["left out, read late"] == [1, 0, 0]
    for stop in ("stop", "stop, read late"):
        for kind, message, _ in (first[stop], second[stop]):
            assert kind == "TrainingError"
            assert message.startswith("the loss is nan at step 2 of epoch 1")
        assert (first[stop][2], second[stop][2]) == (False, True)
    assert "checkpoint.pt holds 0 epochs and 1 step" in first["stop, read late"][1]
    assert_same(folder / "skip, read late", folder / "skip")


@pytest.mark.parametrize(
    ("what", "kind", "part"),
    [
        ("data", "DataError", "process 1 of 2: the data '/nowhere' does not exist"),
        ("other data", "ValueError", "process 1 has another training data and validation data than others"),
        ("batch", "ValueError", "a batch of 1 images has none for some of 2 processes; give batch=2 or more"),
        ("used", "ValueError", "is in use: it holds 'else'"),
    ],
)
def test_an_error_before_the_start_is_raised_by_all_and_reported_once(
    folder: Path, what: str, kind: str, part: str
) -> None:
    first, second = (result[what] for result in found(folder, "refused"))
    assert (first[0], second[0]) == (kind, kind)
    assert part in first[1]
    assert (first[2], second[2]) == (False, True)
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_runs_resume_with_another_number_of_processes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "sync stopped", tmp_path / "sync stopped")
    notes = Stop(2, 2)
    run = senet.train("se_resnet20", digits(), recipe(*SYNC), tmp_path / "sync stopped", resume=True, reporter=notes)
    assert (len(run.epochs), run.step) == (1, 2)
    assert "resuming with changed processes: 2 -> 1" in notes.notes
    run_ranks(rank_of_two, (free_port(), tmp_path, "resumed", "synchronized"))
    assert "resuming with changed processes: 1 -> 2" in torch.load(tmp_path / "resumed-0.pt", weights_only=False)
    # As near as rounding lets them be, measured by how far weights have come.
    network = recipe(*SYNC).network
    torch.manual_seed(recipe().seed)
    began = senet.create_model("se_resnet20", num_classes=3, in_channels=len(recipe().mean), **network).state_dict()
    start, end, expected = (
        torch.cat([values[key].flatten().double() for key in began])
        for values in (began, weights(tmp_path / "sync stopped"), weights(tmp_path / "sync"))
    )
    assert (end - expected).norm() < 0.01 * (expected - start).norm()
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("sync stopped", "sync")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Stop(Notes):
    """Sends this process SIGTERM at a step of an epoch, both from 1."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at = (epoch, step)

    def step(self, epoch: int, step: int, *rest: Any) -> None:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


class Launched:
    """A run under torchrun, to which the test does something meanwhile."""

    def __init__(self, output: Path, *options: str, restarts: int = 0, how: Sequence[str] = TWO, log: str = "log"):
        command = [*TORCHRUN, *how, f"--max-restarts={restarts}", "-m", "senet", "train", *RUN, *options]
        self.output, self.log = output, output.parent / log
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "-o", str(output)], env=environment(), stdout=file, stderr=file, start_new_session=True
            )

    def wait_for(self, epochs: int) -> None:
        for _ in range(4000):
            if (self.output / "metrics.jsonl").exists() and len(metrics(self.output)) >= epochs:
                return
            time.sleep(0.05)
        raise AssertionError(self.text)

    def worker(self, rank: int) -> int:
        """The number of a process by its rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [pid for pid in children if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text()]
        return int(found[0])

    def end(self) -> int:
        try:
            return self.process.wait(timeout=300)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_replaced_and_all_resume(tmp_path: Path, rank: int) -> None:
    run = Launched(tmp_path / "run", "--set", "epochs=4", "--set", "checkpoint_every=5", restarts=2)
    run.wait_for(1)
    os.kill(run.worker(rank), signal.SIGKILL)
    assert run.end() == 0, run.text
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    assert "resuming after " in run.text
    assert run.text.count("top-1 error") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_of_two_machines(tmp_path: Path, rank: int) -> None:
    """Each machine has a torchrun, which counts restarts by itself; one is allowed, and is enough."""
    port = free_port()
    how = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "one")
    how = (*how, "--rdzv-endpoint", f"127.0.0.1:{port}")
    options = ("--set", "epochs=4", "--set", "checkpoint_every=5", "--timeout", "60")
    runs = [Launched(tmp_path / "run", *options, restarts=1, how=how, log=f"log{n}") for n in range(2)]
    runs[0].wait_for(1)
    killed = 0
    for run in runs:
        with suppress(IndexError):
            os.kill(run.worker(rank), signal.SIGKILL)
            killed += 1
    assert killed == 1
    assert [run.end() for run in runs] == [0, 0], [run.text for run in runs]
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    text = "".join(run.text for run in runs)
    assert "resuming after " in text
    assert "do not find each other" not in text


@pytest.mark.slow
def test_restarts_do_not_undo_a_refusal(tmp_path: Path) -> None:
    first = Launched(tmp_path / "run", "--set", "epochs=1", "--set", "warmup=0.25", how=("--standalone",))
    assert first.end() == 0, first.text
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    again = Launched(tmp_path / "run", "--set", "epochs=2", restarts=1)
    assert again.end() == 1
    assert again.text.count("is in use: add --resume to resume its run, or choose another folder") == 2
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.slow
def test_a_process_that_does_not_answer_ends_the_run(tmp_path: Path) -> None:
    run = Launched(tmp_path / "run", "--set", "epochs=50", "--timeout", "4")
    run.wait_for(1)
    os.kill(run.worker(1), signal.SIGSTOP)
    assert run.end() == 1
    (error,) = errors(run.text)
    assert "a process did not answer within 4 s" in error
    assert "--resume continues from there" in error
    assert "exitcode  : 1 " in run.text


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun", "terminal"])
def test_a_signal_to_all_saves(tmp_path: Path, how: str) -> None:
    run = Launched(tmp_path / "run", "--set", "epochs=50")
    run.wait_for(1)
    if how == "torchrun":
        os.kill(run.process.pid, signal.SIGTERM)
    else:
        os.killpg(run.process.pid, signal.SIGINT)  # and torchrun sends its processes another one
    assert run.end() != 0
    assert run.text.count("interrupted after ") == 1
    assert "which are saved" in run.text


@pytest.mark.slow
def test_an_invalid_command_is_reported_once() -> None:
    done = launch(2, "senet", "train", *RUN, "--set", "nosuch=1", "-o", "/nowhere/run")
    assert len(errors(done.stderr)) == 1
    assert "unknown key 'nosuch'" in done.stderr
    assert done.stderr.count("exitcode  : 2 ") == 2
