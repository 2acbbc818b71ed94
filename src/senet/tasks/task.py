"""The interface of a task: what a network is trained for, separate from how it is trained."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Protocol, TypeVar

from PIL import Image
from torch import Tensor, nn

from senet.data import ImageData, Loader, Preprocessing
from senet.evaluation.classification import Evaluation
from senet.evaluation.given_images import ImageLike
from senet.evaluation.inputs import BATCH, InputOptions
from senet.evaluation.predict import Prediction, predict_images
from senet.models.detector_names import is_detector
from senet.tasks.collector import Collector
from senet.tasks.objective import Objective, ObjectiveContext, ObjectiveSettings
from senet.utils.arguments import argument, argument_name
from senet.utils.choices import TaskName
from senet.utils.figures import draw_grid
from senet.utils.metric import Metric, Panel
from senet.utils.progress import Progress, no_progress

__all__ = ["Outcomes", "Peers", "Result", "Task"]

T = TypeVar("T")


class Peers(Protocol):
    """The processes of a distributed run, see `senet.training.distributed.processes.Processes`."""

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""

    def gather(self, value: T) -> list[T]:
        """Return the value of each process, by rank."""


class Result(Protocol):
    """The result of an evaluation. The task's validation metrics are attributes, by their keys."""

    @property
    def images(self) -> int:
        """Number of evaluated images."""

    @property
    def classes(self) -> Sequence[Any]:
        """Results by class, with the attributes `name`, `images`, and those of the task's `by_class`."""

    @property
    def skipped(self) -> list[str]:
        """Names of images that could not be read."""


@dataclass(frozen=True)
class Outcomes:
    """How wrong a network is for each of N images.

    Attributes:
        errors: for each of `Task.judged` (N,), the share of an image's decisions that are wrong, or whether the only
            one is wrong.
        losses: (N,), in nats.
    """

    errors: tuple[Tensor, Tensor]
    losses: Tensor


