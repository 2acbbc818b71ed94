"""Record the gates of a network in one pass over a data set. The memory does not depend on the number of images."""

import os
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from senet.data import ImageData, Loader
from senet.gates.recording.batches import (
    Batches,
    as_loader,
    label_sets,
    loader_length,
    pretrained_config,
    with_progress,
)
from senet.gates.recording.hooks import GateHooks
from senet.gates.recording.provenance import data_name, digest_of_labels, identity_of
from senet.gates.recording.record import Gates
from senet.gates.recording.record_file import load_gates
from senet.gates.recording.session import RecordingSession
from senet.graph.se_modules import find_se
from senet.utils.arguments import argument
from senet.utils.errors import GatesError
from senet.utils.keywords import check_keywords
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress
from senet.utils.renamed import RENAMED_ARGUMENTS

__all__ = ["record_gates"]

# The largest share of the time for writing unfinished recordings.
_WRITING_SHARE = 0.02


@torch.no_grad()
@check_keywords(**RENAMED_ARGUMENTS)
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
    """Run a network over a data set and record its SE blocks: statistics of gates, squeezes and hidden units.

    The network may come from any library; `senet.graph.se_modules.find_se` finds its SE modules. It runs in evaluation
    mode, on its device and in its precision; modes and hooks are restored afterwards. Statistics are in float64. If a
    block is called several times in a forward pass, its calls count as positions. A block that never runs is omitted.
    Classes of a multi-label network are the sets of labels that its images have.

    Args:
        model: the network.
        loader: a loader of `senet.data` for evaluation; or an iterable of images and labels (N,), such as a DataLoader,
            in the same order each time; or a spec or data set, opened as by `senet.evaluate`.
        classes: names of the classes in the order of the logits. By default those of the loader, the network's
            `label_names`, or numbers.
        sample: number of images whose gates are stored one by one. The choice depends only on their indices in the data
            and on the seed.
        thumbnail: pixels of the longer side of their thumbnails; None for no thumbnails.
        correlation: whether to record the covariance of a block's channels, C x C numbers.
        seed: seed of the sample.
        part: (i, n): record only every n-th batch, from batch i on. n processes can record one part each, and
            `merge_gates` merges them.
        output: a file for the recording, written at the end and periodically before.
        resume: resume from `output` if it exists. The result is bitwise the same as without the interruption.
        every: seconds between two writes; longer if writing takes more than 2 % of the time. 0 writes after each batch.
        check_output: also raise if the network's output is not finite although its gates are.
        progress: progress display.

    Raises:
        TypeError: `model` is not a network, or the batches are not images and labels.
        ValueError: an invalid option, or classes that differ from the loader's.
        GatesError: the network has no SE, or none that runs; there are no images; a label is out of range; a value is
            not finite (NonFiniteGatesError); `output` cannot be written, or holds a recording of something else.
        DataError: an image cannot be read.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> len(gates.blocks), gates.classes
        (9, ['cat', 'dog'])
        >>> gates.blocks[0].gates.mean.shape  # the mean gate of each channel
        (16,)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {model!r}; senet.create_model builds a network by name")
    model = getattr(model, "_orig_mod", model)  # a compiled module ignores hooks that are registered later
    _check(sample, thumbnail, part, output, resume, every)
    units = find_se(model)
    if not units:
        raise GatesError(f"{type(model).__name__} has no SE; add it with senet.insert, or give another network")
    source = as_loader(model, loader, classes=classes, progress=progress)
    length = loader_length(source)
    if length is not None and part[0] >= length:
        what = "there are no images" if not length else f"part {part} has none of the {length} batches"
        raise GatesError(f"{what} in {data_name(source)}; give at least one batch for each part")
    names = _classes(model, source, classes)
    options = {"sample": sample, "thumbnail": thumbnail, "correlation": correlation, "seed": seed}
    state = {"identity": identity_of(model, source, names, options), "of": part[1], "parts": [part[0]]}
    state |= {"batches": 0, "labels": "", "sample": sample, "seed": seed}
    hooks = GateHooks(units, len(names), correlation)
    session = RecordingSession(model, source, names, state, hooks, sample, thumbnail, seed)
    if resume and output is not None and Path(output).exists():
        before = load_gates(output)
        session.resume(before, str(output))
        if before.state.get("finished"):
            return before
    session.check_output = check_output
    with evaluating(model), hooks.attached():
        _run(session, part, output, every, progress)
    gates = session.gates(finished=True)
    if output is not None:
        _save(gates, output)
    return gates


def _run(
    session: RecordingSession,
    part: tuple[int, int],
    output: str | PathLike[str] | None,
    every: float,
    progress: Progress,
) -> None:
    own = isinstance(session.loader, Loader)
    last_write, first = time.monotonic(), session.start == 0
    interval, start = every, session.start if own else 0
    what = f"record gates on {data_name(session.loader)}"
    for batch in with_progress(session.loader, session.model, progress, what, start=start, part=part):
        recorded = batch.number < session.start
        if not own:
            _check_labels(session, recorded, output)
            session.state["labels"] = digest_of_labels(batch.labels, session.state["labels"])
        if recorded:
            continue
        session.add(batch, first=first)
        first = False
        session.state["batches"] = batch.number + 1
        if output is not None and time.monotonic() - last_write >= interval:
            begun = time.monotonic()
            _save(session.gates(finished=False), output)
            last_write = time.monotonic()
            interval = every and max(every, (last_write - begun) / _WRITING_SHARE)
    if first:
        raise GatesError(f"{data_name(session.loader)} has no images in part {part}; give data with images")


def _check_labels(session: RecordingSession, recorded: bool, output: str | PathLike[str] | None) -> None:
    """Compare the labels of the batches that a resumed recording has, before the first new batch."""
    if recorded or not session.expected_labels:
        return
    if session.state["labels"] != session.expected_labels:
        raise GatesError(
            f"the labels of the first {session.start} batches differ from those in {output}; give the same batches in "
            f"the same order, or another output"
        )
    session.expected_labels = ""


def _check(
    sample: int,
    thumbnail: int | None,
    part: tuple[int, int],
    output: str | PathLike[str] | None,
    resume: bool,
    every: float,
) -> None:
    if not isinstance(sample, int) or sample < 0:
        raise ValueError(f"sample must be an integer of 0 or more, got {sample!r}; 256 is usual")
    if thumbnail is not None and (not isinstance(thumbnail, int) or thumbnail < 1):
        raise ValueError(f"thumbnail must be 1 pixel or more, or None for no thumbnails, got {thumbnail!r}")
    if len(part) != 2 or not all(isinstance(n, int) for n in part) or not 0 <= part[0] < part[1]:
        raise ValueError(f"part must be (i, n) with 0 <= i < n, got {part!r}")
    if not every >= 0:
        raise ValueError(f"every must be 0 seconds or more, got {every!r}")
    if output is None:
        if resume:
            raise ValueError("resume needs a file; give it as output=")
        return
    folder = Path(output).resolve().parent
    if Path(output).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if Path(output).is_dir() else f"{folder} is missing or not writable"
        raise GatesError(f"cannot write {output}: {why}; give a file in an existing, writable folder")


def _classes(model: nn.Module, loader: Batches, given: Sequence[str] | None) -> list[str]:
    if isinstance(given, str):
        raise TypeError(f"classes must be a list of names, got {given!r}")
    names = None if given is None else [str(name) for name in given]
    if isinstance(loader, Loader):
        sets = label_sets(loader)
        own = list(loader.data.classes) if sets is None else sets.names
        if names is not None and names != own:
            odd = next((pair for pair in zip(names, own, strict=False) if pair[0] != pair[1]), (len(names), len(own)))
            raise ValueError(
                f"classes differ from those of {loader.data.spec}: {odd[0]!r} and {odd[1]!r}; leave out "
                f"{argument('classes')}"
            )
        return own
    cfg = pretrained_config(model)
    names = names or list(cfg.get("label_names") or ())
    count = getattr(model, "num_classes", None) or cfg.get("num_classes")
    if not names and isinstance(count, int):
        names = [str(number) for number in range(count)]
    if not names:
        raise ValueError(f"neither the batches nor {type(model).__name__} have class names; give {argument('classes')}")
    return names


def _save(gates: Gates, output: str | PathLike[str]) -> None:
    try:
        gates.save(output)
    except OSError as error:
        raise GatesError(
            f"cannot write {output}: {error.strerror or error}; free disk space, or give another file"
        ) from error
