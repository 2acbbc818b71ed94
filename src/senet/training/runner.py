"""The epochs of a run: steps, evaluation, checkpoints and results; and the error with which a run ends early."""

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from senet.data import Loader
from senet.runs.folder import RunFolder
from senet.runs.metrics import Epoch, best_of
from senet.runs.publishing import publish
from senet.runs.reporting import Reporter, Run, describe_position
from senet.tasks import Result
from senet.training.checkpoint import write_checkpoint
from senet.training.determinism import explain_refusal
from senet.training.distributed.errors import explain_peer_loss
from senet.training.loggers import RunLoggers
from senet.training.memory import explain_memory
from senet.training.signals import Stopped, StopRequest
from senet.training.trainer import Trainer
from senet.utils.errors import DataError, NonFiniteError, PeerLostError, TrainingError, first_line
from senet.utils.worker_errors import is_worker_exit

__all__ = ["Runner", "train_epoch"]

# Seconds between the two signals that a process gets for one Ctrl-C: from the terminal, and from torchrun.
_GRACE = 3.0
# Maximum proportion of a run's time for drawing curves; those of the first and the last epoch are always drawn.
_DRAWING = 0.05


def train_epoch(trainer: Trainer, reporter: Reporter, after_step: Callable[[], None] = lambda: None) -> None:
    """Train the remaining steps of an epoch.

    Args:
        trainer: its `state` counts the steps.
        reporter: shows each step.
        after_step: called after each step.

    Raises:
        TrainingError: loss or gradient is not finite, or was not in any step of the epoch.
        DataError: an image, or every image, cannot be read.
    """
    trainer.begin()
    loader, watch, number, steps = trainer.training, trainer.stopwatch, len(trainer.epochs), trainer.epoch_steps
    watch.restart()
    since = time.perf_counter()
    for inputs in trainer.batches():
        if len(inputs[0]) or trainer.processes.is_distributed:  # others may have images of the batch
            trainer.train_step(*inputs)
        else:
            trainer.state.step += 1  # none of its images could be read
        if trainer.state.step == steps:
            trainer.read()
        reporter.step(number + 1, trainer.state.step, steps, trainer.state.images, trainer.training_values)
        watch.lap("reporting")
        trainer.state.seconds += time.perf_counter() - since
        after_step()
        since = time.perf_counter()
    trainer.read()
    mark_shared = trainer.processes.mark_shared
    if trainer.state.left_out and not trainer.state.images:
        raise mark_shared(
            TrainingError(f"no step of epoch {number + 1} had a finite loss and gradient: try a lower lr")
        )
    if not trainer.state.images:
        raise mark_shared(DataError(f"{loader.data.spec} has no readable image"))


