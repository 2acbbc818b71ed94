"""A network in training: its steps, and all state that they change.

In short::

    for each epoch:
        begin(): training mode, what the recipe freezes, gradients over processes
        for each batch:
            seed = of (seed, epoch, step)           # dropout, mixing: no generator has a state to save
            pixels, labels -> normalize, mix        # StepInputs
            loss, backward; update, or cancel it    # DeviceStep, in a CUDA graph if possible
            every `read_every` steps: read()        # loss and error; not finite: stop, or skip the step
        evaluate; checkpoint                        # Runner
"""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from senet.data import Loader
from senet.data.augmentation import seed_of
from senet.recipes.recipe import Recipe
from senet.runs.metrics import Epoch
from senet.tasks import ObjectiveContext, get_task
from senet.training.averaging import WeightAverage
from senet.training.device_step import DeviceStep
from senet.training.devices import read_interval, seed_device
from senet.training.distributed.data_parallel import make_parallel
from senet.training.distributed.processes import Processes
from senet.training.epoch_state import EpochState
from senet.training.freezing import begin_epoch
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
from senet.training.step_inputs import StepInputs
from senet.training.step_results import Step, Verdict, judge
from senet.training.stopwatch import Stopwatch
from senet.utils.cuda_graph_capture import GraphBackend
from senet.utils.errors import TrainingError
from senet.utils.notices import announce

__all__ = ["Trainer"]

# Seconds after which results are read although fewer than `read_every` are pending: to show them, and to stop in time.
_SECONDS = 0.5


