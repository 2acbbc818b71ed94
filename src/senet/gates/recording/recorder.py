"""Record what the gates of a network do on a data set: one pass, exact figures, memory that images do not add to."""

import os
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.data import ImageData, Loader
from senet.evaluation.logits import first_non_finite
from senet.gates.recording.batches import Batch, Batches, as_loader, config_of, loader_length, with_progress
from senet.gates.recording.block_labels import labels_of, stages_of
from senet.gates.recording.hooks import Watch
from senet.gates.recording.provenance import data_name, differences, digest_of_labels, identity_of
from senet.gates.recording.record import BlockGates, Gates
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.sampling import Reservoir
from senet.graph.se_modules import find_se
from senet.nn.insertions import insertions
from senet.utils.errors import GatesError, NonFiniteGatesError
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["record_gates"]

# Of the time, at most this share goes into writing unfinished recordings.
_WRITING = 0.02


@torch.no_grad()
def record_gates(
    model: nn.Module,
    loader: Batches | str | ImageData,
    *,
    classes: Sequence[str] | None = None,
    sample: int = 256,
    thumbnail: int | None = 48,
    correlation: bool = False,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    every: float = 60.0,
    check_output: bool = False,
    progress: Progress = no_progress,
) -> Gates:
    """Run a network over a data set and keep what its SE blocks do: figures of gates, squeezes and hidden units.

    The network may come from any library; SE is what `senet.graph.se_modules.find_se` finds. It runs in evaluation, on
    its own device and in its own precision, and modes and hooks are as before when this ends. Figures are in float64.
    A block that is called several times in a forward pass counts as one with as many positions; one that never runs is
    left out.

    Args:
        model: the network.
        loader: a loader of `senet.data`, for evaluation; or any iterable of images as the network takes them and labels
            (N,), such as a DataLoader, in the same order each time; or a spec or data set, opened as `evaluate` does.
        classes: their names, in the order of the logits, where the loader does not have them; the network's
            `label_names` or numbers unless given.
        sample: how many images are kept one by one; which, depends on their places in the data and the seed alone.
        thumbnail: pixels of the longer side of a small picture of each of them; None for none.
        correlation: whether to keep how the gates of a block vary together, C x C numbers.
        seed: of the sample.
        part: (i, n): only every n-th batch, from the i-th on. As many processes record a part each, and `merge_gates`
            puts them together.
        output: a file for the recording, written at the end and now and then before.
        resume: go on with `output` where it is there; the result is the same to the bit as without the interruption.
        every: seconds between two writings; more where a writing takes longer than a fiftieth of that. 0 writes after
            each batch.
        check_output: fail where the network's output is not finite, too, although its gates are.
        progress: shows progress.

    Raises:
        TypeError: no network, or no batches of images and labels.
        ValueError: an option that cannot be, or classes that differ from the loader's.
        GatesError: the network has no SE, or none that runs; the data are empty; a label is none of the classes; a
            value is not finite (NonFiniteGatesError); `output` cannot be written, or is of something else than is to go
            on.
        DataError: an image cannot be read.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")
    model = getattr(model, "_orig_mod", model)  # what `torch.compile` wraps, which does not see hooks that come later
    _check(sample, thumbnail, part, output, resume, every)
    units = find_se(model)
    if not units:
        raise GatesError(f"{type(model).__name__} has no SE, so no gates; put it in with senet.insert, or take another")
    source = as_loader(model, loader, classes=classes, progress=progress)
    length = loader_length(source)
    if length is not None and part[0] >= length:
        what = "there are no images" if not length else f"part {part} has none of the {length} batches"
        raise GatesError(f"{what} in {data_name(source)}; give data for one batch a part, or fewer parts")
    names = _classes(model, source, classes)
    options = {"sample": sample, "thumbnail": thumbnail, "correlation": correlation, "seed": seed}
    state = {"identity": identity_of(model, source, names, options), "of": part[1], "parts": [part[0]]}
    state |= {"batches": 0, "labels": "", "sample": sample, "seed": seed}
    recording = _Recording(model, source, names, state, Watch(units, len(names), correlation), sample, thumbnail, seed)
    if resume and output is not None and Path(output).exists():
        before = load_gates(output)
        recording.go_on(before, str(output))
        if before.state.get("finished"):
            return before
    recording.checks_output = check_output
    with evaluating(model), recording.watch.attached():
        _run(recording, part, output, every, progress)
    gates = recording.gates(finished=True)
    if output is not None:
        _save(gates, output)
    return gates


class _Recording:
    """A recording while it goes on."""

    def __init__(
        self,
        model: nn.Module,
        loader: Batches,
        classes: list[str],
        state: dict[str, Any],
        watch: Watch,
        sample: int,
        thumbnail: int | None,
        seed: int,
    ) -> None:
        self.model, self.loader, self.classes, self.state, self.watch = model, loader, classes, state, watch
        self.reservoir = Reservoir(sample, thumbnail, seed, config_of(model))
        self.stages: dict[str, int | None] = {}
        # Where it begins; and of batches of an iterable, the digest of the labels up to there.
        self.start, self.expected = 0, ""
        self.checks_output = False

    def go_on(self, before: Gates, path: str) -> None:
        """Go on from a recording that is there.

        Raises:
            GatesError: it is of something else.
        """
        differ = differences(
            {**before.state.get("identity", {}), "part": (before.state.get("parts"), before.state.get("of"))},
            {**self.state["identity"], "part": (self.state["parts"], self.state["of"])},
        )
        if differ or before.classes != self.classes:
            raise GatesError(
                f"cannot go on with {path}: there and here are different: {differ or 'classes'}; give what it was "
                f"begun with, or another output"
            )
        self.start, self.expected = int(before.state.get("batches") or 0), str(before.state.get("labels"))
        self.state = dict(before.state) | {"labels": ""}
        for block in before.blocks:
            watched = self.watch[block.name]
            watched.go_on(block.gates, block.squeezes, block.hidden)
            self.watch.blocks.append(watched)
            self.stages[block.name] = block.stage
        self.reservoir.go_on(before.sample, before.blocks)

    def add(self, batch: Batch, *, first: bool) -> None:
        """Run a batch."""
        bad = ((batch.labels < 0) | (batch.labels >= len(self.classes))).nonzero()
        if len(bad):
            row = int(bad[0])
            raise GatesError(
                f"image {int(batch.indices[row])} has the label {int(batch.labels[row])}, and there are "
                f"{len(self.classes)} classes; give classes=, the names of all"
            )
        if first:
            self.stages = stages_of(self.model, batch.images.shape[1:])
        with self.watch.open():
            output = self.model(batch.images)
        seen = self.watch.finish(batch.labels, batch.indices)
        if self.checks_output:
            self._check_output(output, batch)
        self.reservoir.add(batch, seen)

    def _check_output(self, output: Any, batch: Batch) -> None:
        """Check what the network gives, where it is a tensor of a row for each image."""
        if not (isinstance(output, Tensor) and len(output) == len(batch.labels) and output.is_floating_point()):
            return
        row = first_non_finite(output)
        if row is not None:
            raise NonFiniteGatesError(
                f"the network's output is not finite for image {int(batch.indices[row])} of the data: look at the "
                f"weights and at that image, or record in float32"
            )

    def gates(self, *, finished: bool) -> Gates:
        """What there is so far."""
        sample, rows = self.reservoir.taken()
        watched = self.watch.blocks
        names = [block.unit.name for block in watched]
        labels = labels_of(names, self.stages)
        blocks = [
            BlockGates(
                name=block.unit.name,
                label=labels[place],
                stage=self.stages.get(block.unit.name),
                depth=place / max(1, len(watched) - 1),
                kind=block.unit.kind,
                gate=type(block.unit.gate).__name__,
                gain=block.unit.gain,
                squeeze=block.unit.squeeze,
                activation=None if block.unit.activation is None else type(block.unit.activation).__name__,
                gates=block.gates,
                squeezes=block.squeezes,
                hidden=block.hidden,
                sample_gates=rows[place][0],
                sample_squeezes=rows[place][1],
            )
            for place, block in enumerate(watched)
        ]
        network = str(config_of(self.model).get("architecture") or type(self.model).__name__)
        network += " with SE" if insertions(self.model) else ""
        complete = finished and self.state["of"] == 1
        state = self.state | {"finished": finished}
        return Gates(network, data_name(self.loader), self.classes, blocks, sample, complete, state)


def _run(
    recording: _Recording, part: tuple[int, int], output: str | PathLike[str] | None, every: float, progress: Progress
) -> None:
    own = isinstance(recording.loader, Loader)
    begun, fresh = time.monotonic(), recording.start == 0
    pause, begin = every, recording.start if own else 0
    what = f"record gates on {data_name(recording.loader)}"
    for batch in with_progress(recording.loader, recording.model, progress, what, start=begin, part=part):
        passed = batch.number < recording.start
        if not own:
            if not passed and recording.expected and recording.state["labels"] != recording.expected:
                raise GatesError(
                    f"the labels of the first {recording.start} batches are not those that {output} was begun with; "
                    f"give the same batches in the same order, or another output"
                )
            if not passed:
                recording.expected = ""
            recording.state["labels"] = digest_of_labels(batch.labels, recording.state["labels"])
        if passed:
            continue
        recording.add(batch, first=fresh)
        fresh = False
        recording.state["batches"] = batch.number + 1
        if output is not None and time.monotonic() - begun >= pause:
            begun = time.monotonic()
            _save(recording.gates(finished=False), output)
            pause = every and max(every, (time.monotonic() - begun) / _WRITING)
            begun = time.monotonic()
    if fresh:
        raise GatesError(f"{data_name(recording.loader)} has no images in part {part}; give data that have some")


def _check(
    sample: int,
    thumbnail: int | None,
    part: tuple[int, int],
    output: str | PathLike[str] | None,
    resume: bool,
    every: float,
) -> None:
    if not isinstance(sample, int) or sample < 0:
        raise ValueError(f"sample must be a whole number, 0 or more, got {sample!r}; 256 is usual")
    if thumbnail is not None and (not isinstance(thumbnail, int) or thumbnail < 1):
        raise ValueError(f"thumbnail must be pixels of a side, 1 or more, or None for none, got {thumbnail!r}")
    if len(part) != 2 or not all(isinstance(n, int) for n in part) or not 0 <= part[0] < part[1]:
        raise ValueError(f"part must be (i, n), with i from 0 to n - 1, got {part!r}")
    if not every >= 0:
        raise ValueError(f"every must be seconds, 0 or more, got {every!r}")
    if output is None:
        if resume:
            raise ValueError("resume goes on with a file; give output=, the file")
        return
    folder = Path(output).resolve().parent
    if Path(output).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "is a folder" if Path(output).is_dir() else f"cannot be written in {folder}"
        raise GatesError(f"{output} {why}; give a file in a folder that is there and that you may write to")


def _classes(model: nn.Module, loader: Batches, given: Sequence[str] | None) -> list[str]:
    if isinstance(given, str):
        raise TypeError(f"classes must be a list of names, got {given!r}; put it in a list")
    names = None if given is None else [str(name) for name in given]
    if isinstance(loader, Loader):
        own = list(loader.data.classes)
        if names is not None and names != own:
            odd = next((pair for pair in zip(names, own, strict=False) if pair[0] != pair[1]), (len(names), len(own)))
            raise ValueError(
                f"classes differ from those of {loader.data.spec}: {odd[0]!r} and {odd[1]!r}; leave classes= out"
            )
        return own
    cfg = config_of(model)
    names = names or list(cfg.get("label_names") or ())
    count = getattr(model, "num_classes", None) or cfg.get("num_classes")
    if not names and isinstance(count, int):
        names = [str(number) for number in range(count)]
    if not names:
        raise ValueError(f"neither the batches nor {type(model).__name__} say what classes there are; give classes=")
    return names


def _save(gates: Gates, output: str | PathLike[str]) -> None:
    try:
        gates.save(output)
    except OSError as error:
        raise GatesError(
            f"cannot write {output}: {error.strerror or error}; free some space, or give another file"
        ) from (error)