class Task(ABC):
    """What a network is trained for.

    Attributes:
        name: as in a recipe.
        training: metrics of the training images, in the order of `metrics.jsonl`.
        validation: metrics of the validation images, which follow them.
        reported: metrics that `senet evaluate` has in addition, attributes of the result.
        decisive: the validation metric by which the best epoch, learning rates on a plateau and comparisons of runs
            are decided.
        counters: names of the sums over images that a step has in addition to the loss; entries of a checkpoint, so
            that they must not be those of `senet.training.epoch_state.EpochState`.
        by_class: metrics of each class.
        one_class: whether each image has one class.
        judged: the two metrics by which gates are judged, the first of which decides: of `outcomes`, or of `collector`.
        stored: keys of `learned`.
        shown: number of classes that `senet predict` shows for each image by default; None shows all.
        panels: plots of a run; `decisive` is in the first.
        described: head of the column of `describe`.
        pipeline: Hugging Face's name of the task.
        evaluation_batch: images per batch of an evaluation, by default.
        trunk_name: name of `trunk`, whose multiply-adds are counted.
        views: how an image is evaluated, in a model card.

    Examples:
        >>> from senet.tasks import get_task
        >>> task = get_task("detection")
        >>> task.decisive.name, [metric.key for metric in task.validation[:2]]
        ('AP', ['ap', 'ap50'])
    """

    name: ClassVar[TaskName]
    training: ClassVar[tuple[Metric, ...]]
    validation: ClassVar[tuple[Metric, ...]]
    reported: ClassVar[tuple[Metric, ...]] = ()
    decisive: ClassVar[Metric]
    counters: ClassVar[tuple[str, ...]]
    by_class: ClassVar[tuple[Metric, ...]]
    one_class: ClassVar[bool] = False
    judged: ClassVar[tuple[Metric, Metric]]
    stored: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[int | None] = None
    panels: ClassVar[tuple[Panel, ...]]
    described: ClassVar[str] = "classes, most probable first"
    pipeline: ClassVar[str] = "image-classification"
    evaluation_batch: ClassVar[int] = BATCH
    trunk_name: ClassVar[str] = "whole network"
    views: ClassVar[str] = "one centre crop"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics of an epoch, in the order of `metrics.jsonl`."""
        return (*self.training, *self.validation)

    def check(self, settings: ObjectiveSettings) -> None:
        """Check the values of a recipe; those of detectors alone are refused here.

        Raises:
            ValueError: the task does not have one of them.
        """
        if settings.scales:
            raise ValueError(f"scales={settings.scales} needs task=detection, got task={self.name}; leave scales out")

    @abstractmethod
    def data(self, images: ImageData) -> ImageData:
        """Return images with the labels that the task needs.

        Raises:
            DataError: they have other labels.
        """

    def check_validation(self, images: ImageData) -> None:  # noqa: B027  (errors of classes are always defined)
        """Check that the metrics of validation images are defined, before anything is trained.

        Args:
            images: with the labels of the task.

        Raises:
            DataError: they are not.
        """

    def check_network(self, name: str) -> None:
        """Check that a network returns what the task needs, by its name; by default logits.

        Raises:
            ValueError: it does not.
        """
        if is_detector(name):
            raise ValueError(f"{name} returns boxes, and task={self.name} needs logits; set task=detection")

    def prepare(self, model: nn.Module, settings: ObjectiveSettings) -> None:  # noqa: B027  (most tasks do nothing)
        """Prepare a network for training; its `pretrained_cfg` has the preprocessing of the recipe."""

    def preprocessing(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return the preprocessing of the training images, from that of the recipe."""
        return preprocessing

    def resizing(self, cfg: Mapping[str, Any]) -> str:
        """Return how images are resized, in a model card, from a `pretrained_cfg`."""
        size = "x".join(str(side) for side in cfg["input_size"][1:])
        return f"resize so that the centre crop of {size} is {100 * cfg['crop_pct']:g} % of the shorter side"

    def trunk(self, model: nn.Module) -> nn.Module:
        """Return the part of a network that runs on images (N, C, H, W), and has its batch norms and SE."""
        return model

    @abstractmethod
    def objective(self, context: ObjectiveContext) -> Objective:
        """Return what a run minimizes."""

    @abstractmethod
    def training_values(self, loss: float, counts: Mapping[str, float], images: int) -> dict[str, float]:
        """Return the metrics of training.

        Args:
            loss: mean over the images.
            counts: sums over the images, by `counters`.
            images: number of images; may be 0.
        """

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        *,
        progress: Progress = no_progress,
        peers: Peers | None = None,
    ) -> Result:
        """Evaluate a network on the batches of a loader. The network keeps its mode.

        Args:
            model: the network.
            loader: batches of validation data; in a distributed run, this process's shards of them.
            progress: shows progress over batches.
            peers: the processes of a distributed run; None for a single process.

        Raises:
            DataError, NonFiniteError: see `senet.evaluation.evaluate.measure`.
        """

    def evaluate_confusion(self, model: nn.Module, loader: Loader, *, progress: Progress = no_progress) -> Evaluation:
        """Evaluate a network with its confusion matrix.

        Raises:
            ValueError: images of the task do not have one class each.
        """
        raise ValueError(
            f"a confusion matrix needs one class for each image, and the network was trained for {self.name}; leave "
            f"out {argument('confusion')}"
        )

    def is_wrong(self, logits: Tensor, cfg: Mapping[str, Any], target: Any) -> bool | None:
        """Return whether what is predicted for an image is not what it shows; None if the task does not decide it.

        Args:
            logits: (K,), finite.
            cfg: `pretrained_cfg` of the network, with what the task stores there.
            target: of the image, see `senet.data.ImageData.target`.
        """
        return None

    def run(self, model: nn.Module, images: Tensor, pixels: Tensor | None, labels: Tensor) -> Any:
        """Return what a network returns for a batch: by default its output, logits.

        Args:
            model: in evaluation mode.
            images: (N, C, *spatial), normalized, on the device of the network.
            pixels: (N, C, H, W), 0 to 255; None if they are not known.
            labels: (N, ...), on the host.
        """
        return model(images)

    def split(self, pixels: Tensor | None, labels: Tensor) -> list[tuple[slice, Tensor | None]]:
        """Return the parts of a batch that a network runs on, with their pixels; by default the whole batch."""
        return [(slice(None), pixels)]

    def collector(self, data: ImageData | None) -> Collector | None:
        """Return a collector of what networks return, if `judged` are no means over images; None if they are.

        Args:
            data: the images; None if they are not known.
        """
        return None

    def outcomes(self, logits: Tensor, labels: Tensor) -> Outcomes:
        """Return how wrong a network is for each image; only of a task without a `collector`.

        Args:
            logits: (N, K), finite, float64.
            labels: (N, ...), on the same device.

        Raises:
            DataError: a label has no logit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not judge single images")

    def values(self, result: Result) -> dict[str, float]:
        """Return the validation metrics of a result by their keys."""
        return {metric.key: getattr(result, metric.key) for metric in self.validation}

    @abstractmethod
    def check_stored(self, cfg: Mapping[str, Any], classes: int) -> None:
        """Check what a file has of the task; the file may be damaged.

        Args:
            cfg: entries by key.
            classes: number of classes.

        Raises:
            ValueError: a value is invalid.
        """

    def learned(self, result: Result) -> dict[str, Any]:
        """Return what an evaluation during training adds to the model file: entries of `pretrained_cfg`."""
        return {}

    def predict(
        self,
        model: nn.Module,
        images: Iterable[ImageLike] | ImageData,
        options: InputOptions,
        *,
        top: int | None = None,
        threshold: float | None = None,
        progress: Progress = no_progress,
    ) -> list[Prediction]:
        """Return what a network predicts for images, see `senet.predict`; by default what `choose` chooses of logits.

        Raises:
            ValueError: the task has no `threshold`.
        """
        if threshold is not None:
            raise ValueError(f"{argument_name('threshold')} is for detectors, and this network has task={self.name}")
        return predict_images(
            model, images, options, choose=self.choose, is_wrong=self.is_wrong, top=top, progress=progress
        )

    def choose(self, logits: Tensor, cfg: Mapping[str, Any], top: int | None) -> tuple[list[int], list[float]]:
        """Return what is predicted for an image: indices and probabilities of classes, the most probable first.

        Args:
            logits: (K,), finite.
            cfg: `pretrained_cfg` of the network, with what the task stores there.
            top: highest number of classes; None is the default of the task.
        """
        raise NotImplementedError(f"{self.name} has no logits")

    @abstractmethod
    def caption(self, classes: Sequence[str], probabilities: Sequence[float]) -> str:
        """Return the text under a picture, of what `predict` returned."""

    def describe(self, prediction: Prediction) -> str:
        """Return a prediction as text."""
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        return "  ".join(f"{name} {100 * value:.1f} %" for name, value in pairs)

    def shows(self, truth: Sequence[str]) -> str:
        """Return what an image shows, by its class names, as text."""
        return ", ".join(truth) or "none"

    def draw(
        self,
        pictures: Sequence[Image.Image],
        predictions: Sequence[Prediction],
        path: str | PathLike[str],
        title: str = "",
    ) -> None:
        """Draw images with their predictions as a PNG; wrong ones are framed, with what the image shows.

        Args:
            pictures: upright.
            predictions: of `predict`, for each image.
            path: of the PNG.
            title: of the figure.

        Raises:
            OSError: the file cannot be written.
        """
        labels = []
        for one in predictions:
            text = self.caption(one.classes, one.probabilities)
            truth = f"\ntruth: {self.shows(one.truth or ())}" if one.wrong else ""
            labels.append((text + truth, bool(one.wrong)))
        draw_grid(pictures, labels, path, title)