class Trainer:
    """A network in training: its weights, optimizer and averages, and the epoch and step that it has reached.

    Args:
        model: trained in place; already on its device.
        recipe: of the run.
        training: batches; of several processes, this one's share of them.
        stopwatch: measures the time by kind of work.
        processes: that train the network together; by default this process alone.
        read_every: number of steps whose results are read at once; by default `read_interval` of the device.
        graphs: records steps; by default CUDA graphs on a GPU.

    Raises:
        ValueError: see `make_optimizer`.

    Attributes:
        epochs: completed epochs.
        state: of the epoch in training.
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
        self.task = get_task(recipe.task)
        self.stopwatch = stopwatch or Stopwatch()
        like = next(model.parameters())
        self.device = like.device
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32  # of images, logits and losses
        self.processes = processes or Processes(self.device)
        # Whether all that differs between steps is on the device. With or without a graph, so that bits are equal.
        on_device = self.device.type == "cuda" or graphs is not None
        self.optimizer = make_optimizer(model, recipe, capturable=on_device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.read_every = read_interval(self.device) if read_every is None else read_every
        self._pending: list[tuple[Step, Tensor]] = []  # steps whose results have not been read
        self._read_at = time.perf_counter()
        self.epochs: list[Epoch] = []
        self.learned: dict[str, Any] = {}  # of the last evaluation
        self.start_epoch()
        self.ema = WeightAverage(model, recipe.ema, on_device=on_device) if recipe.ema else None
        if recipe.compile:
            announce("compiling the network with torch.compile: the first steps take longer, up to minutes")
        self._parallel: set[int] = set()  # parameters whose gradients are averaged over processes
        self._trained = select_parameters(model, recipe)
        self._plateau: tuple[int, float] = (-1, 1.0)
        self._objective = self.task.objective(
            ObjectiveContext(
                settings=recipe,
                model=model,
                classes=len(training.data.classes),
                labels=training.labels,
                device=self.device,
                dtype=dtype,
            )
        )
        self._inputs = StepInputs(
            recipe=recipe,
            training=training,
            processes=self.processes,
            objective=self._objective,
            device=self.device,
            dtype=dtype,
            reads_each_step=self.read_every == 1,
        )
        self._step = DeviceStep(
            model=model,
            recipe=recipe,
            optimizer=self.optimizer,
            scaler=self.scaler,
            average=self.ema,
            processes=self.processes,
            stopwatch=self.stopwatch,
            objective=self._objective,
            counters=len(self.task.counters),
            late=self.read_every > 1,
        )
        if recipe.compile and not self.processes.is_distributed:
            self._step.forward = torch.compile(model)
        self._graph = self._graphed_step(graphs) if on_device and recipe.cuda_graph == "auto" else None

    def _graphed_step(self, graphs: GraphBackend | None) -> GraphedStep:
        obstacle = ""
        if self.processes.is_distributed:
            obstacle = "several processes train together"
        elif self.stopwatch.waits:
            obstacle = "the profile waits for the GPU after each kind of work"
        elif self._objective.obstacle:
            obstacle = self._objective.obstacle
        elif not is_capturable(self.optimizer):
            obstacle = f"the optimizer {self.recipe.optimizer!r} reads its learning rate on the host"
        return GraphedStep(
            self._device_step,
            networks=[self.model] if self.ema is None else [self.model, self.ema.module],
            optimizer=self.optimizer,
            obstacle=obstacle,
            undo=self._reset_scaling,
            backend=graphs,
        )

    def release(self) -> None:
        """Release the memory of CUDA graphs, which nothing else can use, when training ends."""
        if self._graph is not None:
            self._graph.release()

    def _reset_scaling(self) -> None:
        """Let the gradient scaler begin a new step: a failed capture may leave it within one."""
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()

    @property
    def evaluated(self) -> Any:
        """The network that is evaluated and saved: with averaged weights if the recipe has `ema`."""
        return self.ema.module if self.ema is not None else self.model

    @property
    def steps(self) -> int:
        """Completed steps of all epochs."""
        return len(self.epochs) * len(self.training) + self.state.step

    @property
    def epoch_steps(self) -> int:
        """Steps of the epoch in training: those of all images, or the remaining ones of a recipe with `iterations`."""
        steps = len(self.training)
        return min(steps, self.recipe.steps(steps) - len(self.epochs) * steps)

    @property
    def is_complete(self) -> bool:
        """Whether all epochs of the recipe are done and evaluated."""
        return len(self.epochs) >= self.recipe.passes(len(self.training))

    def learn(self, entries: dict[str, Any]) -> None:
        """Take what an evaluation adds to the model file, see `Task.learned`."""
        self.learned = entries
        if entries:
            self.evaluated.pretrained_cfg |= entries

    def start_epoch(self) -> None:
        """Start an epoch at its first step, with nothing counted."""
        self.state = EpochState(counts=dict.fromkeys(self.task.counters, 0.0))

    @property
    def training_values(self) -> dict[str, float]:
        """The task's metrics of training, over the steps of the epoch whose results have been read."""
        return self.task.training_values(self.state.loss, self.state.counts, self.state.images)

    def begin(self) -> None:
        """Set training mode, and freeze what the recipe freezes: to be called before the steps of an epoch."""
        begin_epoch(self.model, self.recipe, self._trained, len(self.epochs))
        if self.processes.is_distributed:
            self._make_parallel()

    def _make_parallel(self) -> None:
        """Average gradients over all processes; again if the trained parameters have changed."""
        trained = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}
        if trained != self._parallel and trained:
            example = self._inputs.normalized(self.training.blank(2)[0].to(self.device))
            self.optimizer.zero_grad()
            self._parallel, parallel = trained, make_parallel(self.model, self.processes, self._objective, example)
            self._step.parallel = parallel
            self._step.forward = torch.compile(parallel) if self.recipe.compile else parallel

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the arguments of `train_step` for the remaining steps of the epoch.

        If the data are on the device and the step can make its batches there, the arguments are what it makes them of.
        """
        epoch, step = len(self.epochs), self.state.step
        left = max(0, self.epoch_steps - step)
        if (
            self.training.on_device is not None
            and not self._objective.draws_on_host
            and not self.processes.is_distributed
        ):
            return islice(((crops,) for crops in self.training.crops(epoch, step)), left)
        return islice(self.training.epoch(epoch, step), left)

    def train_step(self, *inputs: Tensor) -> None:
        """Make one step.

        With `read_every` above 1 the host does not wait for the step: `read` returns its result, and is called here
        when it is due. Until then a step that is not finite is cancelled on the device, and so are all that follow
        if the recipe stops at it.

        Args:
            inputs: pixels (N, C, H, W) of 0 to 255 and class indices (N,); or rows of `Loader.crops` (N, 4), from which
                the step makes them. Of several processes, each has its share of the batch, which may be empty if
                images cannot be read.

        Raises:
            TrainingError: see `read`.
        """
        self.state.lr = set_lr(self.optimizer, self.recipe, self._lr_factor(), self.training.batch)
        if self.ema is not None:
            self.ema.prepare(self.steps + 1)
        # Mixing has the seed of the joint batch (1), dropout a seed of each process; image numbers have others.
        epoch, step = len(self.epochs), self.state.step
        seed, own = (seed_of(self.recipe.seed, epoch, step, n) for n in (1, 1 + self.processes.rank))
        seed_device(self.device, own)
        if self._step.can_mask() and not self.processes.is_distributed and len(inputs[0]):
            self._pending.append((self._describe(len(inputs[0])), self._enqueue(inputs, seed)))
        else:
            self._make_step(*self._inputs.pixels(*inputs), seed)
        self.state.step += 1
        if self._is_due():
            self.read()
        self.stopwatch.lap("optimizer")

    def _describe(self, images: int) -> Step:
        return Step(epoch=len(self.epochs) + 1, number=self.state.step + 1, lr=self.state.lr, images=images)

    def _enqueue(self, inputs: tuple[Tensor, ...], seed: int) -> Tensor:
        """Let the device make a step, in a CUDA graph if possible; returns the values of its `StepResult`."""
        if self._objective.draws_on_host:
            inputs = self._inputs.prepare(*self._inputs.pixels(*inputs), seed, 1)
        return self._device_step(*inputs) if self._graph is None else self._graph(*inputs)

    def _device_step(self, *inputs: Tensor) -> Tensor:
        """Make a whole step of a single process, as a function of tensors on the device: a CUDA graph can record it.

        Args:
            inputs: crops of data on the device; or pixels and labels; or, if the recipe mixes images by numbers that
                the host draws, the images, targets and labels.

        Returns:
            The values of its result, (4,).
        """
        if not self._objective.draws_on_host:
            inputs = self._inputs.prepare(*self._inputs.pixels(*inputs), 0, 1)
        return self._step.masked(self._inputs.own_batch(*inputs))

    def _make_step(self, pixels: Tensor, labels: Tensor, seed: int) -> None:
        """Make a step that no graph can record: with other processes, or with its result read before it ends."""
        joint = self._inputs.joint_batch(pixels, labels, seed)
        if joint is None:  # no process could read an image of the batch
            return
        batch, count = joint
        if self._step.can_mask():
            self._pending.append((self._describe(count), self._step.masked(batch)))
            return
        result = self._step.gradient(batch)
        self._pending.append((self._describe(count), result.values))
        verdict = self.read()
        self._step.apply(batch, result, verdict.dropped, bool(verdict.problem))

    def read(self) -> Verdict:
        """Wait for all steps made so far, and count them in `state`.

        Returns:
            The result of the last step; a result without images if there is none.

        Raises:
            TrainingError: a loss or gradient is not finite, and the recipe stops at that. No later step has changed
                anything, and `state.step` is the number of that step.
        """
        pending, self._pending = self._pending, []
        self._read_at = time.perf_counter()
        values = torch.stack([values for _, values in pending]).tolist() if pending else []
        verdicts = [judge(one) for one in values]
        for (step, _), verdict in zip(pending, verdicts, strict=True):
            if not verdict.problem:
                self.state.images += step.images
                self.state.loss_sum += verdict.loss * step.images
                for name, count in zip(self.task.counters, verdict.counts, strict=True):
                    self.state.counts[name] += count
            elif self.recipe.on_nonfinite == "skip":
                self.state.left_out += 1
            else:
                self.state.step, self.state.lr = step.number, step.lr
                self._step.clear_failure()
                raise self.processes.mark_shared(
                    TrainingError(
                        f"{verdict.problem} at step {step.number} of epoch {step.epoch}, with learning rate "
                        f"{step.lr:.4g}: try a lower lr, or a longer warmup, in another folder; or --resume with "
                        f"on_nonfinite=skip, which skips such steps"
                    )
                )
        return verdicts[-1] if verdicts else Verdict(loss=0.0, counts=(), dropped=False, problem="")

    def _is_due(self) -> bool:
        """Return whether results must be read: also after some seconds, unless other processes must read with this."""
        waited = time.perf_counter() - self._read_at > _SECONDS and not self.processes.is_distributed
        return len(self._pending) >= self.read_every or bool(self._pending and waited)

    def _lr_factor(self) -> float:
        if self._plateau[0] != len(self.epochs):
            errors = [self.task.decisive.as_cost(epoch.metrics[self.task.decisive.key]) for epoch in self.epochs]
            self._plateau = (len(self.epochs), plateau_factor(self.recipe, errors))
        return lr_factor(self.recipe, self.steps, len(self.training)) * self._plateau[1]

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides how training continues, as tensors, numbers, text, and lists and dicts of these.

        Raises:
            TrainingError: see `read`, which is called first.
        """
        self.read()
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": portable_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "epochs": [epoch.as_row() for epoch in self.epochs],
            "skipped": list(self.training.skipped),
            "learned": self.learned,
            **self.state.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError: it does not fit this trainer.
        """
        self._pending = []
        self._step.clear_failure()
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        load_state(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.learn(state.get("learned", {}))  # earlier versions had none
        self.epochs[:] = [Epoch.from_row(epoch, self.task) for epoch in state["epochs"]]
        self.training.skipped[:] = dict.fromkeys([*state["skipped"], *self.training.skipped])
        self.state = EpochState.from_state_dict(state, self.task.counters)
