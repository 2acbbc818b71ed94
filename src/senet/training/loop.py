"""Train a network by a recipe into a folder.

In short::

    open the data, build the network, check that it can be trained
    resume checkpoint.pt, if it exists and belongs to this run
    for each epoch:
        for each batch: a step; a checkpoint every so many steps; stop if a signal asks for it
        evaluate; write the checkpoint, the models, metrics.jsonl and curves.png

Each of several processes does all of this with its shares of the batches, and only the first writes to the folder.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.data import ImageData, Loader, open_splits
from senet.recipes.recipe import Recipe
from senet.recipes.toml import load_recipe, write_recipe
from senet.runs.folder import RunFolder
from senet.runs.reporting import Reporter, Run, Silent
from senet.tasks import get_task, store_task
from senet.training.checkpoint import identity, skipped_images
from senet.training.determinism import deterministic_algorithms, prepare_cublas
from senet.training.devices import pick_device
from senet.training.distributed.data_parallel import check_same_run, synchronized
from senet.training.distributed.processes import TIMEOUT, Processes, open_processes
from senet.training.dry_run import check_maps
from senet.training.freezing import restoring_requires_grad
from senet.training.fusing import fusing
from senet.training.loaders import open_loaders
from senet.training.loggers import Log, RunLoggers, check_loggers
from senet.training.memory import preparing
from senet.training.network import in_order_of_network, network_for
from senet.training.resuming import Resumption
from senet.training.runner import Runner
from senet.training.stopwatch import Stopwatch
from senet.training.trainer import Trainer
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
    log: Log | Sequence[Log] = (),
    profile: bool = False,
    timeout: float = TIMEOUT,
    reporter: Reporter | None = None,
) -> Run:
    """Train a network; in a process that torchrun started, together with the others.

    Args:
        network: a name of `senet.list_models`; or a network of `senet.create_model`, which is trained in place.
        data: a spec, see `senet.open_data`; or opened training and validation data.
        recipe: a name of `senet.list_recipes`, a TOML file, or a `Recipe`, such as
            `senet.load_recipe("cifar", ["epochs=20", "network.reduction=8"])`.
        output: a folder that does not exist, or holds no run. It gets `recipe.toml` with all values in force,
            `run.json`, `checkpoint.pt`, `metrics.jsonl` with one line for each epoch, `last.safetensors` and
            `best.safetensors`, and `curves.png`.
        val_data: spec of the validation data, if `data` has none.
        val_fraction: proportion of each training class that is kept for validation instead.
        skip_bad: skip unreadable images, and count them.
        resume: resume the run in `output` from its checkpoint. On a CPU with the same number of threads, and on a GPU
            with the recipe's `deterministic=true`, the result is bitwise identical to an uninterrupted run; on a GPU
            without it, equal up to rounding. Without a checkpoint the run starts; a complete run is not changed. A
            process that torchrun has restarted always resumes.
        log: where the metrics of each epoch go as well: "tensorboard" (the folder's `tensorboard`), "wandb", "mlflow",
            "trackio", or a function of metrics by name and the number of the epoch; or several. A resumed run continues
            the same run there. What fails is reported, and changes neither the run nor its result.
        profile: synchronize with the GPU after each kind of work, so that `Run.seconds` is exact.
        timeout: seconds that a process waits for another that does not answer, before the run ends.
        reporter: shows the progress; of several processes, the first one's is used.

    Returns:
        The completed epochs. SIGINT (Ctrl-C) and SIGTERM save the run and end it at its next step; a second signal ends
        it at once.

    Raises:
        ValueError: before anything starts: an invalid recipe, network or option, an output folder in use, or a changed
            run to resume.
        ModelFileError: a checkpoint that cannot be read.
        DataError: data that cannot be used: before anything starts.
        TrainingError: loss or gradient became non-finite, an image could not be read during the run, a worker process
            died, memory or disk are full; the message says what is saved.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["epochs=1", "batch=4", "workers=0"])
        >>> run = senet.train("se_resnet20", "photos", recipe, "runs/new")
        >>> model = senet.load(run.output / "best.safetensors")
        >>> model.pretrained_cfg["label_names"]
        ['cat', 'dog']
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    task, device = get_task(recipe.task), pick_device(recipe)
    if recipe.deterministic:
        prepare_cublas(device)
    processes = open_processes(device, timeout)
    first = processes.is_first
    reporter = (reporter if first else None) or Silent()
    folder = RunFolder(Path(output))
    # Processes that torchrun starts in place of others resume what those began, and nothing else.
    resume = resume or (first and processes.launch.has_begun(folder.path))
    with ExitStack() as stack:
        with processes.fail_together(), preparing(recipe):
            logs: list[Log] = []
            if first:
                logs = check_loggers(log)
                folder.find_checkpoint(resume)
            opened = open_splits(data, val_data, val_fraction) if isinstance(data, str) else data
            splits = task.data(opened[0]), task.data(opened[1])
            task.check_validation(splits[1])
            stack.enter_context(seeded(recipe.seed, processes.device))
            stack.enter_context(tf32_products(recipe.tf32))
            stack.enter_context(deterministic_algorithms(recipe.deterministic))
            model = network_for(network, splits[0], recipe)
            for text in getattr(getattr(model, "weights_report", None), "notes", []):
                reporter.note(f"{model.weights_report.source}: {text}")
            splits = in_order_of_network(model, splits, recipe)
            model.pretrained_cfg["label_names"] = list(splits[0].classes)
            task.prepare(model, recipe)
            store_task(model, task)
            stack.enter_context(restoring_requires_grad(model))
            model.to(processes.device).to(memory_format=torch.channels_last)
            check_maps(model, recipe, min(recipe.batch, len(splits[0])), processes.world_size)
            stack.enter_context(fusing(model, recipe))
            this = identity(model, recipe, *splits, processes.world_size)  # raises if the network cannot be saved
        others = processes.gather({key: this[key] for key in this if key != "rounding"})
        with processes.fail_together():
            check_same_run(this, others)
        resumption = Resumption(folder=folder, resume=resume, identity=this, recipe=recipe)
        completed = processes.from_first(lambda: resumption.completed(reporter))
        if completed is not None:
            return completed
        checkpoint = processes.from_first(lambda: resumption.enter(stack))
        if first:
            processes.launch.begin(folder.path)
        with processes.fail_together(), preparing(recipe):
            loggers: RunLoggers | None = None
            loaders = open_loaders(splits, recipe, processes, reporter, skip_bad)
            if recipe.sync_bn and processes.is_distributed:
                stack.enter_context(synchronized(model, processes))
            trainer = Trainer(model, recipe, loaders[0], Stopwatch(profile), processes)
            stack.callback(trainer.release)
            if checkpoint is not None:
                resumption.restore(trainer, checkpoint, loaders, reporter)
            name = network if isinstance(network, str) else (model.architecture or {}).get("name", "network")
            specs = [images.spec for images in splits]
            if first:
                write_recipe(recipe, folder.recipe, network=name, data=specs[0], validation=specs[1])
                description = _description(name, recipe, model, splits, loaders[0], processes, this)
                write_json(folder.description, description)
                loggers = stack.enter_context(
                    RunLoggers(
                        logs,
                        folder=folder,
                        config=_config(recipe, description),
                        epochs=trainer.epochs,
                        planned=description["epochs"],
                        note=reporter.note,
                    )
                )
        reporter.start(model, recipe, *loaders, list(trainer.epochs))
        runner = Runner(
            trainer=trainer,
            validation=loaders[1],
            folder=folder,
            identity=this | skipped_images(*loaders),
            reporter=reporter,
            title=f"{name} on {specs[0]}",
        )
        return runner.run(checkpoint is not None, loggers)


def _description(
    name: str,
    recipe: Recipe,
    model: nn.Module,
    splits: tuple[ImageData, ImageData],
    training: Loader,
    processes: Processes,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Return what `run.json` says of a run."""
    return {
        "network": name,
        "task": recipe.task,
        "epochs": recipe.passes(len(training)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": splits[0].spec,
        "validation": splits[1].spec,
        "training data": identity["training data"],
        "validation data": identity["validation data"],
        "senet": __version__,
        "torch": torch.__version__,
        "device": str(processes.device),
        "threads": torch.get_num_threads(),
        "processes": processes.world_size,
    }


def _config(recipe: Recipe, description: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run for loggers, in one level."""
    settings = asdict(recipe)
    network = {f"network.{key}": value for key, value in settings.pop("network").items()}
    facts = ("network", "parameters", "data", "validation", "senet", "torch", "device", "processes")
    return {**settings, **network, **{key: description[key] for key in facts}}
