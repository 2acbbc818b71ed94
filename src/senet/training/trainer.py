"""One step of training, and all that it changes.

In short::

    seed = of (seed, epoch, step)              # dropout, mixing: no generator has a state to be kept
    pixels, labels -> normalise, mix
    DeviceStep: loss, backward; an update, or none where they are not finite
    every so many steps: read what these came to; not finite: stop, or leave the step out

Of several processes each has its share of the batch. Its loss is a sum over the share, divided by the images (or their
weights) of the whole batch, so that the gradients of all add up to that of the joint batch.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from senet.data import Loader
from senet.data.augmentation import seed_of
from senet.nn.batch_norm_utils import batch_norms
from senet.recipes.recipe import Recipe
from senet.runs.metrics import Epoch
from senet.training.averaging import WeightAverage
from senet.training.device_step import Batch, DeviceStep
from senet.training.devices import read_interval
from senet.training.distributed.data_parallel import make_parallel
from senet.training.distributed.processes import Processes
from senet.training.mixing import Mixing
from senet.training.optimizers import (
    is_capturable,
    load_state,
    lr_factor,
    make_optimizer,
    plateau_factor,
    portable_state,
    select_parameters,
    set_lr,
)
from senet.training.step_graph import GraphedStep
from senet.training.step_results import Step, Verdict, judge
from senet.training.stopwatch import Stopwatch
from senet.utils.cuda_graphs import GraphBackend
from senet.utils.errors import TrainingError
from senet.utils.notices import announce

__all__ = ["Trainer"]

# Seconds after which steps are read that are fewer than the interval: for what is shown, and to stop in time.
_SECONDS = 0.5


class Trainer:
    """A network in training: its weights, optimizer, averages, and how far it is.

    Args:
        model: trained in place; on its device already.
        recipe: says how.
        training: batches.
        stopwatch: is told where the time goes.
        processes: that train it together, `training` having this one's shares of the batches; this one alone unless
            given.
        read_every: steps whose results are read together; `read_interval` of the device unless given.
        graphs: what captures steps; CUDA graphs on a GPU unless given.

    Raises:
        ValueError: see `make_optimizer`.

    Attributes:
        epochs: completed.
        step: steps done of the epoch after these.
        images, loss_sum, wrong: of that epoch, as far as its steps have been read.
        left_out: of these steps, those whose loss or gradient was not finite.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        training: Loader,
        stopwatch: Stopwatch | None = None,
        processes: Processes | None = None,
        read_every: int | None = None,
        graphs: GraphBackend | None = None,
    ) -> None:
        self.model, self.recipe, self.training = model, recipe, training
        self.stopwatch = stopwatch or Stopwatch()
        like = next(model.parameters())
        self.device = like.device
        self._scale = training.preprocessing.scale(self.device)  # a CUDA graph of a step reads it
        self._kind = torch.float64 if like.dtype == torch.float64 else torch.float32  # of images, logits and losses
        self.processes = processes or Processes(self.device)
        # Whether all that differs between steps is on the device. With or without a graph: the bits are then the same.
        on_device = self.device.type == "cuda" or graphs is not None
        self.optimizer = make_optimizer(model, recipe, capturable=on_device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.read_every = read_interval(self.device) if read_every is None else read_every
        self._pending: list[tuple[Step, Tensor]] = []  # steps that are not read
        self._read_at = time.perf_counter()
        self.epochs: list[Epoch] = []
        self.start_epoch()
        self.ema = WeightAverage(model, recipe.ema, on_device=on_device) if recipe.ema else None
        if recipe.compile:
            announce("compiling the network with torch.compile: the first steps take longer, up to minutes")
        self._parallel: set[int] = set()  # parameters whose gradients go to all processes
        self._trained = select_parameters(model, recipe)
        self._mixing = Mixing(recipe, len(training.data.classes)) if recipe.mixup or recipe.cutmix else None
        self._weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            counts = torch.bincount(training.labels, minlength=len(training.data.classes)).clamp(min=1)
            self._balance = (training.images / (len(counts) * counts)).to(self._kind)
            self._weights = self._balance.to(self.device)
        self._plateau: tuple[int, float] = (-1, 1.0)
        self._work = DeviceStep(
            *(model, recipe, self.optimizer, self.scaler, self.ema, self.processes, self.stopwatch),
            weights=self._weights,
            kind=self._kind,
            late=self.read_every > 1,
        )
        if recipe.compile and not self.processes.is_distributed:
            self._work.forward = torch.compile(model)
        self._graph = self._graphed_step(graphs) if on_device and recipe.cuda_graph == "auto" else None

    def _graphed_step(self, graphs: GraphBackend | None) -> GraphedStep:
        obstacle = ""
        if self.processes.is_distributed:
            obstacle = "several processes train together"
        elif self.stopwatch.waits:
            obstacle = "the profile waits for the GPU after each kind of work"
        elif not is_capturable(self.optimizer):
            obstacle = f"the optimizer {self.recipe.optimizer!r} reads its learning rate on the host"
        return GraphedStep(
            self._device_step,
            networks=[self.model] if self.ema is None else [self.model, self.ema.module],
            optimizer=self.optimizer,
            obstacle=obstacle,
            undo=self._forget_scaling,
            backend=graphs,
        )

    def release(self) -> None:
        """Release the memory of CUDA graphs, which nothing else can use, when training ends."""
        if self._graph is not None:
            self._graph.release()

    def _forget_scaling(self) -> None:
        """Let the gradient scaler begin a step anew: a capture that fails may leave it in the middle of one."""
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()

    @property
    def _forward(self) -> Any:
        return self._work.forward

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
        if self.processes.is_distributed:
            self._make_parallel()

    def _make_parallel(self) -> None:
        """Let gradients go to all processes; anew where other parameters are trained than before."""
        trained = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}
        if trained != self._parallel and trained:
            example = self.training.preprocessing.normalise(self._images(2)).to(self.device, self._kind)
            self.optimizer.zero_grad()
            self._parallel, parallel = trained, make_parallel(self.model, self.processes, example)
            self._work.parallel = parallel
            self._work.forward = torch.compile(parallel) if self.recipe.compile else parallel

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The arguments of `train_step` for the steps that are left of the epoch.

        Where the data are on the device and the step can make its batches there, these are what it makes them from.
        """
        epoch = len(self.epochs)
        if self.training.on_device is not None and self._mixing is None and not self.processes.is_distributed:
            return ((crops,) for crops in self.training.crops(epoch, self.step))
        return self.training.epoch(epoch, self.step)

    def train_step(self, *inputs: Tensor) -> None:
        """Make one step on a batch.

        Args:
            inputs: pixels (N, C, H, W) of 0 to 255 and class indices (N,); or (N, 4), rows of `Loader.crops`, from
                which the step makes them.

        With `read_every` above 1 the host does not wait for the step: its result is known after `read`, which is called
        here when it is due. Until then a step that is not finite is cancelled on the device, and where the recipe is to
        stop at it, so are all that follow.

        Of several processes, each has its share of the batch, which may be empty where images cannot be read.

        Raises:
            TrainingError: see `read`.
        """
        self.lr = set_lr(self.optimizer, self.recipe, self._lr_factor(), self.training.batch)
        if self.ema is not None:
            self.ema.prepare(self.steps + 1)
        # Dropout is each process's own, mixing that of the joint batch.
        seed, own = (seed_of(self.recipe.seed, len(self.epochs), self.step, n) for n in (1, 1 + self.processes.rank))
        self._seed(own)  # the 1: and none of an image of that number
        if self._work.can_mask() and not self.processes.is_distributed and len(inputs[0]):
            self._pending.append((self._about(len(inputs[0])), self._queue(inputs, seed)))
        else:
            pixels, labels = self._pixels(*inputs)
            self._make_step(pixels, labels, seed)
        self.step += 1
        if self._is_due():
            self.read()
        self.stopwatch.lap("optimizer")

    def _seed(self, seed: int) -> None:
        """Seed what a step draws from; `torch.manual_seed` looks at all kinds of devices, which takes 0.1 ms."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda" and torch.cuda.default_generators:  # none for tensors without data
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _about(self, images: int) -> Step:
        return Step(len(self.epochs) + 1, self.step + 1, self.lr, images)

    def _queue(self, inputs: tuple[Tensor, ...], seed: int) -> Tensor:
        """Let the device make a step, in a CUDA graph if possible; the values of its result, (4,)."""
        if self._mixing is not None:
            pixels, labels = self._pixels(*inputs)
            inputs = self._inputs(pixels, labels, seed, 1)
        return self._device_step(*inputs) if self._graph is None else self._graph(*inputs)

    def _make_step(self, pixels: Tensor, labels: Tensor, seed: int) -> None:
        """Make a step that cannot be captured: with other processes, or with a look at its result before it ends."""
        shares, weight = self._shares(labels)
        count = sum(shares)
        if not count:  # none of the batch could be read, by any process
            return
        divisor = count if self._weights is None or self._mixing is not None else weight
        parts = min(self.recipe.accumulate, *(share for share in shares if share), count)
        batch = Batch(*self._inputs(pixels, labels, seed, parts), divisor, parts, not len(labels))
        if self._work.can_mask():
            self._pending.append((self._about(count), self._work.masked(batch)))
            return
        result = self._work.gradient(batch)
        self._pending.append((self._about(count), result.values))
        verdict = self.read()
        self._work.apply(batch, result, verdict.dropped, bool(verdict.problem))

    def read(self) -> Verdict:
        """Wait for the steps made so far, and count them: `images`, `loss_sum`, `wrong` and `left_out` are then exact.

        Returns:
            The last one's result; of no step, that of one without images.

        Raises:
            TrainingError: a loss or gradient is not finite, and the recipe is to stop at that. No step after it has
                changed anything, and `step` is its number.
        """
        pending, self._pending = self._pending, []
        self._read_at = time.perf_counter()
        verdicts = (
            [judge(values) for values in torch.stack([values for _, values in pending]).tolist()] if pending else []
        )
        for (step, _), verdict in zip(pending, verdicts, strict=True):
            if not verdict.problem:
                self.images += step.images
                self.loss_sum += verdict.loss * step.images
                self.wrong += verdict.wrong
            elif self.recipe.on_nonfinite == "skip":
                self.left_out += 1
            else:
                self.step, self.lr = step.number, step.lr
                self._work.start_anew()
                raise self.processes.mark_shared(
                    TrainingError(
                        f"{verdict.problem} at step {step.number} of epoch {step.epoch}, with learning rate "
                        f"{step.lr:.4g}: try a lower lr, or a longer warmup, in another folder; or --resume with "
                        f"on_nonfinite=skip, which leaves such steps out"
                    )
                )
        return verdicts[-1] if verdicts else Verdict(0.0, 0, False, "")

    def _is_due(self) -> bool:
        """Whether steps are to be read: after some seconds, too, if no other process has to read them with this one."""
        waited = time.perf_counter() - self._read_at > _SECONDS and not self.processes.is_distributed
        return len(self._pending) >= self.read_every or bool(self._pending and waited)

    def _shares(self, labels: Tensor) -> tuple[list[int], float | Tensor]:
        """How many images of the batch each process has, and the weight of all images together."""
        if self._weights is None:
            return self.processes.batch_sizes(len(labels), 0.0)
        if self.read_every == 1 or (labels.device.type == "cpu" and self.device.type != "cpu"):
            return self.processes.batch_sizes(len(labels), float(self._balance[labels.cpu()].sum()))
        weight = self._weights[labels].sum()
        self.processes.sum_in_place(weight)
        return self.processes.batch_sizes(len(labels), 0.0)[0], weight

    def _pixels(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and labels, from these or from crops of data on the device."""
        if len(inputs) == 1 and self.training.on_device is not None:
            return self.training.on_device.batch(inputs[0])
        pixels, labels = inputs
        return pixels, labels

    def _inputs(self, pixels: Tensor, labels: Tensor, seed: int, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images and targets that the network is trained on, and the classes that errors are counted by."""
        empty = not len(labels)
        if empty:  # two images without weight, for batch norms that are this process's own
            pixels, labels = self._images(2 * parts), torch.zeros(2 * parts, dtype=torch.long)
        classes = labels.to(self.device, non_blocking=True)
        pixels = pixels.to(self.device, non_blocking=True)
        images = self.training.preprocessing.normalise(pixels, self._scale).to(self._kind)
        targets = classes
        if self._mixing is not None:
            images, targets = self._mixing(images, classes, seed)
        if empty and self.recipe.sync_bn:
            images, targets, classes = images[:0], targets[:0], classes[:0]
        return images, targets, classes

    def _device_step(self, *inputs: Tensor) -> Tensor:
        """A whole step of one process as a function of tensors on the device, which can be captured in a CUDA graph.

        Args:
            inputs: crops of data on the device; pixels and labels; or images, targets and classes where images are
                mixed, by numbers that the host draws.

        Returns:
            The values of its result, (4,).
        """
        if self._mixing is None:
            pixels, labels = self._pixels(*inputs)
            inputs = self._inputs(pixels, labels, 0, 1)
        images, targets, classes = inputs
        parts, divisor = min(self.recipe.accumulate, len(classes)), len(classes)
        weight = None if self._weights is None or self._mixing is not None else self._weights[classes].sum()
        return self._work.masked(Batch(images, targets, classes, divisor if weight is None else weight, parts, False))

    def _images(self, count: int) -> Tensor:
        """Black images, of the size of others."""
        shape = self.training.preprocessing
        return torch.zeros(count, len(shape.mean), *shape.size, dtype=torch.uint8)

    def _lr_factor(self) -> float:
        if self._plateau[0] != len(self.epochs):
            errors = [epoch.top1_error for epoch in self.epochs]
            self._plateau = (len(self.epochs), plateau_factor(self.recipe, errors))
        return lr_factor(self.recipe, self.steps, len(self.training)) * self._plateau[1]

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides how training continues, as tensors, numbers, text, and lists and dicts of these.

        Raises:
            TrainingError: see `read`, which is called before.
        """
        self.read()
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": portable_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "epochs": [vars(epoch) for epoch in self.epochs],
            "skipped": list(self.training.skipped),
        } | {name: getattr(self, name) for name in _COUNTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` was; a RuntimeError, KeyError, TypeError or ValueError if it does not fit."""
        self._pending = []
        self._work.start_anew()
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        load_state(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epochs[:] = [Epoch(**epoch) for epoch in state["epochs"]]
        self.training.skipped[:] = dict.fromkeys([*state["skipped"], *self.training.skipped])
        for name, kind in _COUNTS.items():
            setattr(self, name, kind(state[name]))


# Of the epoch under way.
_COUNTS = {"step": int, "images": int, "wrong": int, "left_out": int, "loss_sum": float, "seconds": float, "lr": float}
