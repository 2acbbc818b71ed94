"""The recipe: every setting of a run apart from its network and data."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from senet.data import Augmentation, Preprocessing
from senet.data.augmentation import Crop
from senet.data.preprocessing import MAX_SIZE, Interpolation
from senet.recipes.fields import check_limits, check_type, document_fields, key
from senet.tasks import get_task
from senet.utils.arguments import in_python_or
from senet.utils.choices import Loss, TaskName, check_choices
from senet.utils.errors import unknown_name
from senet.utils.keywords import check_keywords
from senet.utils.limits import LARGEST_SIDE, MOST_BATCH, MOST_EPOCHS, MOST_ITERATIONS, MOST_PROCESSES
from senet.utils.renamed import RENAMED_KEYS
from senet.utils.sizes import parse_size

__all__ = ["DEFAULTS", "FREE", "Recipe", "build_recipe", "check_key"]

# Keys that do not change the result of a run (the device and fused passes change its rounding).
FREE = ("workers", "memory", "checkpoint_every", "on_nonfinite", "device", "deterministic", "cuda_graph", "fused")


@check_keywords(**RENAMED_KEYS)
@document_fields
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run, apart from its network and data.

    Raises:
        ValueError: a value is invalid.
        TypeError: an unknown key; the message names the closest one.

    Examples:
        >>> recipe = senet.Recipe(epochs=10, batch=128, lr=0.1, schedule="cosine")
        >>> recipe.optimizer, recipe.momentum, recipe.weight_decay
        ('sgd', 0.9, 0.0001)
    """

    task: TaskName = field(
        default="classification",
        metadata=key(
            'what the network is trained for: "classification", one class per image; "multilabel", any number of '
            'labels per image; or "detection", boxes of objects.'
        ),
    )
    epochs: int = field(
        default=0,
        metadata=key("number of passes over the training images; 0 with iterations.", least=0, most=MOST_EPOCHS),
    )
    iterations: int = field(
        default=0,
        metadata=key(
            "number of optimizer steps, instead of epochs; milestones and warmup are then in steps as well. An epoch "
            "is still what is evaluated and saved; the last one may be shorter.",
            least=0,
            most=MOST_ITERATIONS,
        ),
    )
    batch: int = field(metadata=key("number of images per optimizer step.", least=1, most=MOST_BATCH))
    accumulate: int = field(
        default=1,
        metadata=key(
            "number of parts into which a batch is split for gradient accumulation. It needs less memory for the same "
            "step, except that batch norms take their statistics over each part.",
            least=1,
        ),
    )
    seed: int = field(
        default=0,
        metadata=key("seed of the initial weights, of the order of images and of augmentation.", least=0, below=2**63),
    )
    optimizer: str = field(
        default="sgd", metadata=key('"sgd", or the name of an optimizer of timm, such as "adamw" or "lamb".')
    )
    lr: float = field(metadata=key('learning rate; the peak of "one_cycle" and "cosine".', least=0))
    base_batch_size: int = field(
        default=0,
        metadata=key(
            "batch size for which lr is given: lr is multiplied by batch / base_batch_size (linear scaling rule); 0 "
            "disables scaling.",
            least=0,
        ),
    )
    momentum: float = field(default=0.9, metadata=key("momentum of SGD.", least=0, below=1))
    nesterov: bool = field(default=False, metadata=key("use Nesterov's momentum."))
    weight_decay: float = field(
        default=1e-4,
        metadata=key("weight decay; decay_all selects the parameters.", least=0),
    )
    decay_all: bool = field(
        default=True,
        metadata=key("apply weight decay to batch norms and biases as well (He et al. 2015)."),
    )
    train_only: Literal["all", "se"] = field(
        default="all",
        metadata=key('"all", or "se": freeze everything else, including the statistics of batch norms.', se_only=True),
    )
    se_lr_factor: float = field(
        default=1.0, metadata=key("factor of the learning rate of SE blocks.", se_only=True, least=0)
    )
    schedule: Literal["step", "one_cycle", "cosine", "plateau"] = field(
        default="step",
        metadata=key(
            '"step": multiply lr by drop_factor at each milestone; "plateau": multiply lr by drop_factor when the '
            'validation error has not improved for more than patience epochs; "one_cycle": increase lr linearly over '
            'warmup epochs, then decrease it linearly to 0 (Smith 2018, arXiv 1803.09820); "cosine": the same warmup, '
            "then half a cosine."
        ),
    )
    milestones: list[int] = field(
        default_factory=list,
        metadata=key(
            'numbers of epochs, or of steps with iterations, after which lr is multiplied by drop_factor, for "step".'
        ),
    )
    drop_factor: float = field(
        default=0.1, metadata=key('factor of lr at a milestone or plateau, for "step" and "plateau".', between=(0, 1))
    )
    patience: int = field(
        default=10,
        metadata=key('number of epochs without a lower validation error before lr is reduced, for "plateau".', least=0),
    )
    warmup: float = field(
        default=0.0,
        metadata=key(
            'number of warmup epochs, or of steps with iterations; for "step" and "plateau" at a tenth of lr (He et '
            "al. 2015, for 110 layers).",
            least=0,
        ),
    )
    freeze_bn_epochs: int = field(
        default=0,
        metadata=key(
            "number of final epochs with frozen batch norms: statistics, weights and biases (SENet-154).",
            least=0,
        ),
    )
    loss: Loss = field(
        default="cross_entropy",
        metadata=key(
            '"cross_entropy", binary for each label in "multilabel"; or, there only, "asymmetric": labels that an '
            "image does not have weigh less the more certain they are (arXiv 2009.14119)."
        ),
    )
    label_smoothing: float = field(
        default=0.0, metadata=key("label smoothing of the cross-entropy loss.", least=0, below=1)
    )
    mixup: float = field(
        default=0.0,
        metadata=key(
            "alpha of mixup (arXiv 1710.09412); 0 disables it. With cutmix, each batch uses one of the two at random.",
            least=0,
        ),
    )
    cutmix: float = field(default=0.0, metadata=key("alpha of CutMix (arXiv 1905.04899); 0 disables it.", least=0))
    class_weights: Literal["none", "balanced"] = field(
        default="none",
        metadata=key('"none", or "balanced": weight the loss of an image by images / (classes * images of its class).'),
    )
    sampling: Literal["shuffle", "balanced"] = field(
        default="shuffle",
        metadata=key(
            '"shuffle": each image once per epoch; "balanced": draw with replacement, classes with equal probability.'
        ),
    )
    ema: float = field(
        default=0.0,
        metadata=key(
            "decay of the exponential moving average of the weights, which is evaluated and saved (timm's, with its "
            "warmup); 0 disables it.",
            least=0,
            below=1,
        ),
    )
    resize: int | list[int] = field(
        default=256,
        metadata=key(
            "size in pixels of the shorter side before the centre crop in evaluation; or [height, width], which the "
            "resized image covers."
        ),
    )
    max_size: int = field(
        default=MAX_SIZE,
        metadata=key(
            "longest side in pixels of images with boxes: they are resized as a whole, to a shorter side of resize, or "
            "less if their longer side would exceed max_size.",
            least=1,
            most=LARGEST_SIDE,
        ),
    )
    scales: list[int] = field(
        default_factory=list,
        metadata=key(
            "shorter sides in pixels for training with boxes, one of which is drawn for each batch; empty takes resize."
        ),
    )
    crop_size: int | list[int] = field(
        default=224,
        metadata=key('size in pixels of the input of the network; or [height, width], also written "64x32".'),
    )
    mean: list[float] = field(
        default_factory=lambda: [0.485, 0.456, 0.406],
        metadata=key("mean of each channel, on the scale of 0 to 1."),
    )
    std: list[float] = field(
        default_factory=lambda: [0.229, 0.224, 0.225],
        metadata=key(
            "standard deviation of each channel, on the same scale; 0.00392157 = 1 / 255 keeps the scale of 0 to 255."
        ),
    )
    interpolation: Interpolation = field(default="bilinear", metadata=key("interpolation mode of resizing."))
    crop: Crop = field(
        default="none",
        metadata=key(
            'crop in training: "pad" pads the image and crops at random; "area" crops 8 to 100 % of the area at 3/4 to '
            '4/3 of the aspect ratio of crop_size, and resizes; "none" takes the centre.'
        ),
    )
    flip: bool = field(default=False, metadata=key("flip images horizontally with probability 0.5."))
    padding: int = field(default=4, metadata=key('pixels of the mean colour added to each side, for the crop "pad".'))
    randaugment: str = field(
        default="",
        metadata=key('RandAugment policy in timm\'s notation, such as "rand-m7-mstd0.5-inc1"; empty disables it.'),
    )
    memory: float = field(
        default=4.0,
        metadata=key(
            "GiB of memory for decoded images, on the host and, if they fit, on the GPU; larger data sets are decoded "
            "again in each epoch.",
            least=0,
        ),
    )
    workers: int = field(
        default=-1,
        metadata=key(
            "number of worker processes, which decode images that are not in memory, crop areas and apply RandAugment; "
            "-1 is one per core, at most 8.",
            most=MOST_PROCESSES,
        ),
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = field(
        default="auto", metadata=key('device of training; "auto" is the first of cuda, mps and cpu that is available.')
    )
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32",
        metadata=key("dtype of autocast in training; weights, evaluation and saved models are float32."),
    )
    tf32: bool = field(
        default=False,
        metadata=key(
            "use TF32 for float32 matrix products and convolutions on CUDA: faster, with inputs rounded to 10 bits."
        ),
    )
    compile: bool = field(default=False, metadata=key("compile the network with torch.compile."))
    fused: Literal["auto", "off"] = field(
        default="auto",
        metadata=key(
            '"auto": compute SE that a network of another library has together with the batch norm and the activation '
            'before it, where maps are large enough, see `senet.fuse`. "off": as the network has it.'
        ),
    )
    cuda_graph: Literal["auto", "off"] = field(
        default="auto",
        metadata=key(
            '"auto": on a GPU, capture the step in a CUDA graph after a few steps and replay it, which saves host '
            'time; if capture is not possible, a line gives the reason, and training continues without. "off": never.'
        ),
    )
    deterministic: bool = field(
        default=False,
        metadata=key(
            "use deterministic algorithms only: repeated and resumed runs on the same GPU are bitwise identical, as "
            "they always are on a CPU. Without it they are equal up to rounding on a GPU."
        ),
    )
    sync_bn: bool = field(
        default=False,
        metadata=key(
            "with several processes, compute the statistics of batch norms over the whole batch, as one process does. "
            "Otherwise each process uses its shard, and the statistics of the first process are evaluated and saved."
        ),
    )
    on_nonfinite: Literal["stop", "skip"] = field(
        default="stop",
        metadata=key('"stop", or "skip": skip and count steps whose loss or gradient is not finite.'),
    )
    checkpoint_every: int = field(
        default=0,
        metadata=key("number of steps between checkpoints, in addition to one per epoch; 0 disables them.", least=0),
    )
    network: dict[str, Any] = field(default_factory=dict, metadata=key("options of `senet.create_model`."))

    def __post_init__(self) -> None:
        for name in ("resize", "crop_size"):
            size = parse_size(getattr(self, name), name)
            object.__setattr__(self, name, size if isinstance(size, int) else list(size))
        check_choices(self)
        check_limits(self)
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate must be at most batch={self.batch}, got {self.accumulate}: each part needs an image"
            )
        if self.workers < -1:
            raise ValueError(f"workers must be 0 or more, or -1 for one per core, got {self.workers}")
        self._check_length()
        self._check_optimizer()
        self._check_schedule()
        get_task(self.task).check(self)
        self.preprocessing, self.augmentation  # noqa: B018  (both check their values)

    def _check_optimizer(self) -> None:
        if self.optimizer != "sgd":
            from timm.optim import list_optimizers

            if self.optimizer not in list_optimizers():
                raise ValueError(unknown_name("optimizer", self.optimizer, list_optimizers()))
        if self.nesterov and not (self.momentum and self.optimizer == "sgd"):
            raise ValueError(
                f"nesterov needs optimizer 'sgd' and a momentum above 0, got {self.optimizer!r} and {self.momentum}"
            )

    def _check_length(self) -> None:
        if not self.epochs and not self.iterations:
            raise ValueError("epochs must be 1 or more, got 0; or set iterations instead")
        if self.epochs and self.iterations:
            raise ValueError(
                f"epochs={self.epochs} and iterations={self.iterations} both give the length of training; set one of "
                f"them to 0"
            )
        if self.iterations and self.freeze_bn_epochs:
            raise ValueError(
                f"freeze_bn_epochs={self.freeze_bn_epochs} counts epochs, and iterations={self.iterations} has none; "
                f"set freeze_bn_epochs=0"
            )

    def _check_schedule(self) -> None:
        length, unit = (self.iterations, "iterations") if self.iterations else (self.epochs, "epochs")
        if not all(milestone >= 0 for milestone in self.milestones):
            raise ValueError(f"milestones must be {unit}, 0 or more, got {self.milestones}")
        if self.freeze_bn_epochs > self.epochs and not self.iterations:
            raise ValueError(f"freeze_bn_epochs must be at most epochs={self.epochs}, got {self.freeze_bn_epochs}")
        least = {"one_cycle": "above 0 and below", "cosine": "below"}.get(self.schedule)
        if least and not (0 if self.schedule == "cosine" else 1e-9) <= self.warmup < length:
            raise ValueError(
                f"warmup must be {least} {unit}={length}, got {self.warmup}; set both, such as warmup={length / 4}"
            )

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of a run, given those of a pass over the training images."""
        return self.iterations or self.epochs * steps_per_epoch

    def passes(self, steps_per_epoch: int) -> int:
        """Return the number of epochs of a run, the last of which may be shorter with `iterations`."""
        return self.epochs or -(-self.iterations // steps_per_epoch)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of every image."""
        resize, crop = (parse_size(size, "size") for size in (self.resize, self.crop_size))
        return Preprocessing(resize, crop, tuple(self.mean), tuple(self.std), self.interpolation, self.max_size)

    @property
    def augmentation(self) -> Augmentation:
        """The random augmentation in training."""
        return Augmentation(self.crop, self.flip, self.padding, self.randaugment, tuple(self.scales))


