"""Train a network by a recipe into a folder.

In short::

    open the data, build the network, refuse what cannot work
    go on from checkpoint.pt, if there is one and it is of the same run
    for each epoch:
        for each batch: a step; a checkpoint every so often; stop if a signal asked for it
        evaluate; save the checkpoint, the models, metrics.jsonl and curves.png
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.data import ImageData, open_loader, open_splits
from senet.errors import DataError
from senet.models import create_model
from senet.training.checkpoint import identity, left_out, read_checkpoint, restore, what_changes
from senet.training.folder import CHECKPOINT, check_free, is_published, locked, write_json
from senet.training.recipe import Recipe
from senet.training.recipe_file import load_recipe, write_recipe
from senet.training.reporting import Epoch, Reporter, Run, Silent, how_far
from senet.training.runner import Runner
from senet.training.stopwatch import Stopwatch
from senet.training.tensorboard import TensorBoard
from senet.training.trainer import Trainer, pick_device
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
    reporter: Reporter | None = None,
) -> Run:
    """Train a network.

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
        resume: go on with the run in `output`, from its checkpoint: on a CPU with as many threads, to the same bits as
            if it had not been stopped. Without a checkpoint it starts, and a run that is complete is left as it is.
        tensorboard: write the figures of `metrics.jsonl` into the folder's `tensorboard` as well.
        profile: wait for the GPU after each kind of work, so that `Run.seconds` is right about each.
        reporter: is told how it goes.

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
    reporter = reporter or Silent()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    output = Path(output)
    goes_on = check_free(output, resume)
    device = pick_device(recipe)
    splits = open_splits(data, val_data, val_fraction) if isinstance(data, str) else data
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(_matmul(recipe.tf32))
        torch.manual_seed(recipe.seed)
        model = _network(network, splits[0], recipe)
        stack.enter_context(_trainable_as_before(model))
        model.to(device).to(memory_format=torch.channels_last)
        this = identity(model, recipe, *splits)  # which finds out, too, whether the network can be saved
        if goes_on and is_published(output, recipe.epochs):
            before = read_checkpoint(output / CHECKPOINT)
            _changes(before, this, recipe)
            if len(before["state"]["epochs"]) == recipe.epochs:
                epochs = [Epoch(**epoch) for epoch in before["state"]["epochs"]]
                reporter.note(f"this run is complete: it has its {how_far(len(epochs), 0)}")
                return Run(output, epochs, skipped=list(before["state"]["skipped"]))
        stack.enter_context(locked(output))
        goes_on = check_free(output, resume)
        if goes_on:
            before = read_checkpoint(output / CHECKPOINT)
            _changes(before, this, recipe)  # before the images are read, which takes its time
        loaders = [
            open_loader(
                images,
                recipe.preprocessing,
                augmentation,
                batch=min(recipe.batch, len(images)),
                seed=recipe.seed,
                workers=recipe.workers if recipe.workers >= 0 else min(8, _cores()),
                skip_bad=skip_bad,
                memory_limit=int(recipe.memory * 2**30),
                balanced=augmentation is not None and recipe.sampling == "balanced",
                track=reporter.track,
            )
            for images, augmentation in zip(splits, (recipe.augmentation, None), strict=True)
        ]
        trainer = Trainer(model, recipe, loaders[0], Stopwatch(profile))
        this |= left_out(*loaders)
        if goes_on:
            changes = _changes(before, this, recipe)
            restore(trainer, before["state"], output / CHECKPOINT)
            for change in changes:
                reporter.note(f"goes on with {change}")
        name = network if isinstance(network, str) else (model.architecture or {}).get("name", "network")
        write_recipe(recipe, output / "recipe.toml", network=name, data=splits[0].spec, validation=splits[1].spec)
        write_json(output / "run.json", _about(name, model, splits, device, this))
        reporter.start(model, recipe, loaders[0], loaders[1], list(trainer.epochs))
        runner = Runner(trainer, loaders[1], output, this, reporter, f"{name} on {splits[0].spec}")
        with TensorBoard(output, trainer.epochs) if tensorboard else nullcontext() as board:
            return runner.run(goes_on, board)


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _changes(before: dict[str, Any], this: dict[str, Any], recipe: Recipe) -> list[str]:
    """`what_changes` from a checkpoint, in what is known of this run by now."""
    return what_changes(before["identity"], before["identity"] | this, recipe, before["state"])


def _network(network: str | nn.Module, training: ImageData, recipe: Recipe) -> Any:
    """The network to train, with the data's classes and the recipe's preprocessing in its `pretrained_cfg`."""
    model: Any
    if isinstance(network, str):
        options = {"num_classes": len(training.classes), "in_channels": len(recipe.mean), **recipe.network}
        model = create_model(network, **options)
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
    size = recipe.crop_size
    model.pretrained_cfg |= {
        "input_size": (model.in_channels, size, size),
        "crop_pct": size / recipe.resize,
        "mean": tuple(recipe.mean),
        "std": tuple(recipe.std),
        "interpolation": recipe.interpolation,
        "label_names": list(training.classes),
    }
    return model


@contextmanager
def _matmul(tf32: bool) -> Iterator[None]:
    """Whether CUDA may round the inputs of float32 products and convolutions; by default PyTorch does in the latter."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = tf32
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


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
    name: str, model: nn.Module, splits: tuple[ImageData, ImageData], device: torch.device, this: dict[str, Any]
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
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