class Runner:
    """Trains the epochs of a run.

    Args:
        trainer: the network in training, at its start or restored from a checkpoint.
        validation: batches to evaluate on.
        folder: of the run.
        identity: of the run, for its checkpoints.
        reporter: shows the progress.
        title: of the curves.
    """

    def __init__(
        self,
        *,
        trainer: Trainer,
        validation: Loader,
        folder: RunFolder,
        identity: dict[str, Any],
        reporter: Reporter,
        title: str,
    ) -> None:
        self.trainer, self.validation, self.folder = trainer, validation, folder
        self.identity, self.reporter, self.title = identity, reporter, title
        self.processes = trainer.processes
        self.stop = StopRequest(self.processes.is_distributed, _GRACE if "TORCHELASTIC_RUN_ID" in os.environ else 0.0)
        self.processes.stop = self.stop
        self.saved = -1  # steps at the last checkpoint
        self.drawn = 0  # epochs in the curves
        self.draw_at = -math.inf  # time in seconds at which they are drawn again

    def run(self, resumed: bool, loggers: RunLoggers | None) -> Run:
        """Train the remaining epochs.

        Raises:
            TrainingError: see `senet.train`.
        """
        trainer = self.trainer
        if resumed:
            self.saved = trainer.steps
            self._report_position()
            if trainer.epochs and not trainer.state.step and self.processes.is_first:
                self._publish()  # the run may have been killed before
        with self.stop:
            try:
                while not trainer.is_complete:
                    self._epoch(loggers)
                    self.processes.sum_numbers([])  # shares a signal
                    self.stop.check()
            except Stopped:
                if self.saved != trainer.steps:
                    self._save()
                if self.processes.is_first and self.drawn < len(trainer.epochs):
                    self._publish(draw=True)
                self.processes.gather(None)  # torchrun ends all when one ends, and the first may still be saving
            except (DataError, OSError, TrainingError, ValueError) as error:
                # A ValueError too is a failure of the run: what the user could have given wrongly was checked before.
                raise self.processes.final_error(f"{error}; {self._kept()}", error) from error
            except (RuntimeError, MemoryError) as error:
                explanation = self._explain(error)
                lost = ""
                if self.processes.is_distributed and not explanation:
                    lost = explain_peer_loss(error, self.processes.timeout)
                if not explanation and not lost:
                    raise
                cause = PeerLostError(lost) if lost else error
                raise self.processes.final_error(f"{explanation or lost}; {self._kept()}", cause) from error
        return Run(
            output=self.folder.path,
            epochs=trainer.epochs,
            signal=None if trainer.is_complete else self.stop.signal,
            step=trainer.state.step,
            skipped=trainer.training.skipped + self.validation.skipped,
            seconds=dict(trainer.stopwatch.seconds),
            task=trainer.task,
        )

    def _epoch(self, loggers: RunLoggers | None) -> None:
        trainer, watch = self.trainer, self.trainer.stopwatch
        train_epoch(trainer, self.reporter, self._after_step)
        if self.processes.is_distributed and self.saved != trainer.steps:
            # No signal ends an evaluation of several processes, and torchrun kills them after 30 seconds.
            with watch.measure("checkpoint"):
                self._save()
        with watch.measure("evaluation"):
            for model in {id(model): model for model in (trainer.model, trainer.evaluated)}.values():
                self.processes.broadcast_buffers(model)
            scores = self._evaluate()
            self.validation.skipped[:] = self.processes.union(self.validation.skipped)
        trainer.learn(trainer.task.learned(scores))
        number = len(trainer.epochs) + 1
        epoch = Epoch(
            epoch=number,
            lr=trainer.state.lr,
            metrics=trainer.training_values | trainer.task.values(scores),
            seconds=trainer.state.seconds,
            images_per_second=trainer.state.images / trainer.state.seconds,
            nonfinite_steps=trainer.state.left_out,
        )
        trainer.epochs.append(epoch)
        trainer.start_epoch()
        with watch.measure("checkpoint"):
            self._save()
            if self.processes.is_first:
                self._publish(draw=trainer.is_complete)
            if loggers is not None:
                loggers.write(trainer.epochs)
        self.reporter.epoch(epoch, epoch is best_of(trainer.epochs, trainer.task))

    def _evaluate(self) -> Result:
        trainer, peers = self.trainer, self.processes if self.processes.is_distributed else None
        try:
            return trainer.task.evaluate(trainer.evaluated, self.validation, progress=self._progress, peers=peers)
        except NonFiniteError as error:
            message = (
                f"the validation loss is nan after epoch {len(trainer.epochs) + 1}, with learning rate "
                f"{trainer.state.lr:.4g}: try a lower lr, or a longer warmup; {error}"
            )
            raise self.processes.mark_shared(TrainingError(message)) from error

    def _publish(self, draw: bool = False) -> None:
        """Write models and metrics, and the curves if they are due: drawing them takes longer than a short epoch."""
        since = time.monotonic()
        draw = draw or since >= self.draw_at
        publish(
            self.trainer.evaluated, self.trainer.epochs, self.folder, self.title if draw else None, self.trainer.task
        )
        if draw:
            self.drawn, now = len(self.trainer.epochs), time.monotonic()
            self.draw_at = now + (now - since) / _DRAWING

    def _after_step(self) -> None:
        every = self.trainer.recipe.checkpoint_every
        if every and self.trainer.steps % every == 0:
            with self.trainer.stopwatch.measure("checkpoint"):
                self._save()
        if self.stop.signal is not None:
            self.trainer.read()
            self.stop.check()

    def _progress(self, steps: Any, total: int, what: str) -> Iterator[int]:
        """Show the progress of an evaluation that a signal ends; the resumed run evaluates the saved epoch."""
        for step in self.reporter.progress(steps, total, what):
            if not self.processes.is_distributed:  # several would wait for each other at each batch
                self.stop.check()
            yield step

    def _save(self) -> None:
        self.trainer.read()  # in all processes, since an error here is raised in all
        skipped = self.trainer.training.skipped
        skipped[:] = self.processes.union(skipped)
        if self.processes.is_first:
            write_checkpoint(self.trainer, self.identity, self.folder.checkpoint)
        self.saved = self.trainer.steps

    def _report_position(self) -> None:
        trainer = self.trainer
        done = len(trainer.epochs)
        if trainer.is_complete:
            self.reporter.note(f"this run is complete, with {describe_position(done, 0)}")
        else:
            self.reporter.note(f"resuming after {describe_position(done, trainer.state.step)}")

    def _kept(self) -> str:
        """Return what is saved of a run that failed."""
        if self.saved < 0:
            return "no epoch was completed, and nothing is saved"
        if self.processes.is_first and not (self.folder.checkpoint).exists():
            return f"{self.folder.checkpoint} is missing; saved progress is lost"
        epochs, step = divmod(self.saved, len(self.trainer.training))
        return f"{self.folder.checkpoint} holds {describe_position(epochs, step)}, and --resume continues from there"

    def _explain(self, error: Exception) -> str:
        """Explain an error of PyTorch that a sound run can meet; "" for any other error."""
        if explanation := explain_memory(error, self.trainer.recipe, self.processes.world_size):
            return explanation
        if is_worker_exit(error):
            return (
                f"a process that reads images died ({first_line(error)}): memory may be short, try fewer workers or "
                f"workers=0"
            )
        return explain_refusal(error)
