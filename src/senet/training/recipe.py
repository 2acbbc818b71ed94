"""Recipes: everything that a run depends on beside its network and data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from senet.data import Augmentation, Preprocessing
from senet.errors import shown, unknown_name
from senet.limits import MOST_BATCH, MOST_EPOCHS, MOST_PROCESSES, check_at_most
from senet.sizes import parse_size

__all__ = ["FREE", "Recipe", "build_recipe", "check_type"]

# Keys that decide how a run is done and not what it comes to (a device to rounding).
FREE = ("workers", "memory", "checkpoint_every", "on_nonfinite", "device", "deterministic", "cuda_graph")

_CHOICES = {
    "schedule": ("step", "one_cycle", "cosine", "plateau"),
    "train_only": ("all", "se"),
    "class_weights": ("none", "balanced"),
    "sampling": ("shuffle", "balanced"),
    "on_nonfinite": ("stop", "skip"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("fp32", "bf16", "fp16"),
    "cuda_graph": ("auto", "off"),
}
_AT_LEAST_0 = (
    *("lr", "lr_batch", "momentum", "weight_decay", "se_lr_factor", "patience", "warmup", "freeze_bn_epochs"),
    *("label_smoothing", "mixup", "cutmix", "ema", "memory", "seed", "checkpoint_every"),
)
_BELOW_1 = ("momentum", "label_smoothing", "ema")
# Of a key that changes nothing in a network without SE, or is refused there.
_SE_ONLY = {"se_only": True}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images of a step.
        accumulate: parts in which a batch goes through the network, each after the other: less memory for the same
            step, but for the statistics of batch norms, which are each part's own.
        seed: of weights, order and augmentation.
        optimiser: "sgd", or any other name of timm's optimisers, such as "adamw" or "lamb".
        lr: learning rate; the peak of "one_cycle" and "cosine".
        lr_batch: batch that lr is meant for: lr is multiplied by batch / lr_batch (the linear rule); 0 leaves lr as it
            is.
        momentum: of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: on every weight; with decay_all false not on batch norms and biases.
        decay_all: also decay batch norms and biases, those of gates among them, as He et al. 2015 do.
        train_only: "all", or "se": everything else stays as it is, statistics of batch norms included.
        se_lr_factor: learning rate of the SE blocks as a multiple of the others'.
        schedule: "step": multiplied by drop_factor at the start of each epoch of drops; "plateau": the same when the
            validation error has not fallen for more than patience epochs; "one_cycle": a linear rise to the peak over
            warmup epochs, then a linear fall to 0 (Smith 2018, arXiv 1803.09820); "cosine": the same rise, then half a
            cosine.
        drops: epochs after which the learning rate falls, for "step".
        drop_factor: what it is multiplied by then, for "step" and "plateau".
        patience: epochs without a lower validation error that are borne, for "plateau".
        warmup: epochs; for "step" and "plateau" at a tenth of the learning rate, as He et al. 2015 need for 110 layers.
        freeze_bn_epochs: last epochs in which batch norms are frozen: statistics, weights and biases, as in SENet-154's
            training.
        label_smoothing: of the cross entropy.
        mixup: alpha of mixup (arXiv 1710.09412); 0 is none. With cutmix as well, each batch has one of the two.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0 is none.
        class_weights: "balanced": the loss of an image is weighted by images / (classes * images of its class).
        sampling: "shuffle": each image once an epoch; "balanced": drawn with replacement, each class as often.
        ema: decay of the moving average of weights (timm's, with its warm-up) that is evaluated and saved; 0 is none.
        resize: pixels of the shorter side before the central crop of evaluation; or [height, width], both of which the
            resized image covers.
        crop_size: pixels of the square that enters the network; or [height, width], as text "64x32".
        mean: of the training images by channel, on the scale of 0 to 1.
        std: deviation of the same; 0.00392157 = 1 / 255 subtracts the mean from 0 to 255 and does no more.
        interpolation: of resizing.
        crop: "pad" pads by padding and crops at random; "area" crops 8 to 100 % of the area at an aspect of 3/4 to 4/3
            of that of crop_size; "none" takes the centre.
        flip: mirror half of the images.
        padding: pixels on each side, of the mean colour, for the crop "pad".
        randaugment: timm's name of a RandAugment policy, such as "rand-m7-mstd0.5-inc1"; empty is none.
        memory: GiB of decoded images that are kept, on the host and, where they fit, on the GPU; where they need more,
            they are decoded anew each epoch.
        workers: processes that decode images that are not kept, crop areas and apply RandAugment; -1 is one for each
            core, 8 at most.
        device: "auto" is the first of cuda, mps and cpu that is there.
        precision: of the network in training, by autocast; weights, evaluation and what is saved are float32.
        tf32: let CUDA round the inputs of float32 products to 10 bits, for speed.
        compile: train with torch.compile.
        cuda_graph: "auto": on a GPU, each step is captured in a CUDA graph after a few steps, and replayed, which saves
            the host's time; where that is not possible, a line says why, and steps run without one. "off": never.
        deterministic: use deterministic algorithms alone: two runs on the same GPU, or a run that was killed and
            resumed, are then bitwise identical, as they are on a CPU anyway. Otherwise they are equal up to rounding
            on a GPU.
        sync_bn: of several processes: batch norms take their statistics over the batch of all, as one process would;
            otherwise each over its own share, and the statistics of the first process are evaluated and saved.
        on_nonfinite: "stop", or "skip": a step whose loss or gradient is not finite is left out, and counted.
        checkpoint_every: steps after which a checkpoint is written, beside that of each epoch; 0 is none.
        network: options of `senet.create_model`.

    Raises:
        ValueError: a value that cannot be.
    """

    epochs: int
    batch: int
    accumulate: int = 1
    seed: int = 0
    optimiser: str = "sgd"
    lr: float
    lr_batch: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_all: bool = True
    train_only: str = field(default="all", metadata=_SE_ONLY)
    se_lr_factor: float = field(default=1.0, metadata=_SE_ONLY)
    schedule: str = "step"
    drops: list[int] = field(default_factory=list)
    drop_factor: float = 0.1
    patience: int = 10
    warmup: float = 0.0
    freeze_bn_epochs: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: str = "none"
    sampling: str = "shuffle"
    ema: float = 0.0
    resize: int | list[int] = 256
    crop_size: int | list[int] = 224
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    interpolation: str = "bilinear"
    crop: str = "none"
    flip: bool = False
    padding: int = 4
    randaugment: str = ""
    memory: float = 4.0
    workers: int = -1
    device: str = "auto"
    precision: str = "fp32"
    tf32: bool = False
    compile: bool = False
    cuda_graph: str = "auto"
    deterministic: bool = False
    sync_bn: bool = False
    on_nonfinite: str = "stop"
    checkpoint_every: int = 0
    network: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("resize", "crop_size"):
            size = parse_size(getattr(self, name), name)
            object.__setattr__(self, name, size if isinstance(size, int) else list(size))
        for name in ("epochs", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name, most in (("epochs", MOST_EPOCHS), ("batch", MOST_BATCH), ("workers", MOST_PROCESSES)):
            check_at_most(name, getattr(self, name), most)
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate must be at most batch={self.batch}, got {self.accumulate}: a part has an image"
            )
        for name in _AT_LEAST_0:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, and finite, got {getattr(self, name)}")
        if self.workers < -1:
            raise ValueError(f"workers must be 0 or more, or -1 for one a core, got {self.workers}")
        for name in _BELOW_1:
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(unknown_name(name, getattr(self, name), choices))
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        self._check_optimiser()
        self._check_schedule()
        self.preprocessing, self.augmentation  # noqa: B018  (they check their own values)

    def _check_optimiser(self) -> None:
        if self.optimiser != "sgd":
            from timm.optim import list_optimizers

            if self.optimiser not in list_optimizers():
                raise ValueError(unknown_name("optimiser", self.optimiser, list_optimizers()))
        if self.nesterov and not (self.momentum and self.optimiser == "sgd"):
            raise ValueError(
                f"nesterov needs optimiser 'sgd' and a momentum above 0, got {self.optimiser!r} and {self.momentum}"
            )

    def _check_schedule(self) -> None:
        if not all(drop >= 0 for drop in self.drops):
            raise ValueError(f"drops must be epochs, 0 or more, got {self.drops}")
        if not 0 < self.drop_factor < 1:
            raise ValueError(f"drop_factor must be between 0 and 1, got {self.drop_factor}")
        if self.freeze_bn_epochs > self.epochs:
            raise ValueError(f"freeze_bn_epochs must be at most epochs={self.epochs}, got {self.freeze_bn_epochs}")
        least = {"one_cycle": "above 0 and below", "cosine": "below"}.get(self.schedule)
        if least and not (0 if self.schedule == "cosine" else 1e-9) <= self.warmup < self.epochs:
            raise ValueError(
                f"warmup must be {least} epochs={self.epochs}, got {self.warmup}; set both, such as "
                f"warmup={self.epochs / 4}"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """What every image undergoes."""
        resize, crop = (parse_size(size, "size") for size in (self.resize, self.crop_size))
        return Preprocessing(resize, crop, tuple(self.mean), tuple(self.std), self.interpolation)

    @property
    def augmentation(self) -> Augmentation:
        """What is random in training."""
        return Augmentation(self.crop, self.flip, self.padding, self.randaugment)


_FIELDS = {f.name: f for f in fields(Recipe)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


# By the type of a field: what to call it, and whether a value is one.
_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str)),
    int | list[int]: ("pixels, or height and width", lambda value: isinstance(value, int | str | list)),
    list[int]: ("a list of whole numbers", lambda value: isinstance(value, list) and all(map(_is_whole, value))),
    list[float]: ("a list of numbers", lambda value: isinstance(value, list) and all(map(_is_number, value))),
    dict[str, Any]: ("a table", lambda value: isinstance(value, dict)),
}


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe of values as TOML has them.

    Raises:
        ValueError: an unknown key (the message names the nearest one), a missing one, or a value that cannot be.
    """
    for key, value in values.items():
        if key not in _FIELDS:
            raise ValueError(unknown_name("key", key, _FIELDS))
        check_type(key, value)
    missing = [key for key in ("epochs", "batch", "lr") if key not in values]
    if missing:
        raise ValueError(f"the recipe lacks {', '.join(missing)}")
    return Recipe(**values)


def check_type(key: str, value: Any) -> None:
    """Whether a value has its field's type, as far as TOML can be wrong about it.

    Raises:
        ValueError: it has not.
    """
    what, right = _KINDS[_FIELDS[key].type]
    if not right(value):
        raise ValueError(f"{key} must be {what}, got {shown(value, 200)}")
