"""One step of training, and all that it changes.

In short::

    seed = of (seed, epoch, step)              # dropout, mixing: no generator has a state to be kept
    pixels, labels -> normalise, mix
    for each part of the batch: loss = cross_entropy(model(images), targets); backward
    not finite: stop, or leave the step out
    optimiser.step(); average the weights

Of several processes each has its share of the batch. Its loss is a sum over the share, divided by the images (or their
weights) of the whole batch, so that the gradients of all add up to that of the joint batch.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.batch_norm_tools import batch_norms
from senet.data import Loader
from senet.data.preprocessing import seed_of
from senet.errors import TrainingError
from senet.notices import announce
from senet.training.mixing import Mixing
from senet.training.optimisation import lr_factor, make_optimiser, plateau_factor, select_parameters, set_lr
from senet.training.parallel import make_parallel
from senet.training.processes import Processes
from senet.training.recipe import Recipe
from senet.training.reporting import Epoch
from senet.training.stopwatch import Stopwatch

__all__ = ["Trainer", "pick_device"]


def pick_device(recipe: Recipe) -> torch.device:
    """The device that a recipe trains on.

    Raises:
        ValueError: it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = recipe.device if recipe.device != "auto" else next(name for name, is_there in there.items() if is_there)
    if not there[name]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ValueError(f"device is {name!r}, and PyTorch finds none here: use device=auto, or one of {found}")
    return torch.device(name)


