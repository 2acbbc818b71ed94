"""Recipes: everything that a run depends on beside its network and data, as TOML."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import tomli_w

from senet.data import Augmentation, Preprocessing
from senet.errors import unknown_name
from senet.files import atomic_path

__all__ = ["Recipe", "apply_settings", "list_recipes", "load_recipe", "write_recipe"]

SCHEDULES = ("step", "one_cycle")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images of a step.
        seed: of weights, order and augmentation.
        lr: learning rate; the peak of "one_cycle".
        momentum, nesterov: of SGD.
        weight_decay: on every weight; with `decay_all` false not on batch norms and biases.
        decay_all: also decay batch norms and biases, as He et al. 2015 do.
        schedule: "step": divided by 10 at the start of each epoch of `drops`; "one_cycle": a linear rise to the peak
            over `warmup` epochs, then a linear fall to 0 (Smith 2018, arXiv 1803.09820).
        drops: epochs after which the learning rate falls, for "step".
        warmup: epochs; for "step" at a tenth of the learning rate, as He et al. 2015 need for 110 layers.
        label_smoothing: of the cross entropy.
        resize, crop_size: pixels of the shorter side and of the square that enters the network, see `Preprocessing`.
        mean, std: of the training images by channel, on the scale of 0 to 1.
        interpolation: of resizing.
        crop, flip, padding: the random part, see `Augmentation`.
        workers: processes that decode images, where these do not fit in memory.
        network: options of `senet.create_model`.

    Raises:
        ValueError: a value that cannot be.
    """

    epochs: int
    batch: int
    lr: float
    seed: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_all: bool = True
    schedule: str = "step"
    drops: list[int] = field(default_factory=list)
    warmup: float = 0.0
    label_smoothing: float = 0.0
    resize: int = 256
    crop_size: int = 224
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    interpolation: str = "bilinear"
    crop: str = "none"
    flip: bool = False
    padding: int = 4
    workers: int = 2
    network: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("lr", "momentum", "weight_decay", "warmup", "label_smoothing", "workers", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, and finite, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        if self.nesterov and not self.momentum:
            raise ValueError(f"nesterov needs a momentum above 0, got {self.momentum}")
        if not all(drop >= 0 for drop in self.drops):
            raise ValueError(f"drops must be epochs, 0 or more, got {self.drops}")
        if self.schedule not in SCHEDULES:
            raise ValueError(unknown_name("schedule", self.schedule, SCHEDULES))
        if self.schedule == "one_cycle" and not 0 < self.warmup < self.epochs:
            raise ValueError(
                f"warmup must be above 0 and below epochs={self.epochs}, got {self.warmup}; set both, such as "
                f"warmup={self.epochs / 4}"
            )
        self.preprocessing, self.augmentation  # noqa: B018  (they check their own values)

    @property
    def preprocessing(self) -> Preprocessing:
        """What every image undergoes."""
        return Preprocessing(self.resize, self.crop_size, tuple(self.mean), tuple(self.std), self.interpolation)

    @property
    def augmentation(self) -> Augmentation:
        """What is random in training."""
        return Augmentation(self.crop, self.flip, self.padding)


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
    list[int]: ("a list of whole numbers", lambda value: isinstance(value, list) and all(map(_is_whole, value))),
    list[float]: ("a list of numbers", lambda value: isinstance(value, list) and all(map(_is_number, value))),
    dict[str, Any]: ("a table", lambda value: isinstance(value, dict)),
}


def list_recipes() -> list[str]:
    """Names of the recipes that senet has."""
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def load_recipe(recipe: str | PathLike[str], settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe by its name or from a TOML file, and change some of its values.

    Args:
        recipe: a name of `list_recipes`, or a path that ends in `.toml`.
        settings: "KEY=VALUE", VALUE in TOML's syntax, or a bare word for text; "network.KEY=VALUE" is an option of
            the network.

    Raises:
        ValueError: no such recipe, a file that is no TOML, an unknown key (the message names the nearest one), or a
            value that cannot be.
    """
    if str(recipe).endswith(".toml"):
        path: Any = Path(recipe)
        if not path.is_file():
            raise ValueError(f"no recipe file at {path}")
    else:
        path = _folder() / f"{recipe}.toml"
        if not path.is_file():
            raise ValueError(f"{unknown_name('recipe', str(recipe), list_recipes())} Or a path that ends in .toml.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the recipe {path} is not TOML: {error}") from error
    return _build(apply_settings(values, settings))


def apply_settings(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Values with settings "KEY=VALUE" applied, see `load_recipe`.

    Raises:
        ValueError: a setting without "=", or of a table that a recipe does not have, or `network` is no table.
    """
    values = dict(values)
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"--set {setting!r} is to read KEY=VALUE, such as epochs=30 or network.reduction=8")
        table, dot, option = key.partition(".")
        if not dot:
            values[key] = _value(text)
        elif table == "network" and option:
            _check_type("network", values.get("network", {}))
            values["network"] = {**values.get("network", {}), option: _value(text)}
        else:
            raise ValueError(f"unknown key {key!r}; a recipe has one table, [network], as in network.reduction=8")
    _check_type("network", values.get("network", {}))
    return values


def write_recipe(recipe: Recipe, path: str | PathLike[str], **beside: Any) -> None:
    """Write all values in force, as TOML that `load_recipe` reads; `beside` goes into comments on top."""
    comments = "".join(f"# {key} = {value}\n" for key, value in beside.items())
    # What Python can say and TOML cannot: None is what an option is without it.
    network = {key: _as_toml(value) for key, value in recipe.network.items() if value is not None}
    with atomic_path(path) as temporary:
        temporary.write_text(comments + tomli_w.dumps(asdict(recipe) | {"network": network}), encoding="utf-8")


def _folder() -> Any:
    return files("senet.training") / "recipes"


def _as_toml(value: Any) -> Any:
    if isinstance(value, PathLike):
        return str(value)
    return sorted(value) if isinstance(value, set | frozenset) else value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _build(values: Mapping[str, Any]) -> Recipe:
    for key, value in values.items():
        if key not in _FIELDS:
            raise ValueError(unknown_name("key", key, _FIELDS))
        _check_type(key, value)
    missing = [key for key in ("epochs", "batch", "lr") if key not in values]
    if missing:
        raise ValueError(f"the recipe lacks {', '.join(missing)}")
    return Recipe(**values)


def _check_type(key: str, value: Any) -> None:
    """Whether a value has its field's type, as far as TOML can be wrong about it."""
    what, right = _KINDS[_FIELDS[key].type]
    if not right(value):
        raise ValueError(f"{key} must be {what}, got {value!r}")
