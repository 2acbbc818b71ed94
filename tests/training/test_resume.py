"""A run that was stopped, at whatever moment and in whatever way, comes to the same bits as one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet import TrainingError
from senet.data import Loader
from senet.nn.fused import backends
from senet.runs import RunFolder
from senet.tasks.classification import task as classification
from senet.training import runner
from tests.images import corrupt_jpeg, write_classes
from tests.slow import fast_if
from tests.training.runs import KillAt, Killed, Notes, assert_same, digits, recipe, refusing, run

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")

ROOT = Path(__file__).parent.parent.parent
# Each is something that has a state of its own, or draws numbers.
RECIPES = {
    "plain": (),
    "checkpoints within epochs": ("checkpoint_every=2",),
    "averaged, mixed, in parts": ("checkpoint_every=2", "ema=0.9", "mixup=0.4", "cutmix=1.0", "accumulate=3"),
    "workers": ("checkpoint_every=1", "workers=2", "randaugment=rand-m5-mstd0.5"),
    "bf16": ("checkpoint_every=2", "precision=bf16"),
    "fp16": ("checkpoint_every=2", "precision=fp16"),
    "plateau": ("schedule=plateau", "patience=0", "warmup=0", "checkpoint_every=2"),
    "frozen batch norms": ("freeze_bn_epochs=2", "lr=0.001", "checkpoint_every=2"),
    "AdamW": ("optimizer=adamw", "nesterov=false", "lr=0.001", "checkpoint_every=2"),
    "balanced": ("sampling=balanced", "class_weights=balanced", "checkpoint_every=2"),
    "SE alone": ("train_only=se", "network.init=identity", "checkpoint_every=2"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that were never stopped, each made once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "run"
            run(made[name], *RECIPES[name])
        return made[name]

    return of


# In the middle of an epoch, and after the last step of one.
EARLY = ("plain", "checkpoints within epochs", "averaged, mixed, in parts", "workers")
MOMENTS = [(name, (2, 3)) for name in RECIPES] + [(name, (1, 2)) for name in EARLY]
# Momentum, averages and random numbers.
FAST = [("averaged, mixed, in parts", (1, 2)), ("plain", (2, 3))]


@pytest.mark.parametrize(("name", "at"), MOMENTS, ids=str)
@fast_if(lambda name, at: (name, at) in FAST)
def test_killed_at_a_step(tmp_path: Path, whole: Any, name: str, at: tuple[int, int]) -> None:
    output = tmp_path / "run"
    with pytest.raises(Killed):
        run(output, *RECIPES[name], reporter=KillAt(*at))
    run(output, *RECIPES[name], resume=True)
    assert_same(output, whole(name))


@pytest.mark.slow
def test_killed_with_a_compiled_network(tmp_path: Path, traced: None) -> None:
    settings = ("compile=true", "checkpoint_every=2")
    run(tmp_path / "whole", *settings)
    with pytest.raises(Killed):
        run(tmp_path / "run", *settings, reporter=KillAt(2, 3))
    run(tmp_path / "run", *settings, resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize(
    "file", ["checkpoint.pt", "last.safetensors", "best.safetensors", "metrics.jsonl", "curves.png"]
)
@fast_if(lambda file, epoch: epoch == (1 if file == "best.safetensors" else 2))
def test_killed_in_the_middle_of_a_save(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch, file: str, epoch: int
) -> None:
    output, name = tmp_path / "run", "plain"
    monkeypatch.setattr(runner, "_DRAWING", float("inf"))  # curves after each epoch, however short it is

    class FromThen(Notes):
        def step(self, number: int, *rest: Any) -> None:
            if number == epoch:
                monkeypatch.setattr(Path, "replace", refusing([file]))

    # An epoch that is not the best writes no best.safetensors.
    written = file != "best.safetensors" or epoch == 1
    with pytest.raises(Killed) if written else nullcontext():
        run(output, *RECIPES[name], reporter=FromThen())
    monkeypatch.undo()
    if written:
        (output / ".last-abcd1234.safetensors").write_bytes(b"what a killed process leaves")
    run(output, *RECIPES[name], resume=True)
    assert_same(output, whole(name))


@pytest.mark.slow
def test_killed_in_an_evaluation(tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(classification, "evaluate_loader", killed)
        for _ in range(2):  # and once more, in the same place
            with pytest.raises(Killed):
                run(tmp_path / "run", *RECIPES["checkpoints within epochs"], resume=True)
    run(tmp_path / "run", *RECIPES["checkpoints within epochs"], resume=True)
    assert_same(tmp_path / "run", whole("checkpoints within epochs"))


class Signalled(Notes):
    """A signal comes at a step of an epoch; another one after it, if asked for."""

    def __init__(self, epoch: int, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.at, self.number = (epoch, step), number

    def step(self, epoch: int, step: int, *rest: Any) -> None:
        super().step(epoch, step)
        if (epoch, step) == self.at:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def catchable() -> Any:
    """A shell that runs the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("catchable")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [(1, 1), (1, 3), (2, 2)], ids=str)
