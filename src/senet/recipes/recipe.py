"""Recipes: everything that a run depends on beside its network and data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from inspect import cleandoc
from itertools import chain
from textwrap import wrap
from typing import Any

from senet.data import Augmentation, Preprocessing
from senet.utils.errors import shown, unknown_name
from senet.utils.limits import MOST_BATCH, MOST_EPOCHS, MOST_PROCESSES, check_at_most
from senet.utils.sizes import parse_size

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
    *("lr", "base_batch_size", "momentum", "weight_decay", "se_lr_factor", "patience", "warmup", "freeze_bn_epochs"),
    *("label_smoothing", "mixup", "cutmix", "ema", "memory", "seed", "checkpoint_every"),
)
_BELOW_1 = ("momentum", "label_smoothing", "ema")


def _help(text: str, *, se_only: bool = False) -> dict[str, Any]:
    """Metadata of a key.

    Args:
        text: what it is, for the docstring of `Recipe` and the comments of written recipes.
        se_only: whether it changes nothing in a network without SE, or is refused there.
    """
    return {"help": text, "se_only": se_only}


def _list_attributes(recipe: type) -> None:
    """Add the fields to a class's docstring, above what it raises."""
    summary, section, raises = cleandoc(recipe.__doc__ or "").partition("Raises:\n")
    if section:  # python -OO leaves no docstring
        entries = [f"{one.name}: {one.metadata['help']}" for one in fields(recipe)]
        lines = [wrap(entry, 116, initial_indent=" " * 4, subsequent_indent=" " * 8) for entry in entries]
        recipe.__doc__ = "\n".join([f"{summary}Attributes:", *chain(*lines), "", f"{section}{raises}"])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Raises:
        ValueError: a value is invalid.
    """

    epochs: int = field(metadata=_help("passes over the training images."))
    batch: int = field(metadata=_help("images of an optimizer step."))
    accumulate: int = field(
        default=1,
        metadata=_help(
            "number of parts of a batch that go through the network one after the other: less memory for the same "
            "step, except that batch norms take their statistics over each part."
        ),
    )
    seed: int = field(default=0, metadata=_help("seed of the initial weights, the order of images and augmentation."))
    optimizer: str = field(
        default="sgd", metadata=_help('"sgd", or any other name of timm\'s optimizers, such as "adamw" or "lamb".')
    )
    lr: float = field(metadata=_help('learning rate; the peak of "one_cycle" and "cosine".'))
    base_batch_size: int = field(
        default=0,
        metadata=_help(
            "batch size that lr is meant for: lr is multiplied by batch / base_batch_size (the linear rule); 0 does "
            "not scale lr."
        ),
    )
    momentum: float = field(default=0.9, metadata=_help("momentum of SGD."))
    nesterov: bool = field(default=False, metadata=_help("use Nesterov's momentum."))
    weight_decay: float = field(
        default=1e-4,
        metadata=_help("weight decay of every weight; with decay_all false not of batch norms and biases."),
    )
    decay_all: bool = field(
        default=True,
        metadata=_help("also decay batch norms and biases, those of gates included, as He et al. 2015 do."),
    )
    train_only: str = field(
        default="all",
        metadata=_help('"all", or "se": everything else is frozen, statistics of batch norms included.', se_only=True),
    )
    se_lr_factor: float = field(
        default=1.0, metadata=_help("learning rate of the SE blocks as a multiple of the others'.", se_only=True)
    )
    schedule: str = field(
        default="step",
        metadata=_help(
            '"step": multiply lr by drop_factor at the start of each epoch of milestones; "plateau": the same when the '
            'validation error has not fallen for more than patience epochs; "one_cycle": a linear rise to the peak '
            'over warmup epochs, then a linear fall to 0 (Smith 2018, arXiv 1803.09820); "cosine": the same rise, '
            "then half a cosine."
        ),
    )
    milestones: list[int] = field(
        default_factory=list, metadata=_help('epochs after which the learning rate falls, for "step".')
    )
    drop_factor: float = field(
        default=0.1, metadata=_help('factor of each fall of the learning rate, for "step" and "plateau".')
    )
    patience: int = field(
        default=10,
        metadata=_help('epochs without a lower validation error before the learning rate falls, for "plateau".'),
    )
    warmup: float = field(
        default=0.0,
        metadata=_help(
            'epochs of warmup; for "step" and "plateau" at a tenth of the learning rate, as He et al. 2015 need for '
            "110 layers."
        ),
    )
    freeze_bn_epochs: int = field(
        default=0,
        metadata=_help(
            "last epochs in which batch norms are frozen: statistics, weights and biases, as in SENet-154's training."
        ),
    )
    label_smoothing: float = field(default=0.0, metadata=_help("label smoothing of the cross entropy."))
    mixup: float = field(
        default=0.0,
        metadata=_help(
            "alpha of mixup (arXiv 1710.09412); 0 disables it. With cutmix as well, each batch has one of the two."
        ),
    )
    cutmix: float = field(default=0.0, metadata=_help("alpha of CutMix (arXiv 1905.04899); 0 disables it."))
    class_weights: str = field(
        default="none",
        metadata=_help(
            '"none", or "balanced": the loss of an image is weighted by images / (classes * images of its class).'
        ),
    )
    sampling: str = field(
        default="shuffle",
        metadata=_help(
            '"shuffle": each image once an epoch; "balanced": drawn with replacement, each class equally often.'
        ),
    )
    ema: float = field(
        default=0.0,
        metadata=_help(
            "decay of the moving average of weights (timm's, with its warmup) that is evaluated and saved; 0 disables"
            " it."
        ),
    )
    resize: int | list[int] = field(
        default=256,
        metadata=_help(
            "pixels of the shorter side before the central crop of evaluation; or [height, width], both of which the "
            "resized image covers."
        ),
    )
    crop_size: int | list[int] = field(
        default=224, metadata=_help('pixels of the square input of the network; or [height, width], as text "64x32".')
    )
    mean: list[float] = field(
        default_factory=lambda: [0.485, 0.456, 0.406],
        metadata=_help("mean of the training images by channel, on the scale of 0 to 1."),
    )
    std: list[float] = field(
        default_factory=lambda: [0.229, 0.224, 0.225],
        metadata=_help(
            "standard deviation by channel, on the same scale; 0.00392157 = 1 / 255 only subtracts the mean from 0 to"
            " 255."
        ),
    )
    interpolation: str = field(default="bilinear", metadata=_help("interpolation of resizing."))
    crop: str = field(
        default="none",
        metadata=_help(
            '"pad" pads by padding and crops at random; "area" crops 8 to 100 % of the area, at 3/4 to 4/3 of the '
            'aspect of crop_size; "none" takes the centre.'
        ),
    )
    flip: bool = field(default=False, metadata=_help("mirror half of the images."))
    padding: int = field(default=4, metadata=_help('pixels on each side, of the mean colour, for the crop "pad".'))
    randaugment: str = field(
        default="",
        metadata=_help('timm\'s name of a RandAugment policy, such as "rand-m7-mstd0.5-inc1"; empty disables it.'),
    )
    memory: float = field(
        default=4.0,
        metadata=_help(
            "GiB of decoded images to keep, on the host and, where they fit, on the GPU; data that need more are "
            "decoded again in each epoch."
        ),
    )
    workers: int = field(
        default=-1,
        metadata=_help(
            "processes that decode images that are not kept, crop areas and apply RandAugment; -1 is one per core, 8 "
            "at most."
        ),
    )
    device: str = field(default="auto", metadata=_help('"auto" is the first of cuda, mps and cpu that is available.'))
    precision: str = field(
        default="fp32",
        metadata=_help("autocast's precision in training; weights, evaluation and saved models are float32."),
    )
    tf32: bool = field(
        default=False, metadata=_help("let CUDA round the inputs of float32 products to 10 bits, for speed.")
    )
    compile: bool = field(default=False, metadata=_help("train with torch.compile."))
    cuda_graph: str = field(
        default="auto",
        metadata=_help(
            '"auto": on a GPU, capture the step in a CUDA graph after a few steps and replay it, which saves the '
            'host\'s time; where that is not possible, a line says why, and steps run without one. "off": never.'
        ),
    )
    deterministic: bool = field(
        default=False,
        metadata=_help(
            "use deterministic algorithms only: two runs on the same GPU, or a run that was killed and resumed, are "
            "then bitwise identical, as they always are on a CPU. Otherwise they are equal up to rounding on a GPU."
        ),
    )
    sync_bn: bool = field(
        default=False,
        metadata=_help(
            "with several processes: batch norms take their statistics over the batch of all, as one process would; "
            "otherwise each over its own share, and the statistics of the first process are evaluated and saved."
        ),
    )
    on_nonfinite: str = field(
        default="stop",
        metadata=_help('"stop", or "skip": a step whose loss or gradient is not finite is skipped and counted.'),
    )
    checkpoint_every: int = field(
        default=0, metadata=_help("steps between checkpoints, in addition to one per epoch; 0 disables it.")
    )
    network: dict[str, Any] = field(default_factory=dict, metadata=_help("options of `senet.create_model`."))

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
        self._check_optimizer()
        self._check_schedule()
        self.preprocessing, self.augmentation  # noqa: B018  (they check their own values)

    def _check_optimizer(self) -> None:
        if self.optimizer != "sgd":
            from timm.optim import list_optimizers

            if self.optimizer not in list_optimizers():
                raise ValueError(unknown_name("optimizer", self.optimizer, list_optimizers()))
        if self.nesterov and not (self.momentum and self.optimizer == "sgd"):
            raise ValueError(
                f"nesterov needs optimizer 'sgd' and a momentum above 0, got {self.optimizer!r} and {self.momentum}"
            )

    def _check_schedule(self) -> None:
        if not all(drop >= 0 for drop in self.milestones):
            raise ValueError(f"milestones must be epochs, 0 or more, got {self.milestones}")
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


_list_attributes(Recipe)
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
        ValueError: an unknown key (the message names the nearest one), a missing one, or an invalid value.
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