# What a key had the effect of, in files of versions that did not have it.
DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(Recipe) if one.default is not MISSING}
DEFAULTS |= {one.name: one.default_factory() for one in fields(Recipe) if one.default_factory is not MISSING}
_TYPES = {one.name: one.type for one in fields(Recipe)}
# What timm and others call a key, where the spelling is too different for a suggestion, or leads to another key.
_NAMES_ELSEWHERE = {
    "batch_size": "batch",
    "learning_rate": "lr",
    "opt": "optimizer",
    "sched": "schedule",
    "wd": "weight_decay",
}


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe of values that TOML or JSON gives.

    Raises:
        ValueError: an unknown key (the message names the closest one), a missing one, or an invalid value.
    """
    for name, value in values.items():
        check_key(name, value)
    missing = [name for name in ("batch", "lr") if name not in values]
    if not {"epochs", "iterations"} & values.keys():
        missing.insert(0, "epochs")
    if missing:
        raise ValueError(f"the recipe lacks {', '.join(missing)}")
    return Recipe(**values)


def check_key(name: str, value: Any) -> None:
    """Check the name of a recipe's key and the type of its value.

    Raises:
        ValueError: there is no such key (the message names the closest one), or the value is of another type.
    """
    if name not in _TYPES:
        same = _NAMES_ELSEWHERE.get(name)
        message = f"unknown key {name!r}; did you mean {same!r}?" if same else unknown_name("key", name, _TYPES)
        every = in_python_or("senet.Recipe", "`senet train --recipe NAME --show`")
        raise ValueError(f"{message} {every} lists all.")
    check_type(name, value, _TYPES[name])
