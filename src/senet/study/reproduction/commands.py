"""The commands that measure each row of the paper's tables, and what senet cannot do as the paper did."""

import shlex
from dataclasses import dataclass

from senet.paper import Entry
from senet.study.data_sets import DATA_SETS

__all__ = ["TABLE_NOTES", "RowCommands", "commands_of", "study_command", "trained_network"]

# The study of each ablation table.
_STUDIES = {
    "10": "reduction",
    "11": "squeeze",
    "12": "gate",
    "13": "stages",
    "14": "placement",
    "15": "conv3x3",
    "16": "nosqueeze",
}
# The ablations are trained with smoothed labels.
_ABLATION = ("label_smoothing=0.1",)

TABLE_NOTES = {
    "3": "The paper's schedule ends when the validation error stops falling. The paper gives no patience; the recipe's "
    "is senet's choice.",
    "4": "Each plain network is trained with the hyper-parameters of its own paper.",
    "5": "Each plain network is trained with the hyper-parameters of its own paper.",
    "6": "The settings are those of ImageNet. The paper takes its settings from another paper on Places365.",
    "7": 'AP at an overlap of 0.5, and AP. The schedule is Detectron\'s "2x", to which the paper refers. The backbones '
    "have the weights of Table 2.",
    "8": "One network, evaluated on crops of two sizes.",
    "9": "The recipe scales the shorter side with the crop. The paper does not give it.",
    **dict.fromkeys(
        _STUDIES,
        "The paper does not give the schedule of its ablations. The commands use ImageNet's, with smoothed labels and "
        "FCs without biases, as in the paper.",
    ),
    "release": "The authors trained with rotated images and jittered pixels, which senet's recipes do not have. Their "
    "weights can be evaluated if you have the files.",
    "schedule": "270 epochs; the learning rate falls after 125, 200 and 250.",
    "challenge": "An ensemble, on a test set whose labels are not public.",
}

_CAFFE = {
    "se_bn_inception": "SE-BN-Inception",
    "se_resnet50": "SE-ResNet-50",
    "se_resnet101": "SE-ResNet-101",
    "se_resnet152": "SE-ResNet-152",
    "se_resnext50_32x4d": "SE-ResNeXt-50",
    "se_resnext101_32x4d": "SE-ResNeXt-101",
    "senet154": "SENet",
}
# Suffixes of the output folders of networks that several tables have.
_FOLDERS = {"5": ["cifar100"], "6": ["places"], "9": ["320"], "schedule": ["270"]}
# Gastaldi's, of the code of arXiv 1705.07485.
_SHAKE = ("epochs=1800", "schedule=cosine", "milestones=[]")
_SHAKES = {
    "4": (*_SHAKE, "lr=0.2"),
    "5": (*_SHAKE, "lr=0.025", "batch=32", "weight_decay=5e-4"),
}


@dataclass(frozen=True)
class RowCommands:
    """The commands that measure a row.

    Attributes:
        recipe: name of the recipe; empty where nothing is trained.
        settings: settings of the recipe, without the options of the network.
        lines: shell commands.
        limitation: what senet cannot do as the paper did; empty where there is nothing.
    """

    recipe: str
    settings: tuple[str, ...]
    lines: tuple[str, ...]
    limitation: str = ""


def commands_of(entry: Entry) -> RowCommands | None:
    """Return the commands that measure a row; None where senet cannot.

    Args:
        entry: one of `senet.paper.ENTRIES`.
    """
    if entry.table == "challenge" or not entry.network:
        return None
    if entry.table == "release":
        file = f"{_CAFFE[entry.network]}.caffemodel"
        # Loading converts BGR to RGB, and uses the mean of the training.
        return RowCommands("", (), (f"senet evaluate {file} --network {entry.network} --data {_spec(entry)}",))
    recipe, settings, limitation = _recipe(entry)
    command = [_train(entry, recipe, settings)]
    if entry.table == "8" and entry.size == 320:
        command.append(f"senet evaluate runs/senet154/last.safetensors --data {_spec(entry)} --resize 366 --crop 320")
    return RowCommands(recipe, settings, tuple(command), limitation)


def trained_network(entry: Entry) -> str:
    """Return the name of the network that a row's command trains: of a detector, with the row's network inside."""
    return f"faster_rcnn:{entry.network}" if entry.table == "7" else entry.network


def study_command(table: str, seeds: int = 3) -> str | None:
    """Return the command that measures all rows of an ablation table; None for other tables.

    Args:
        table: key of `senet.paper.TITLES`.
        seeds: number of seeds.
    """
    if table not in _STUDIES:
        return None
    name = _STUDIES[table]
    settings = " ".join(f"--set {setting}" for setting in (*_ABLATION, "network.bias=false"))
    return (
        f"senet study {name} --network se_resnet50 --data {DATA_SETS[table].spec} --recipe imagenet {settings} "
        f"--seeds {seeds} --output runs/{name}"
    )


def _recipe(entry: Entry) -> tuple[str, tuple[str, ...], str]:
    """Return the recipe, its settings, and the limitation."""
    network = entry.network.removeprefix("se_")
    if entry.table in _STUDIES:
        return "imagenet", _ABLATION, ""
    if entry.table == "3":
        return "mobile", (), ""
    if entry.table in ("4", "5"):
        if network.startswith("shake"):
            return "cifar", _SHAKES[entry.table], "Cutout, which senet's recipes do not have: expect a higher error"
        return ("wrn" if network.startswith("wrn") else "cifar-110"), (), ""
    if entry.table in ("8", "9"):
        return "senet154", ("crop_size=320", "resize=366") if entry.table == "9" else (), ""
    if entry.table == "7":
        return "coco-2x", (), ""
    if entry.table == "6":
        return "places365", (), ""
    if entry.table == "schedule":
        return "imagenet", ("epochs=270", "milestones=[125,200,250]"), ""
    return "imagenet", ("crop_size=299", "resize=352") if entry.size == 299 else (), ""


def _train(entry: Entry, recipe: str, settings: tuple[str, ...]) -> str:
    options = tuple(f"network.{key}={_toml(value)}" for key, value in entry.options.items())
    parts = [f"--set {shlex.quote(setting)}" for setting in (*settings, *options)]
    varied = [f"{key}-{_toml(value)}" for key, value in entry.options.items() if key != "bias"]
    suffix = _FOLDERS.get(entry.table, ["ablation"] if entry.table in _STUDIES else [])
    network = trained_network(entry)
    folder = "-".join([network.replace(":", "-"), *varied, *suffix])
    if network != entry.network:
        parts.append(f"--set network.backbone_weights=runs/{entry.network}/best.safetensors")
    return " ".join(
        [f"senet train {network} --data {_spec(entry)} --recipe {recipe}", *parts, f"--output runs/{folder}"]
    )


def _spec(entry: Entry) -> str:
    return DATA_SETS[entry.table].spec


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