@fast_if(lambda at, number: (at, number) == ((1, 3), signal.SIGINT))
def test_a_signal_saves_at_the_next_step(tmp_path: Path, whole: Any, at: tuple[int, int], number: int) -> None:
    output, handlers = tmp_path / "run", [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    reporter = Signalled(*at, number=number)
    stopped = run(output, *RECIPES["plain"], reporter=reporter)
    assert reporter.steps[-1] == at  # no step more
    assert (stopped.signal, len(stopped.epochs), stopped.step) == (number, at[0] - 1, at[1])
    assert stopped.interrupted
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    notes = Notes()
    assert run(output, *RECIPES["plain"], resume=True, reporter=notes).signal is None
    assert notes.notes[0].startswith(f"resuming after {at[0] - 1} epoch")
    assert notes.steps[0] == ((at[0], at[1] + 1) if at[1] < 3 else (at[0] + 1, 1))
    assert_same(output, whole("plain"))


@pytest.mark.usefixtures("catchable")
def test_a_signal_during_evaluation(tmp_path: Path, whole: Any) -> None:
    class Evaluating(Notes):
        def progress(self, steps: Any, total: int, what: str) -> Any:
            if what.startswith("evaluate"):
                os.kill(os.getpid(), signal.SIGTERM)
            return steps

    stopped = run(tmp_path / "run", *RECIPES["plain"], reporter=Evaluating())
    assert (stopped.signal, len(stopped.epochs), stopped.step) == (signal.SIGTERM, 0, 3)
    run(tmp_path / "run", *RECIPES["plain"], resume=True)
    assert_same(tmp_path / "run", whole("plain"))


def test_signals_belong_to_the_main_thread(tmp_path: Path, whole: Any) -> None:
    thread = threading.Thread(target=run, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert_same(tmp_path / "run", whole("plain"))


def test_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stopped = run(tmp_path / "run", "epochs=1", reporter=Signalled(1, 1, number=signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.signal is None


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.name != "curves.png"}
    notes = Notes()
    again = run(tmp_path / "run", resume=True, reporter=notes)
    assert again.epochs == first.epochs
    assert notes.notes == ["this run is complete, with 3 epochs"]
    assert not notes.steps
    assert {path: path.read_bytes() for path in files} == files
    for path in files:
        path.chmod(0o444)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "locked", None)  # nothing is written, as on a disk that is read-only
        run(tmp_path / "run", resume=True)


@pytest.mark.parametrize("made", ["nothing", "empty folder", "recipe alone"])
def test_resume_without_a_checkpoint_starts(tmp_path: Path, whole: Any, made: str) -> None:
    output = tmp_path / "run"
    if made != "nothing":
        output.mkdir()
    if made == "recipe alone":
        (output / "recipe.toml").write_text("# of a run that was killed before its first checkpoint\n")
    run(output, resume=True)
    assert_same(output, whole("plain"))


@pytest.mark.slow
def test_more_epochs_where_the_schedule_allows(tmp_path: Path) -> None:
    step = ("schedule=step", "warmup=0", "milestones=[1]")
    run(tmp_path / "long", *step, "epochs=4")
    run(tmp_path / "run", *step, "epochs=2")
    notes = Notes()
    run(tmp_path / "run", *step, "epochs=4", resume=True, reporter=notes)
    assert notes.notes == ["resuming with changed epochs: 2 -> 4", "resuming after 2 epochs"]
    assert_same(tmp_path / "run", tmp_path / "long")


def test_what_does_not_decide_the_result_may_change(
    tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for device in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(device, "is_available", lambda: False)
    with pytest.raises(Killed):
        run(tmp_path / "run", "device=auto", reporter=KillAt(2, 2))
    notes = Notes()
    run(tmp_path / "run", "workers=1", "checkpoint_every=1", "device=cpu", resume=True, reporter=notes)
    assert set(notes.notes[:3]) == {
        "resuming with changed workers: 0 -> 1",
        "resuming with changed checkpoint_every: 0 -> 1",
        'resuming with changed device: "auto" -> "cpu"',
    }
    assert_same(tmp_path / "run", whole("plain"))


def test_refuses_to_resume_a_changed_run(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(output, "epochs=2", network="se_resnet20")
    before = {path: path.read_bytes() for path in output.iterdir()}

    def refuses(message: str, *settings: str, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run(output, *(settings or ("epochs=2",)), resume=True, **options)

    refuses(r"cannot resume a changed run: recipe.lr was 0.05 and is 0.1\.", "epochs=2", "lr=0.1")
    refuses('network.name was "resnet20" and is "resnet32"', network="se_resnet32")
    refuses("network.se was .* and is", network="resnet20")
    refuses("recipe.network.reduction was missing and is 8", "epochs=2", "network.reduction=8")
    refuses("epochs was 2 and is 3: the schedule 'one_cycle' depends on the number of epochs", "epochs=3")
    for images, what in ((9, "training data.images was 24 and is 27"), (8, "validation data.names and labels")):
        splits = digits(images=images)
        if images == 8:
            splits = (splits[0], splits[1].subset(splits[1].labels.argsort()[::-1].copy()))
        with pytest.raises(ValueError, match=what):
            senet.train("se_resnet20", splits, recipe("epochs=2"), output, resume=True)
    with pytest.raises(ValueError, match="is in use: add --resume to resume its run, or choose another folder"):
        run(output, "epochs=2")
    assert {path: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.slow
def test_refuses_fewer_epochs_and_a_schedule_that_has_ended(tmp_path: Path) -> None:
    step = ("schedule=step", "warmup=0", "lr=0.001")
    run(tmp_path / "run", *step)
    with pytest.raises(ValueError, match="epochs was 3 and is 2: 3 epochs are done already; give that many, or more"):
        run(tmp_path / "run", *step, "epochs=2", resume=True)
    run(tmp_path / "frozen", *step, "freeze_bn_epochs=1")
    with pytest.raises(ValueError, match="the last 1 epochs, with frozen batch norms, have begun; keep epochs=3"):
        run(tmp_path / "frozen", *step, "freeze_bn_epochs=1", "epochs=4", resume=True)


@pytest.mark.slow
def test_a_network_that_was_given_built_resumes(tmp_path: Path) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(5)
        return senet.insert(senet.create_model("resnet20", num_classes=3), "post")

    settings = replace(recipe(), network={})
    senet.train(network(), digits(), settings, tmp_path / "whole")
    with pytest.raises(Killed):
        senet.train(network(), digits(), settings, tmp_path / "run", reporter=KillAt(2, 2))
    model = network()
    senet.train(model, digits(), settings, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")
    saved = senet.load(tmp_path / "run" / "last.safetensors").state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 8, "dog": 8}, ".jpg")
    return tmp_path / "data"


# Crops of random area are decoded anew each epoch.
AREA = ("crop=area", "memory=0", "batch=4", "workers=2", "checkpoint_every=1")


@pytest.mark.slow
def test_an_image_that_turns_unreadable(tmp_path: Path, pictures: Path) -> None:
    output = tmp_path / "run"
    senet.train("resnet20", str(pictures), recipe(*AREA), tmp_path / "whole")
    good = (pictures / "train" / "dog" / "3.jpg").read_bytes()

    class Spoils(Notes):
        def epoch(self, *args: Any) -> None:
            (pictures / "train" / "dog" / "3.jpg").write_bytes(corrupt_jpeg())

    with pytest.raises(
        TrainingError, match=r"dog/3.jpg.*--skip-bad; .*checkpoint.pt holds 1 epoch.*--resume continues"
    ):
        senet.train("resnet20", str(pictures), recipe(*AREA), output, reporter=Spoils())
    (pictures / "train" / "dog" / "3.jpg").write_bytes(good)
    senet.train("resnet20", str(pictures), recipe(*AREA), output, resume=True)
    assert_same(output, tmp_path / "whole")


@pytest.mark.slow
def test_a_worker_that_is_killed(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, marker = tmp_path / "run", tmp_path / "kill"
    senet.train("resnet20", str(pictures), recipe(*AREA), tmp_path / "whole")
    read = senet.ImageData.__getitem__

    def dies(self: senet.ImageData, index: int) -> Any:
        if marker.exists() and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    class Marks(Notes):
        def epoch(self, *args: Any) -> None:
            marker.touch()

    monkeypatch.setattr(senet.ImageData, "__getitem__", dies)
    with pytest.raises(TrainingError, match=r"a process that reads images died .*try fewer workers.*holds 1 epoch"):
        senet.train("resnet20", str(pictures), recipe(*AREA), output, reporter=Marks())
    marker.unlink()
    senet.train("resnet20", str(pictures), recipe(*AREA), output, resume=True)
    assert_same(output, tmp_path / "whole")


def test_images_that_turn_unreadable_while_it_is_stopped(tmp_path: Path, pictures: Path) -> None:
    """It was another run then: another number of images, another order, and not a word."""
    settings = recipe("batch=4", "epochs=2")
    with pytest.raises(Killed):
        senet.train("resnet20", str(pictures), settings, tmp_path / "run", reporter=KillAt(2, 2), skip_bad=True)
    (pictures / "train" / "dog" / "3.jpg").write_bytes(corrupt_jpeg())
    with pytest.raises(ValueError, match=r"images left out.training data was \[\] and is \[\"3.jpg\"\]"):
        senet.train("resnet20", str(pictures), settings, tmp_path / "run", resume=True, skip_bad=True)


@pytest.mark.parametrize("made_before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_folder_that_is_removed(tmp_path: Path, made_before: bool) -> None:
    class Removes(Notes):
        def step(self, epoch: int, *rest: Any) -> None:
            if epoch == 2:
                shutil.rmtree(tmp_path / "run", ignore_errors=True)

    if made_before:
        (tmp_path / "run").mkdir()
    with pytest.raises(TrainingError, match="there is no folder .*checkpoint.pt is missing; saved progress is lost"):
        run(tmp_path / "run", reporter=Removes())


def test_of_a_senet_that_had_fewer_keys(tmp_path: Path, whole: Any) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", reporter=KillAt(2, 2))
    path = tmp_path / "run" / "checkpoint.pt"
    found = torch.load(path, weights_only=True)
    identity = json.loads(found["identity"])
    del identity["recipe"]["mixup"], identity["recipe"]["memory"]
    torch.save(found | {"identity": json.dumps(identity)}, path)
    run(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole("plain"))


@pytest.mark.slow
def test_other_rounding_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", reporter=KillAt(2, 2))
    path = tmp_path / "run" / "checkpoint.pt"
    found = torch.load(path, weights_only=True)
    identity = json.loads(found["identity"])
    identity["rounding"] = {"torch": "2.9.0", "threads": 7}
    torch.save(found | {"identity": json.dumps(identity)}, path)
    notes = Notes()
    run(tmp_path / "run", resume=True, reporter=notes)
    assert notes.notes[:2] == [
        f'resuming with changed torch: "2.9.0" -> "{torch.__version__}"',
        f"resuming with changed threads: 7 -> {torch.get_num_threads()}",
    ]


def _stopped(folder: Path, *settings: str) -> dict[str, Any]:
    """Kill a run in its second epoch; what its checkpoint records of rounding."""
    with pytest.raises(Killed):
        run(folder, *settings, reporter=KillAt(2, 2))
    found: dict[str, Any] = json.loads(torch.load(folder / "checkpoint.pt", weights_only=True)["identity"])["rounding"]
    return found


def _notes_of_resuming(folder: Path, *settings: str) -> list[str]:
    notes = Notes()
    run(folder, *settings, resume=True, reporter=notes)
    return notes.notes


NOT_BITWISE = "the result will not be bitwise identical to an uninterrupted run"


def test_another_way_to_fuse_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `set_fused`, or `SENET_FUSED`: the maps of this run are too small for "auto" to fuse any."""
    monkeypatch.setitem(backends._state, "choice", "auto")
    assert _stopped(tmp_path / "run")["fused"] == "off"
    monkeypatch.setitem(backends._state, "choice", "aten")
    assert _notes_of_resuming(tmp_path / "run")[:2] == ['resuming with changed fused: "off" -> "aten"', NOT_BITWISE]


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" fuses one of three maps here, by what it finds; a choice that computes the same is no change."""
    monkeypatch.setitem(backends._state, "choice", "auto")
    monkeypatch.setattr(backends, "SMALLEST", 25_000)
    monkeypatch.setitem(backends._selected, ("auto", torch.device("cpu")), "aten")
    assert _stopped(tmp_path / "run")["fused"] == "aten, 1 of 3 batch norms"
    shutil.copytree(tmp_path / "run", tmp_path / "same")
    monkeypatch.setattr(backends, "SMALLEST", 50_000)
    assert _notes_of_resuming(tmp_path / "run")[0] == 'resuming with changed fused: "aten, 1 of 3 batch norms" -> "off"'
    monkeypatch.setattr(backends, "SMALLEST", 17_000)
    assert _notes_of_resuming(tmp_path / "same") == ["resuming after 1 epoch"]


@pytest.mark.parametrize(
    ("entry", "before"),
    [("device", "Another Processor, AVX2"), ("pillow", "1.0"), ("senet", "0.0.9"), ("float32 products", "bf16")],
)
@fast_if(lambda entry: entry == "device")
def test_other_hardware_versions_and_switches_are_reported(tmp_path: Path, entry: str, before: str) -> None:
    now = _stopped(tmp_path / "run")[entry]
    path = tmp_path / "run" / "checkpoint.pt"
    found = torch.load(path, weights_only=True)
    identity = json.loads(found["identity"])
    identity["rounding"][entry] = before
    torch.save(found | {"identity": json.dumps(identity)}, path)
    expected = [f"resuming with changed {entry}: {json.dumps(before)} -> {json.dumps(now)}", NOT_BITWISE]
    assert _notes_of_resuming(tmp_path / "run")[:2] == expected


def test_a_checkpoint_that_records_less_is_resumed_without_a_note(tmp_path: Path, whole: Any) -> None:
    """As of version 0.1, which knew of torch, threads and processes alone."""
    recorded = _stopped(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    found = torch.load(path, weights_only=True)
    identity = json.loads(found["identity"])
    identity["rounding"] = {key: recorded[key] for key in ("torch", "threads", "processes")}
    torch.save(found | {"identity": json.dumps(identity)}, path)
    assert _notes_of_resuming(tmp_path / "run") == ["resuming after 1 epoch"]
    assert_same(tmp_path / "run", whole("plain"))


def test_areas_of_images_in_memory(tmp_path: Path, pictures: Path) -> None:
    """Decoded once, or in each epoch: the same run."""
    area = ("crop=area", "batch=4", "epochs=2")
    senet.train("resnet20", str(pictures), recipe(*area), tmp_path / "memory")
    for path in (pictures / "train").rglob("*.jpg"):
        assert path.exists()
    senet.train("resnet20", str(pictures), recipe(*area, "memory=0", "workers=1"), tmp_path / "disk")
    assert_same(tmp_path / "memory", tmp_path / "disk")


def test_a_batch_of_unreadable_images_keeps_the_place(tmp_path: Path, pictures: Path) -> None:
    """Batches are counted whether or not their images can be read; otherwise a resumed run would repeat some."""
    (pictures / "train" / "dog" / "3.jpg").write_bytes(corrupt_jpeg())
    settings = recipe(*AREA, "batch=1", "epochs=1", "warmup=0.5", "workers=0")
    options: dict[str, Any] = {"skip_bad": True}
    senet.train("resnet20", str(pictures), settings, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        senet.train("resnet20", str(pictures), settings, tmp_path / "run", reporter=KillAt(1, 15), **options)
    resumed = senet.train("resnet20", str(pictures), settings, tmp_path / "run", resume=True, **options)
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert [Path(name).name for name in resumed.skipped] == ["3.jpg"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), "alloc"], ids=str)
def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """The words of PyTorch's allocator on a CPU are those it has today."""
    if error == "alloc":
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**60, dtype=torch.uint8)
        error = caught.value

    def fails(*args: Any) -> None:
        raise error

    monkeypatch.setattr(Loader, "epoch", fails)
    message = "out of memory with batch=8 and accumulate=1: accumulate=2 .* parts of 4 images.*base_batch_size=8"
    message += ".*nothing is saved"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "run")


def test_other_errors_keep_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Loader, "epoch", fails)
    with pytest.raises(RuntimeError, match="^something else$"):
        run(tmp_path / "run")


def test_a_wrong_value_in_the_middle_is_no_wrong_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise ValueError("expected more than 1 value")

    monkeypatch.setattr(Loader, "epoch", fails)
    with pytest.raises(TrainingError, match=r"^expected more than 1 value; .*nothing is saved"):
        run(tmp_path / "run")


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """A short form of the benchmark: processes and SIGKILL."""
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 24, "dog": 24})
    settings = ["--set", "epochs=4", "--set", "warmup=1", "--set", "batch=4", "--set", "checkpoint_every=1"]
    run = ["resnet20", "--data", str(tmp_path / "data"), "--recipe", "digits", *settings, "--set", "lr=0.01"]
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "2", "--", *run]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 equal to the run that was never stopped" in done.stdout
