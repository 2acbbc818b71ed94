"""Train a network by a recipe into a folder.

In short::

    open the data, build the network, refuse what cannot work
    for each epoch:
        for each batch of pixels:
            loss = cross_entropy(model(normalise(pixels)), labels)
            stop if it is not finite; step
        evaluate; append a line to metrics.jsonl; save last.safetensors, and best.safetensors if it is the best
    draw curves.png
"""

import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from senet import model_file
from senet.data import ImageData, Loader, open_loader, open_splits
from senet.errors import DataError, TrainingError
from senet.evaluation import evaluate_loader
from senet.figures import draw_curves
from senet.models import ResNet, create_model
from senet.training.optimisation import make_optimiser
from senet.training.recipe import Recipe, load_recipe, write_recipe

__all__ = ["Epoch", "Reporter", "Run", "Silent", "train", "train_epoch"]


@dataclass(frozen=True)
class Epoch:
    """A line of `metrics.jsonl`.

    Attributes:
        epoch: from 1.
        lr: learning rate of the last step.
        train_loss, train_error: means over the epoch's augmented images, as they were trained on; in nats and percent.
        loss, top1_error, top5_error: of the validation data after the epoch.
        seconds: of training; evaluation is not counted.
        images_per_second: of training.
    """

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    loss: float
    top1_error: float
    top5_error: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        output: its folder.
        epochs: that were completed.
        interrupted: whether it was ended early from the keyboard.
        skipped: names of images that could not be read.
    """

    output: Path
    epochs: list[Epoch]
    interrupted: bool
    skipped: list[str]

    @property
    def best(self) -> Epoch | None:
        """The epoch of least top-1 error, the first of several."""
        return min(self.epochs, key=lambda e: e.top1_error) if self.epochs else None


class Reporter(Protocol):
    """Who is told how a run goes; `Silent` says nothing."""

    def track(self, steps: Any, total: int, what: str) -> Any:
        """Show progress over steps that are no training: decoding, evaluation."""
        ...

    def start(self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader) -> None:
        """A run starts."""
        ...

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """A step is done: its number in the epoch from 1, and the means over the epoch so far."""
        ...

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """An epoch is done and saved."""
        ...


class Silent:
    """Tells nobody."""

    def track(self, steps: Any, total: int, what: str) -> Any:
        """The steps as they are."""
        return steps

    def start(self, model: nn.Module, recipe: Recipe, training: Loader, validation: Loader) -> None:
        """Nothing."""

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        """Nothing."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Nothing."""


