"""Live display of a training run on a terminal."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from senet.cli.common.console import fitting, note, progress, stderr

if TYPE_CHECKING:
    from senet.tasks import Metric

__all__ = ["Live"]


class Live:
    """Displays a run: on a terminal a progress bar and a line for each epoch, elsewhere only the lines."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._room = 0  # characters of the bar's line for a step's metrics
        self._steps = 0  # of an epoch
        self._first: tuple[int, float] | None = None  # images and time after the epoch's first step
        self._metrics: list[Metric] = []  # columns of the table of epochs

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def progress(self, steps: Any, total: int, what: str) -> Any:
        """Show progress, see `Reporter`: a bar, or a word in the existing bar."""
        if self._progress is None:
            return progress(steps, total, what)
        # Only one live bar is possible: it shows why it is not moving.
        self._progress.update(self._task, doing="evaluating")
        return steps

    def note(self, text: str) -> None:
        """Print a line on standard error."""
        note(text)

    def start(self, model: Any, recipe: Any, training: Any, validation: Any, epochs: list[Any]) -> None:
        """Print the network, the data and the finished epochs."""
        parameters = sum(p.numel() for p in model.parameters())
        note(
            f"{parameters:,} parameters; {training.images:,} training and {validation.images:,} validation images "
            f"of {len(training.data.classes)} classes, {'x'.join(map(str, training.preprocessing.size))}; "
            f"{next(model.parameters()).device}, {recipe.precision}{', tf32' if recipe.tf32 else ''}"
        )
        from senet.runs.metrics import best_of
        from senet.tasks import get_task

        task = get_task(recipe.task)
        self._steps = len(training)
        self._metrics = [metric for metric in task.metrics if metric.column]
        columns = "".join(f"{metric.column:>{_width(metric)}}" for metric in self._metrics)
        note(f"epoch     lr{columns}   images/s", style="bold")
        for number, epoch in enumerate(epochs, 1):
            self.epoch(epoch, best_of(epochs[:number], task) is epoch)
        if stderr.is_terminal:
            passes = recipe.passes(len(training))
            self._progress = Progress(*self._columns(passes), console=stderr, transient=True, expand=True)
            fields = {"epoch": min(len(epochs) + 1, passes), "epochs": passes, "doing": "first step"}
            steps = {"total": recipe.steps(len(training)), "completed": len(epochs) * len(training)}
            self._task = self._progress.add_task("train", **steps, **fields)
            self._progress.start()

    def _columns(self, epochs: int) -> list[ProgressColumn]:
        """Return the columns of the bar; short lines have fewer metrics and no bar, but no cut numbers."""
        fixed = (2 * len(str(epochs)) + 8, 13)  # "epoch 3/12 ", " 0:01:02 left"
        self._room = max(0, stderr.width - sum(fixed))
        doing = Column(min_width=min(42, self._room), no_wrap=True)
        columns: list[ProgressColumn] = [
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}", table_column=Column(min_width=fixed[0] - 2)),
            TextColumn("{task.fields[doing]}", markup=False, table_column=doing),
            TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("left", table_column=Column(min_width=4, no_wrap=True)),
        ]
        return [columns[0], BarColumn(bar_width=None), *columns[1:]] if self._room > 50 else columns

    def step(self, epoch: int, step: int, steps: int, images: int, metrics: Mapping[str, float]) -> None:
        """Advance the bar."""
        if self._progress is None:
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = (images, now)
        speed = (images - self._first[0]) / (now - self._first[1]) if images > self._first[0] else 0.0
        figures = (f"{speed:,.0f} images/s", *(m.progress.format(metrics[m.key]) for m in self._metrics if m.progress))
        doing = "  ".join(figures)
        if len(doing) > self._room:
            doing = fitting(figures[1:], self._room)
        self._progress.update(self._task, completed=(epoch - 1) * self._steps + step, epoch=epoch, doing=doing)

    def epoch(self, epoch: Any, best: bool) -> None:
        """Print the line of an epoch."""
        values = "".join(f"{m.number(epoch.metrics[m.key]):>{_width(m)}}" for m in self._metrics)
        speed = f"{epoch.images_per_second:.{0 if epoch.images_per_second >= 10 else 1}f}"
        note(f"{epoch.epoch:5d} {_rate(epoch.lr)}{values} {speed:>10}{'  best' if best else ''}")
        self._first = None


def _rate(lr: float) -> str:
    """Return a learning rate in six characters; small ones, as in warmup, as a power of ten."""
    return f"{lr:6.3f}" if lr == 0 or lr >= 0.001 else f"{lr:6.0e}"


def _width(metric: "Metric") -> int:
    return len(metric.column) + 3
