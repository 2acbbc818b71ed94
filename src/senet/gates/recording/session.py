"""Hold the state of a recording in progress: hooks, sample, stages and the position in the data."""

from typing import Any

from torch import Tensor, nn

from senet.evaluation.logits import first_non_finite
from senet.gates.recording.batches import Batch, Batches, pretrained_config
from senet.gates.recording.block_labels import block_labels, stages_of
from senet.gates.recording.hooks import GateHooks
from senet.gates.recording.provenance import data_name, differences
from senet.gates.recording.record import BlockGates, Gates
from senet.gates.recording.sampling import Reservoir
from senet.nn.inserted_se import find_inserted_se
from senet.tasks import Task, task_of
from senet.utils.errors import GatesError, NonFiniteError, NonFiniteGatesError

__all__ = ["RecordingSession"]


class RecordingSession:
    """A recording in progress.

    Attributes:
        start: number of the first batch to record.
        expected_labels: for a resumed iterable, the digest of the labels before `start`; "" if there is none to check.
        check_output: whether the network's output must be finite.

    Args:
        model: the network.
        loader: the batches.
        classes: K names.
        state: the initial state, see `Gates.state`.
        hooks: hooks on the SE modules.
        sample: number of sampled images.
        thumbnail: pixels of a thumbnail's side; None for no thumbnails.
        seed: seed of the sample.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Batches,
        classes: list[str],
        state: dict[str, Any],
        hooks: GateHooks,
        sample: int,
        thumbnail: int | None,
        seed: int,
    ) -> None:
        self.model, self.loader, self.classes, self.state, self.hooks = model, loader, classes, state, hooks
        self.reservoir = Reservoir(sample, thumbnail, seed, pretrained_config(model))
        self.start, self.expected_labels = 0, ""
        self.check_output = False
        self._stages: dict[str, int | None] = {}

    def resume(self, before: Gates, path: str) -> None:
        """Resume a recording.

        Raises:
            GatesError: its network, data, classes or options differ.
        """
        differ = differences(
            {**before.state.get("identity", {}), "part": (before.state.get("parts"), before.state.get("of"))},
            {**self.state["identity"], "part": (self.state["parts"], self.state["of"])},
        )
        if differ or before.classes != self.classes:
            raise GatesError(
                f"cannot resume {path}: it was recorded with other values of {differ or 'classes'}; give the same "
                f"arguments, or another output"
            )
        self.start, self.expected_labels = int(before.state.get("batches") or 0), str(before.state.get("labels"))
        self.state = dict(before.state) | {"labels": ""}
        for block in before.blocks:
            recorder = self.hooks[block.name]
            recorder.resume(block.gates, block.squeezes, block.hidden)
            self.hooks.blocks.append(recorder)
            self._stages[block.name] = block.stage
        self.reservoir.resume(before.sample, before.blocks)

    def add(self, batch: Batch, *, first: bool) -> None:
        """Run and record a batch.

        Raises:
            GatesError: a label is out of range, the SE blocks differ from earlier batches, or a value is not finite.
        """
        bad = ((batch.labels < 0) | (batch.labels >= len(self.classes))).nonzero()
        if len(bad):
            row = int(bad[0])
            raise GatesError(
                f"image {int(batch.indices[row])} has the label {int(batch.labels[row])}, but there are "
                f"{len(self.classes)} classes; give the names of all classes as classes="
            )
        if first:
            self._stages = stages_of(self.model, batch.images.shape[1:])
        task = task_of(self.model)
        for part in batch.parts(task):
            self._add_part(part, task)

    def _add_part(self, batch: Batch, task: Task) -> None:
        """Run and record the images that the network runs on together."""
        try:
            with self.hooks.recording():
                output = task.run(self.model, batch.images, batch.pixels, batch.targets)
        except NonFiniteError as error:
            raise NonFiniteGatesError(f"{error}, for image {int(batch.indices[0])} of the data") from error
        seen = self.hooks.finish_batch(batch.labels, batch.indices)
        if self.check_output:
            self._check_finite(output, batch)
        self.reservoir.add(batch, seen)

    def _check_finite(self, output: Any, batch: Batch) -> None:
        """Check the output of the network, if it is a tensor with a row for each image."""
        if not (isinstance(output, Tensor) and len(output) == len(batch.labels) and output.is_floating_point()):
            return
        row = first_non_finite(output)
        if row is not None:
            raise NonFiniteGatesError(
                f"the network's output is not finite for image {int(batch.indices[row])} of the data; check the "
                f"weights and this image, or record in float32"
            )

    def gates(self, *, finished: bool) -> Gates:
        """Return the recording up to now."""
        sample, rows = self.reservoir.sample()
        recorders = self.hooks.blocks
        labels = block_labels([block.unit.name for block in recorders], self._stages)
        blocks = [
            BlockGates(
                name=block.unit.name,
                label=labels[index],
                stage=self._stages.get(block.unit.name),
                depth=index / max(1, len(recorders) - 1),
                kind=block.unit.kind,
                gate=type(block.unit.gate).__name__,
                gain=block.unit.gain,
                squeeze=block.unit.squeeze,
                activation=None if block.unit.activation is None else type(block.unit.activation).__name__,
                gates=block.gates,
                squeezes=block.squeezes,
                hidden=block.hidden,
                sample_gates=rows[index][0],
                sample_squeezes=rows[index][1],
            )
            for index, block in enumerate(recorders)
        ]
        network = str(pretrained_config(self.model).get("architecture") or type(self.model).__name__)
        network += " with SE" if find_inserted_se(self.model) else ""
        complete = finished and self.state["of"] == 1
        state = self.state | {"finished": finished}
        return Gates(
            network=network,
            data=data_name(self.loader),
            classes=self.classes,
            blocks=blocks,
            sample=sample,
            complete=complete,
            state=state,
        )