def train(
    network: str | nn.Module,
    data: str | tuple[ImageData, ImageData],
    recipe: str | PathLike[str] | Recipe,
    output: str | PathLike[str],
    *,
    val_data: str | None = None,
    val_fraction: float | None = None,
    skip_bad: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Train a network.

    Args:
        network: a name of `senet.list_models`, or a network of `senet.create_model`, which is trained in place.
        data: a spec, see `senet.open_data`; or training and validation data that are open already.
        recipe: a name of `senet.list_recipes`, a TOML file, or a `Recipe`, such as that of
            `senet.load_recipe("cifar", ["epochs=20", "network.reduction=8"])`.
        output: a folder that does not exist, or holds no more than a recipe. It gets `recipe.toml` with all values in
            force, `metrics.jsonl` with one line an epoch, `last.safetensors` and `best.safetensors`, and `curves.png`.
        val_data: spec of the validation data, where `data` has none.
        val_fraction: of each training class that is kept for validation, instead.
        skip_bad: leave out images that cannot be read, and count them.
        reporter: is told how it goes.

    Returns:
        The completed epochs. A keyboard interrupt ends a run early, with the last completed epoch saved.

    Raises:
        ValueError: a recipe, network or option that cannot be, or an output folder in use: before anything starts.
        DataError: data that cannot be used: before anything starts.
        TrainingError: the loss stopped being finite, or an image could not be read during the run; the message names
            the step, and what was saved before stays.
    """
    reporter = reporter or Silent()
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    output = Path(output)
    # A run that stopped before its first epoch left its recipe alone, and is no loss.
    if output.exists() and (not output.is_dir() or any(p.name != "recipe.toml" for p in output.iterdir())):
        raise ValueError(f"the output {output} is in use; choose another folder, or remove it")
    training, validation = open_splits(data, val_data, val_fraction) if isinstance(data, str) else data
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = _network(network, training, recipe)
        loaders = [
            open_loader(
                images,
                recipe.preprocessing,
                augmentation,
                batch=min(recipe.batch, len(images)),
                seed=recipe.seed,
                workers=recipe.workers,
                skip_bad=skip_bad,
                track=reporter.track,
            )
            for images, augmentation in ((training, recipe.augmentation), (validation, None))
        ]
        output.mkdir(parents=True, exist_ok=True)
        name = network if isinstance(network, str) else (model.architecture or {}).get("name", "network")
        write_recipe(recipe, output / "recipe.toml", network=name, data=training.spec, validation=validation.spec)
        reporter.start(model, recipe, loaders[0], loaders[1])
        return _run(model, recipe, loaders[0], loaders[1], output, reporter, f"{name} on {training.spec}")


def _network(network: str | nn.Module, training: ImageData, recipe: Recipe) -> ResNet:
    """The network to train, with the data's classes and the recipe's preprocessing in its `pretrained_cfg`."""
    if isinstance(network, str):
        options = {"num_classes": len(training.classes), "in_channels": len(recipe.mean), **recipe.network}
        model = create_model(network, **options)
    elif recipe.network:
        raise ValueError(f"the options {sorted(recipe.network)} build a network by name, and one was given built")
    else:
        model = network
    if not isinstance(model, ResNet):
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
    model_file.describe(model)  # that it cannot be saved is not to be found out after an epoch
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _run(
    model: ResNet,
    recipe: Recipe,
    training: Loader,
    validation: Loader,
    output: Path,
    reporter: Reporter,
    title: str,
) -> Run:
    optimiser, schedule = make_optimiser(model, recipe, len(training))
    run = Run(output, [], False, training.skipped)
    best = math.inf
    try:
        for number in range(recipe.epochs):
            done = train_epoch(model, optimiser, schedule, training, recipe, number, output, reporter)
            scores = evaluate_loader(model, validation, track=reporter.track)
            if not math.isfinite(scores.loss):
                raise _diverged(
                    f"the validation loss is {scores.loss} after epoch {number + 1}", done[0], number, output
                )
            epoch = Epoch(number + 1, *done[:3], scores.loss, scores.top1_error, scores.top5_error, *done[3:])
            model_file.save(model, output / "last.safetensors")
            if epoch.top1_error < best:
                model_file.save(model, output / "best.safetensors")
            with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(epoch)) + "\n")
            run.epochs.append(epoch)
            reporter.epoch(epoch, epoch.top1_error < best)
            best = min(best, epoch.top1_error)
    except KeyboardInterrupt:
        run = Run(output, run.epochs, True, run.skipped)
    except (DataError, OSError) as error:
        raise TrainingError(str(error)) from error
    finally:
        # On a full disk the error that stopped the run is to be seen, and not this one.
        with suppress(OSError):
            if run.epochs:
                draw_curves([asdict(epoch) for epoch in run.epochs], output / "curves.png", title)
    run.skipped.extend(validation.skipped)
    return run


def train_epoch(
    model: ResNet,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loader: Loader,
    recipe: Recipe,
    number: int,
    output: Path,
    reporter: Reporter,
) -> tuple[float, float, float, float, float]:
    """Train one epoch.

    Args:
        model: in place; in training mode afterwards.
        optimiser: steps once a batch.
        schedule: of the learning rate; steps as often.
        loader: of the training data.
        recipe: whose loss is taken.
        number: of the epoch, from 0: order and augmentation depend on it.
        output: the run's folder, for the message.
        reporter: is told of each step.

    Returns:
        Learning rate of the last step, mean loss in nats, error in percent, seconds, images a second.

    Raises:
        TrainingError: the loss is not finite.
        DataError: an image cannot be read.
    """
    model.train()
    device = next(model.parameters()).device
    images, loss_sum, wrong, lr, start = 0, 0.0, 0, 0.0, time.perf_counter()
    for step, (pixels, labels) in enumerate(loader.epoch(number), 1):
        labels = labels.to(device)
        logits = model(loader.preprocessing.normalise(pixels.to(device)))
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        value, lr = float(loss.detach()), optimiser.param_groups[0]["lr"]
        if not math.isfinite(value):
            raise _diverged(f"the loss is {value} at step {step} of epoch {number + 1}", lr, number, output)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        images += len(labels)
        loss_sum += value * len(labels)
        wrong += int((logits.argmax(1) != labels).sum())
        reporter.step(number + 1, step, len(loader), images, loss_sum / images, 100 * wrong / images)
    if not images:
        raise DataError(f"{loader.data.spec} has no readable image")
    seconds = time.perf_counter() - start
    return lr, loss_sum / images, 100 * wrong / images, seconds, images / seconds


def _diverged(what: str, lr: float, completed: int, output: Path) -> TrainingError:
    kept = f"{output / 'last.safetensors'} holds epoch {completed}" if completed else "no epoch was completed"
    return TrainingError(f"{what}, with learning rate {lr:.4g}: try a lower lr, or a longer warmup; {kept}")