class Trainer:
    """A network in training: its weights, optimiser, averages, and how far it is.

    Args:
        model: trained in place; on its device already.
        recipe: says how.
        training: batches.
        stopwatch: is told where the time goes.
        processes: that train it together, `training` having this one's shares of the batches; this one alone unless
            given.

    Raises:
        ValueError: see `make_optimiser`.

    Attributes:
        epochs: completed.
        step: steps done of the epoch after these.
        left_out: steps of that epoch whose loss or gradient was not finite.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        training: Loader,
        stopwatch: Stopwatch | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.recipe, self.training = model, recipe, training
        self.stopwatch = stopwatch or Stopwatch()
        like = next(model.parameters())
        self.device = like.device
        self._kind = torch.float64 if like.dtype == torch.float64 else torch.float32  # of images, logits and losses
        self.processes = processes or Processes(None, self.device)
        self.optimiser = make_optimiser(model, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.epochs: list[Epoch] = []
        self.start_epoch()
        self.ema = self._average() if recipe.ema else None
        if recipe.compile:
            announce("compiling the network with torch.compile: the first steps take longer, up to minutes")
        self._forward: Any = torch.compile(model) if recipe.compile and not self.processes.many else model
        self._parallel: tuple[set[int], Any] = (set(), None)
        self._trained = select_parameters(model, recipe)
        self._mixing = Mixing(recipe, len(training.data.classes)) if recipe.mixup or recipe.cutmix else None
        self._weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            counts = torch.bincount(training.labels, minlength=len(training.data.classes)).clamp(min=1)
            self._balance = (training.images / (len(counts) * counts)).to(self._kind)
            self._weights = self._balance.to(self.device)
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
        self._plateau: tuple[int, float] = (-1, 1.0)

    @property
    def evaluated(self) -> Any:
        """The network that is evaluated and saved: with averaged weights, where there are."""
        return self.ema.module if self.ema is not None else self.model

    @property
    def steps(self) -> int:
        """Steps that were done, over all epochs."""
        return len(self.epochs) * len(self.training) + self.step

    @property
    def train_loss(self) -> float:
        """Mean loss over the epoch so far, in nats."""
        return self.loss_sum / max(self.images, 1)

    @property
    def train_error(self) -> float:
        """Error over the epoch so far, in percent."""
        return 100 * self.wrong / max(self.images, 1)

    def start_epoch(self) -> None:
        """At no step of an epoch, with nothing counted."""
        self.step = self.images = self.wrong = self.left_out = 0
        self.loss_sum = self.seconds = self.lr = 0.0

    def begin(self) -> None:
        """Training mode, with what the recipe freezes frozen: to be called before the steps of an epoch."""
        self.model.train()
        last = len(self.epochs) >= self.recipe.epochs - self.recipe.freeze_bn_epochs
        only_se = self.recipe.train_only == "se"
        frozen = {id(p) for bn in batch_norms(self.model) for p in bn.parameters(recurse=False)} if last else set()
        trained = {id(parameter) for parameter in self._trained}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in trained - frozen)
        if last or only_se:
            for bn in batch_norms(self.model):
                bn.training = False  # the module's own mode, and not that of an SE block in it
        if self.processes.many:
            self._make_parallel()

    def _make_parallel(self) -> None:
        """Let gradients go to all processes; anew where other parameters are trained than before."""
        trained = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}
        if trained != self._parallel[0] and trained:
            example = self.training.preprocessing.normalise(self._images(2)).to(self.device, self._kind)
            self.optimiser.zero_grad()
            self._parallel = (trained, make_parallel(self.model, self.processes, example))
            self._forward = torch.compile(self._parallel[1]) if self.recipe.compile else self._parallel[1]

    def train_step(self, pixels: Tensor, labels: Tensor) -> None:
        """One step on a batch: pixels (N, C, H, W) of 0 to 255, class indices (N,).

        Of several processes, each has its share of the batch, which may be empty where images cannot be read.

        Raises:
            TrainingError: the loss or gradient is not finite, and the recipe is to stop at that.
        """
        self.lr = set_lr(self.optimiser, self.recipe, self._lr_factor(), self.training.batch)
        weight = 0.0 if self._weights is None else float(self._balance[labels].sum())
        shares, weight = self.processes.shares(len(labels), weight)
        images = sum(shares)
        if not images:  # none of the batch could be read, by any process
            self.step += 1
            return
        # Dropout is each process's own, mixing that of the joint batch.
        seed, own = (seed_of(self.recipe.seed, len(self.epochs), self.step, n) for n in (1, 1 + self.processes.rank))
        torch.manual_seed(own)  # the 1: and none of an image of that number
        kept = self._statistics() if self.recipe.on_nonfinite == "skip" or not len(labels) else []
        divisor = images if self._weights is None or self._mixing is not None else weight
        parts = min(self.recipe.accumulate, *(count for count in shares if count), images)
        loss, wrong = self._backward(pixels, labels, seed, divisor, parts)
        finite = math.isfinite(loss)
        problem = "" if finite else f"the loss is {loss}"
        if finite:
            problem = self._update()
        self.step += 1
        if problem and self.recipe.on_nonfinite == "stop":
            message = (
                f"{problem} at step {self.step} of epoch {len(self.epochs) + 1}, with learning rate {self.lr:.4g}: try "
                f"a lower lr, or a longer warmup, in another folder; or --resume with on_nonfinite=skip, which leaves "
                f"such steps out"
            )
            raise self.processes.once(TrainingError(message))
        if problem or not len(labels):
            for buffer, value in kept:
                buffer.copy_(value)
        if problem:
            self.left_out += 1
        else:
            self.images += images
            self.loss_sum += loss * images
            self.wrong += wrong
        self.stopwatch.lap("optimiser")

    def _backward(self, pixels: Tensor, labels: Tensor, seed: int, divisor: float, parts: int) -> tuple[float, int]:
        """The gradient of a batch, part by part; its loss, and how many labels were not the first."""
        many, world = self.processes.many, self.processes.world
        empty = not len(labels)
        if empty:  # two images without weight, for batch norms that are this process's own
            pixels, labels = self._images(2 * parts), torch.zeros(2 * parts, dtype=torch.long)
        labels = labels.to(self.device, non_blocking=True)
        images = self.training.preprocessing.normalise(pixels.to(self.device, non_blocking=True)).to(self._kind)
        targets, smoothing = labels, self.recipe.label_smoothing
        if self._mixing is not None:
            images, targets = self._mixing(images, labels, seed)
            smoothing = 0.0  # it is in the targets
        if empty and self.recipe.sync_bn:
            images, targets, labels = images[:0], targets[:0], labels[:0]
        sums = torch.zeros(2, device=self.device, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        pieces = zip(images.tensor_split(parts), targets.tensor_split(parts), labels.tensor_split(parts), strict=True)
        for number, (some, aims, classes) in enumerate(pieces):
            self.stopwatch.lap("data")
            # Gradients go to the others once, with those of all parts.
            alone = self._parallel[1].no_sync() if many and number < parts - 1 else nullcontext()
            with alone:
                with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
                    logits = self._forward(some).to(self._kind)
                loss = F.cross_entropy(logits, aims, self._weights, label_smoothing=smoothing, reduction="sum")
                loss = loss * 0.0 if empty else loss / divisor
                wrong = (logits.detach().argmax(1) != classes).sum()
                sums += torch.stack((loss.detach(), wrong * 0 if empty else wrong))
                if parts == 1 and not many and not bool(sums[0].isfinite()):
                    break  # and spare the way back, on which others would wait
                self.stopwatch.lap("forward")
                if number == 0:
                    # As late as can be: the way back then takes the memory of the gradients before, and no new pages.
                    self.optimiser.zero_grad()
                # What comes back is a mean over processes.
                self.scaler.scale(loss * world if many else loss).backward()  # type: ignore[no-untyped-call]
            self.stopwatch.lap("backward")
        total, wrong = self.processes.sum(sums.tolist())
        return total, int(wrong)

    def _images(self, count: int) -> Tensor:
        """Black images, of the size of others."""
        shape = self.training.preprocessing
        return torch.zeros(count, len(shape.mean), *shape.size, dtype=torch.uint8)

    def _update(self) -> str:
        """A step of the optimiser; or what is wrong with the gradient, and no step."""
        self.scaler.unscale_(self.optimiser)
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            return f"the norm of the gradient is {norm}"
        before = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if not math.isfinite(norm):
            # Half precision finds its scale by steps like this one; but none is left below 1.
            return f"the norm of the gradient is {norm}, at the scale {before}" if before <= 1 else ""
        if self.ema is not None:
            self.ema.update(self.model, step=self.steps + 1)
        return ""

    def _lr_factor(self) -> float:
        if self._plateau[0] != len(self.epochs):
            errors = [epoch.top1_error for epoch in self.epochs]
            self._plateau = (len(self.epochs), plateau_factor(self.recipe, errors))
        return lr_factor(self.recipe, self.steps, len(self.training)) * self._plateau[1]

    def _statistics(self) -> list[tuple[Tensor, Tensor]]:
        """Copies of the buffers: a forward pass that is not finite spoils the running statistics."""
        return [(buffer, buffer.clone()) for buffer in self.model.buffers()]

    def _average(self) -> Any:
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.model, decay=self.recipe.ema, use_warmup=True)

    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on, as tensors, numbers, text, and lists and dicts of these."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epochs": [vars(epoch) for epoch in self.epochs],
            "skipped": list(self.training.skipped),
        } | {name: getattr(self, name) for name in _COUNTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` was; a RuntimeError, KeyError, TypeError or ValueError if it does not fit."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.epochs[:] = [Epoch(**epoch) for epoch in state["epochs"]]
        self.training.skipped[:] = dict.fromkeys([*state["skipped"], *self.training.skipped])
        for name, kind in _COUNTS.items():
            setattr(self, name, kind(state[name]))


# Of the epoch under way.
_COUNTS = {"step": int, "images": int, "wrong": int, "left_out": int, "loss_sum": float, "seconds": float, "lr": float}
