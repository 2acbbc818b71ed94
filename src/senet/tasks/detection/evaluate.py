"""Evaluate detectors: find the objects of all images, and compare them with the annotations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet.data import BoxData, Loader
from senet.data.loading import batch_device, prefetched
from senet.evaluation.logits import input_like
from senet.tasks.detection.average_precision import DetectionEvaluation, Found, Objects, check_evaluator, summarize
from senet.tasks.detection.network import Detections, detect
from senet.tasks.task import Peers
from senet.utils.errors import DataError, NonFiniteError
from senet.utils.memory_errors import suggesting_batch
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["as_arrays", "check_objects", "evaluate_detector", "find_objects", "objects_of"]

# The parts of torchvision's detectors, in the order in which they run.
_PARTS = ("backbone", "rpn.head", "roi_heads.box_predictor", "head")


@torch.no_grad()
def evaluate_detector(
    model: nn.Module, loader: Loader, *, progress: Progress = no_progress, peers: Peers | None = None
) -> DetectionEvaluation:
    """Return the average precision of a detector on the batches of a loader, see `Task.evaluate`.

    Raises:
        DataError: an image cannot be read, none can, or no image has an object.
        NonFiniteError: an output is NaN or infinite; the message names the batch. In a distributed run all processes
            raise it after the last batch.
        ImportError: faster-coco-eval is not installed.
    """
    check_evaluator()
    data = loader.data
    assert isinstance(data, BoxData)
    own: dict[int, Found] = {}
    failure = ""
    batches = loader.epoch()
    device = input_like(model).device
    if loader.device is None and batch_device(device) is not None:
        batches = prefetched(batches, device)
    with evaluating(model):
        for number in progress(range(len(loader)), len(loader), f"evaluate {data.spec}"):
            pixels, targets = next(batches)
            if not len(targets) or failure:
                continue  # no image can be read; or the other processes expect this one at the end
            try:
                found = find_objects(model, pixels, targets)
            except NonFiniteError as error:
                failure = (
                    f"{error}, for batch {number + 1} of {data.spec}, which begins with {loader.name_of(number, 0)}"
                )
                if peers is None:
                    raise NonFiniteError(failure) from error
                continue
            own |= {int(target[0, 0]): as_arrays(one) for target, one in zip(targets.cpu(), found, strict=True)}
    # The order of processes decides nothing: images have the order of their indices, and each is there once.
    joint = [(failure, own)] if peers is None else peers.gather((failure, own))
    if failures := [one for one, _ in joint if one]:
        raise NonFiniteError(failures[0])
    rows = {index: one for _, some in joint for index, one in some.items()}
    if not rows:
        raise DataError(f"{data.spec} has no readable image")
    order = sorted(rows)
    objects = [objects_of(data, index) for index in order]
    check_objects(objects, data.spec)
    return summarize(objects, [rows[index] for index in order], data.classes, list(loader.skipped))


def check_objects(objects: Iterable[Objects], spec: str) -> None:
    """Check that some images have an object.

    Raises:
        DataError: none has one.
    """
    if not any((~one.crowd).any() for one in objects):
        raise DataError(f"no image of {spec} has an object, and precision is not defined; add some")


def find_objects(model: nn.Module, pixels: Tensor, targets: Tensor) -> list[Detections]:
    """Return the detections in each image of a batch.

    Args:
        model: in evaluation mode.
        pixels: (N, C, H, W), 0 to 255, each image padded at the right and the bottom.
        targets: (N, 1 + B, 6), see `senet.data.boxes.pack`, of which only the sizes are read.

    Raises:
        NonFiniteError: an output of the network is NaN or infinite, where torchvision returns no boxes.
    """
    like = input_like(model)
    with suggesting_batch(len(pixels)), _watching(model) as bad:
        images = pixels.to(like.device).to(like.dtype) / 255
        found = detect(model, images, targets)
    if bad:
        raise NonFiniteError(f"the outputs of {bad[0]} are not finite")
    return found


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list of the parts of a detector that have returned NaN or infinity, filled within the block."""
    bad: list[str] = []
    modules = dict(model.named_modules())

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if not all(bool(tensor.isfinite().all()) for tensor in _tensors(outputs)):
                bad.append(name)

        return hook

    handles = [modules[name].register_forward_hook(watch(name)) for name in _PARTS if name in modules]
    try:
        yield bad
    finally:
        for handle in handles:
            handle.remove()


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from _tensors(list(outputs.values()))
    elif isinstance(outputs, Sequence):
        for one in outputs:
            yield from _tensors(one)


def as_arrays(found: Detections) -> Found:
    """Return detections as arrays on the host."""
    return Found(
        boxes=found.boxes.double().cpu().numpy(),
        classes=found.classes.cpu().numpy(),
        scores=found.scores.double().cpu().numpy(),
    )


def objects_of(data: BoxData, index: int) -> Objects:
    """Return the objects of an image."""
    of = data.of_image(index)
    return Objects(boxes=of.boxes, classes=of.categories, areas=of.areas, crowd=of.crowd)
