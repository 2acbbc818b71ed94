"""Train a network by a recipe into a folder.

In short::

    open the data, build the network, refuse what cannot work
    go on from checkpoint.pt, if there is one and it is of the same run
    for each epoch:
        for each batch: a step; a checkpoint every so often; stop if a signal asked for it
        evaluate; save the checkpoint, the models, metrics.jsonl and curves.png

Of several processes each does all of this with its shares of the batches, and the first one alone has the folder.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.data import ImageData, open_loader, open_splits
from senet.data.class_names import warn_of_order
from senet.data.loading.device_batches import batch_device
from senet.recipes.network import create_network
from senet.recipes.recipe import Recipe
from senet.recipes.toml import load_recipe, write_recipe
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch
from senet.runs.publishing import is_published
from senet.runs.reporting import Reporter, Run, Silent, describe_position
from senet.training.checkpoint import (
    identity,
    left_out,
    read_checkpoint,
    restore,
    rounds_otherwise,
    what_changes,
)
from senet.training.determinism import deterministic_algorithms, prepare_cublas
from senet.training.devices import pick_device
from senet.training.distributed.data_parallel import check_batch_size, check_same_run, synchronised
from senet.training.distributed.processes import TIMEOUT, Processes, open_processes
from senet.training.dry_run import check_maps
from senet.training.memory import preparing
from senet.training.runner import Runner
from senet.training.stopwatch import Stopwatch
from senet.training.tensorboard import TensorBoard
from senet.training.trainer import Trainer
from senet.utils.errors import DataError
from senet.utils.files import write_json
from senet.utils.modes import seeded, tf32_products
from senet.version import __version__

__all__ = ["train"]


def train(
    network: str | nn.Module,
    data: str | tuple[ImageData, ImageData],
    recipe: str | PathLike[str] | Recipe,
    output: str | PathLike[str],
    *,
    val_data: str | None = None,
    val_fraction: float | None = None,
    skip_bad: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    profile: bool = False,
    timeout: float = TIMEOUT,
    reporter: Reporter | None = None,
) -> Run:
    """Train a network; in a process that torchrun started, together with the others.

    Args:
        network: a name of `senet.list_models`, or a network of `senet.create_model`, which is trained in place.
        data: a spec, see `senet.open_data`; or training and validation data that are open already.
        recipe: a name of `senet.list_recipes`, a TOML file, or a `Recipe`, such as that of
            `senet.load_recipe("cifar", ["epochs=20", "network.reduction=8"])`.
        output: a folder that does not exist, or holds no run. It gets `recipe.toml` with all values in force,
            `run.json`, `checkpoint.pt`, `metrics.jsonl` with one line an epoch, `last.safetensors` and
            `best.safetensors`, and `curves.png`.
        val_data: spec of the validation data, where `data` has none.
        val_fraction: of each training class that is kept for validation, instead.
        skip_bad: leave out images that cannot be read, and count them.
        resume: resume the run in `output` from its checkpoint. On a CPU with as many threads, and on a GPU with the
            recipe's `deterministic=true`, the result is bitwise identical to that of an uninterrupted run; on a GPU
            without it, up to rounding. Without a checkpoint the run starts, and a complete run is not changed. A
            process that torchrun has restarted always resumes.
        tensorboard: write the figures of `metrics.jsonl` into the folder's `tensorboard` as well.
        profile: wait for the GPU after each kind of work, so that `Run.seconds` is right about each.
        timeout: seconds that a process waits for another that does not answer, before the run ends.
        reporter: is told how it goes; of several processes, the first one's.

    Returns:
        The completed epochs. SIGINT (Ctrl-C) and SIGTERM end a run at its next step, saved; a second one at once.

    Raises:
        ValueError: a recipe, network or option that cannot be, an output folder in use, or a run that would go on
            otherwise than it began: before anything starts.
        ModelFileError: a checkpoint that cannot be read.
        DataError: data that cannot be used: before anything starts.
        TrainingError: loss or gradient stopped being finite, an image could not be read during the run, a worker
            process died, memory or disk are full; the message says what is saved.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    device = pick_device(recipe)
    if recipe.deterministic:
        prepare_cublas(device)
    processes = open_processes(device, timeout)
    first = processes.is_first
    reporter = (reporter if first else None) or Silent()
    folder = RunFolder(Path(output))
    # Processes that torchrun starts in the place of others go on with what those began, and with nothing else.
    resume = resume or (first and processes.launch.has_begun(folder.path))
    with ExitStack() as stack:
        with processes.fail_together(), preparing(recipe):
            if first:
                folder.find_checkpoint(resume)
            splits = open_splits(data, val_data, val_fraction) if isinstance(data, str) else data
            stack.enter_context(seeded(recipe.seed, processes.device))
            stack.enter_context(tf32_products(recipe.tf32))
            stack.enter_context(deterministic_algorithms(recipe.deterministic))
            model = _network(network, splits[0], recipe)
            for text in getattr(getattr(model, "weights_report", None), "notes", []):
                reporter.note(f"{model.weights_report.source}: {text}")
            splits = _in_order_of(model, splits, recipe)
            model.pretrained_cfg["label_names"] = list(splits[0].classes)
            stack.enter_context(_trainable_as_before(model))
            model.to(processes.device).to(memory_format=torch.channels_last)
            check_maps(model, recipe, min(recipe.batch, len(splits[0])), processes.world_size)
            # Which finds out, too, whether the network can be saved.
            this = identity(model, recipe, *splits, processes.world_size)
        others = processes.gather({key: this[key] for key in this if key != "rounding"})
        with processes.fail_together():
            check_same_run(this, others)
        here = _Folder(folder, resume, this, recipe)
        found = processes.from_first(lambda: here.completed(reporter))
        if found is not None:
            return found
        before = processes.from_first(lambda: here.enter(stack))
        if first:
            processes.launch.begin(folder.path)
        with processes.fail_together(), preparing(recipe):
            # What a step goes through in parts, an evaluation does as well: it may not fit at once.
            batches = (recipe.batch, max(-(-recipe.batch // recipe.accumulate), processes.world_size))
            loaders = [
                open_loader(
                    images,
                    recipe.preprocessing,
                    augmentation,
                    batch=min(batch, len(images)),
                    seed=recipe.seed,
                    workers=recipe.workers
                    if recipe.workers >= 0
                    else min(8, max(1, _cores() // processes.local_world_size)),
                    skip_bad=skip_bad,
                    memory_limit=int(recipe.memory * 2**30 / processes.local_world_size),
                    balanced=augmentation is not None and recipe.sampling == "balanced",
                    rank=processes.rank,
                    world_size=processes.world_size,
                    device=batch_device(processes.device),
                    progress=reporter.progress,
                )
                for images, augmentation, batch in zip(splits, (recipe.augmentation, None), batches, strict=True)
            ]
            for split, loader in zip(("training", "validation"), loaders, strict=True):
                if loader.location:
                    reporter.note(f"{split} data: {loader.location}")
            check_batch_size(loaders[0].batch, processes.world_size)
            if recipe.sync_bn and processes.is_distributed:
                stack.enter_context(synchronised(model, processes))
            trainer = Trainer(model, recipe, loaders[0], Stopwatch(profile), processes)
            stack.callback(trainer.release)
            this |= left_out(*loaders)
            if before is not None:
                changes = _changes(before, this, recipe)
                restore(trainer, before["state"], folder.checkpoint)
                for change in changes:
                    reporter.note(f"goes on with {change}")
                if rounds_otherwise(before["identity"], this):
                    reporter.note("the result will not be bitwise identical to that of an uninterrupted run")
            name = network if isinstance(network, str) else (model.architecture or {}).get("name", "network")
            specs = [images.spec for images in splits]
            if first:
                write_recipe(recipe, folder.recipe, network=name, data=specs[0], validation=specs[1])
                write_json(folder.description, _about(name, model, splits, processes, this))
            board: Any = TensorBoard(folder, trainer.epochs) if tensorboard and first else nullcontext()
        reporter.start(model, recipe, loaders[0], loaders[1], list(trainer.epochs))
        runner = Runner(trainer, loaders[1], folder, this, reporter, f"{name} on {specs[0]}")
        with board as writer:
            return runner.run(before is not None, writer)


@dataclass
class _Folder:
    """A run's folder before the run is in it, as the first process sees it."""

    folder: RunFolder
    resume: bool
    this: dict[str, Any]
    recipe: Recipe

    def completed(self, reporter: Reporter) -> Run | None:
        """What the run came to, if it is complete."""
        if not self.folder.find_checkpoint(self.resume) or not is_published(self.folder, self.recipe.epochs):
            return None
        before = self._read()
        if len(before["state"]["epochs"]) != self.recipe.epochs:
            return None
        epochs = [Epoch(**epoch) for epoch in before["state"]["epochs"]]
        reporter.note(f"this run is complete: it has its {describe_position(len(epochs), 0)}")
        return Run(self.folder.path, epochs, skipped=list(before["state"]["skipped"]))

    def enter(self, stack: ExitStack) -> dict[str, Any] | None:
        """Lock the folder; the checkpoint to go on from, if there is one."""
        stack.enter_context(self.folder.locked())
        return self._read() if self.folder.find_checkpoint(self.resume) else None

    def _read(self) -> dict[str, Any]:
        before = read_checkpoint(self.folder.checkpoint)
        _changes(before, self.this, self.recipe)  # before the images are read, which takes its time
        return before


def _in_order_of(model: Any, splits: tuple[ImageData, ImageData], recipe: Recipe) -> tuple[ImageData, ImageData]:
    """The data with their class indices in the order of a network's own classes, where these are the same."""
    names, known = model.pretrained_cfg.get("label_names"), splits[0].classes
    if names is not None and sorted(names) == sorted(known) and len(set(names)) == len(names):
        return splits[0].with_classes(names), splits[1].with_classes(names)
    if (
        names is None
        and recipe.train_only == "se"
        and recipe.network.get("weights")
        and model.num_classes == len(known)
    ):
        warn_of_order(known, splits[0].spec)  # the classifier stays as it was trained
    return splits


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _changes(before: dict[str, Any], this: dict[str, Any], recipe: Recipe) -> list[str]:
    """`what_changes` from a checkpoint, in what is known of this run by now."""
    return what_changes(before["identity"], before["identity"] | this, recipe, before["state"])


def _network(network: str | nn.Module, training: ImageData, recipe: Recipe) -> Any:
    """The network to train, with the recipe's preprocessing in its `pretrained_cfg`."""
    model: Any
    if isinstance(network, str):
        model = create_network(network, recipe, num_classes=len(training.classes))
    elif recipe.network:
        raise ValueError(f"the options {sorted(recipe.network)} build a network by name, and one was given built")
    else:
        model = network
    if not isinstance(getattr(model, "architecture", None), dict):
        raise ValueError(f"a {type(model).__name__} cannot be trained here: no logits, or not one of senet's networks")
    if not any(p.requires_grad and p.dtype == torch.float32 for p in model.parameters()):
        raise ValueError("nothing can be trained: no parameter is float32 and requires a gradient; try model.float()")
    if model.num_classes != len(training.classes):
        raise DataError(
            f"{training.spec} has {len(training.classes)} classes and the network {model.num_classes}; "
            f"leave num_classes out to have as many"
        )
    if model.in_channels != len(recipe.mean):
        raise ValueError(
            f"the network takes {model.in_channels} channels, and the recipe's mean has {len(recipe.mean)} values: set "
            f"mean and std to as many, or leave in_channels out"
        )
    recipe.preprocessing.check_std()
    model.pretrained_cfg.pop("resize", None)
    model.pretrained_cfg |= recipe.preprocessing.as_cfg()
    return model


@contextmanager
def _trainable_as_before(model: nn.Module) -> Iterator[None]:
    """What a recipe freezes is frozen for the run alone."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _about(
    name: str, model: nn.Module, splits: tuple[ImageData, ImageData], processes: Processes, this: dict[str, Any]
) -> dict[str, Any]:
    return {
        "network": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": splits[0].spec,
        "validation": splits[1].spec,
        "training data": this["training data"],
        "validation data": this["validation data"],
        "senet": __version__,
        "torch": torch.__version__,
        "device": str(processes.device),
        "threads": torch.get_num_threads(),
        "processes": processes.world_size,
    }
