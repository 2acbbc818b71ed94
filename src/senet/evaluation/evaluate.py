"""Evaluate networks on labelled images, in the paper's protocol."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from senet.data import Loader
from senet.data.loading import batch_device, prefetched
from senet.evaluation.classification import ClassificationMetrics, Evaluation
from senet.evaluation.logits import check_finite, input_like, logits_on_device
from senet.evaluation.metrics import LogitMetrics, batches_between_reads
from senet.utils.errors import DataError, NonFiniteError
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["evaluate_loader", "measure"]

Result = TypeVar("Result")


def evaluate_loader(
    model: nn.Module,
    loader: Loader,
    *,
    progress: Progress = no_progress,
    total: Callable[[Tensor], Tensor] | None = None,
    confusion: bool = False,
) -> Evaluation:
    """Evaluate a classifier on the batches of a loader, see `measure`; on request with the confusion matrix."""
    metrics = ClassificationMetrics(len(loader.data.classes), confusion=confusion)
    return measure(model, loader, metrics, progress=progress, total=total)


@torch.no_grad()
def measure(
    model: nn.Module,
    loader: Loader,
    metrics: LogitMetrics[Result],
    *,
    progress: Progress = no_progress,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Result:
    """Measure the logits of a network on the batches of a loader. The network keeps its mode.

    Args:
        model: the network.
        loader: batches of validation data; in a distributed run, this process's shards of them.
        metrics: what is measured; new.
        progress: shows progress over batches.
        total: sums a tensor over all processes of a distributed run; None for a single process.

    Raises:
        DataError: an image cannot be read, or all of them are left out.
        NonFiniteError: a logit is NaN or infinite; the message names the first image. On a GPU it is raised up to
            `batches_between_reads` batches later, since each check waits for the device. In a distributed run all
            processes raise it after the last batch; the message names an image on processes that have one.
    """
    with evaluating(model):
        failure = _accumulate(model, loader, metrics, progress, stop=total is None)
    sums = torch.cat((metrics.sums(), torch.tensor([float(failure is not None)], dtype=torch.float64)))
    sums = sums if total is None else total(sums)
    if sums[-1]:
        raise failure or NonFiniteError(f"the logits of an image of {loader.data.spec} are not finite")
    return metrics.result(sums[:-1], loader)


def _accumulate(
    model: nn.Module, loader: Loader, metrics: LogitMetrics[Any], progress: Progress, stop: bool
) -> NonFiniteError | None:
    """Add all batches to the metrics; return the error of the first non-finite logits, or raise it if `stop`."""
    classes = len(loader.data.classes)
    device = input_like(model).device
    every = batches_between_reads(device)
    batches = loader.epoch()
    failure: NonFiniteError | None = None
    if loader.device is None and batch_device(device) is not None:
        batches = prefetched(batches, device)
    for number in progress(range(len(loader)), len(loader), f"evaluate {loader.data.spec}"):
        pixels, labels = next(batches)
        if not len(labels) or failure is not None:
            continue  # no image can be read; or the other processes expect this one at the end
        logits = logits_on_device(model, loader.preprocessing, pixels)
        metrics.watch(logits, number * loader.batch)
        too_few = logits.shape[1] < classes
        if too_few or (number + 1) % every == 0:
            failure = _failure(model, metrics, loader)
        if failure is not None:
            if stop:
                raise failure
            continue
        if too_few:
            raise DataError(
                f"the network returns {logits.shape[1]} logits, and {loader.data.spec} has {classes} classes; set "
                f"num_classes to the number of its logits"
            )
        metrics.add(logits, labels.to(logits.device, non_blocking=True))
    return failure or _failure(model, metrics, loader)


def _failure(model: nn.Module, metrics: LogitMetrics[Any], loader: Loader) -> NonFiniteError | None:
    """Return the error of the first image with non-finite logits, if there is one so far."""
    first = metrics.first_bad()
    if first is None:
        return None
    number, row = divmod(first, loader.batch)
    try:
        check_finite(metrics.logits, f"{loader.name_of(number, row)} (batch {number + 1})", model)
    except NonFiniteError as error:
        return error
    return None
