"""The paper's tables as data: Hu, Shen, Albanie, Sun and Wu, "Squeeze-and-Excitation Networks", arXiv 1709.01507.

Errors are in percent, on a single crop. The paper's FLOPs are multiply-adds. Where a figure does not match the
architecture, the entry gives the reason if it is known.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["COST_TABLES", "ENTRIES", "SPEED", "TITLES", "Entry", "entries", "fitting"]

TITLES = {
    "2": "ImageNet",
    "3": "ImageNet, mobile networks",
    "4": "CIFAR-10",
    "5": "CIFAR-100",
    "6": "Places365",
    "7": "COCO minival, Faster R-CNN",
    "8": "ImageNet, SENet-154",
    "9": "ImageNet, SENet-154 trained on larger images",
    "10": "reduction ratio r",
    "11": "squeeze",
    "12": "excitation",
    "13": "stages",
    "14": "placement",
    "15": "placement inside the branch",
    "16": "no squeeze",
    "release": "the authors' released networks, counted from their descriptions",
    "schedule": "a fixed schedule of 270 epochs",
    "challenge": "ILSVRC 2017, test set",
}
# Tables with parameters or multiply-adds.
COST_TABLES = ("2", "3", "10", "13", "15", "16", "release")

# Milliseconds, without and with SE: a training step of ResNet-50, 256 images on eight Titan X; one image on a CPU.
SPEED = {"train": (190.0, 209.0), "infer": (164.0, 167.0)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a table.

    Attributes:
        table: a key of `TITLES`.
        label: the paper's name of the row.
        network: name for `senet.create_model`; empty where senet has no such network.
        options: options for `senet.create_model`.
        size: height and width of the images in pixels.
        top1, top5: errors in percent; None where the paper has none.
        original: top-1 and top-5 error from the paper of the plain network, where this paper repeats them.
        precision: AP at an overlap of 0.5 and mean AP, for detection.
        macs, params: multiply-adds for one image, and parameters; None where the paper has none.
        macs_digit, params_digit: value of one unit in their last digit.
        statistics: whether the parameters match when batch norm's running statistics are counted.
        rounded_down: whether the parameters match when digits are truncated.
        macs_mismatch, params_mismatch: why they do not match the architecture; empty where they do.
    """

    table: str
    label: str
    network: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 224
    top1: float | None = None
    top5: float | None = None
    original: tuple[float, float | None] | None = None
    precision: tuple[float, float] | None = None
    macs: float | None = None
    macs_digit: float = 0.0
    params: float | None = None
    params_digit: float = 0.0
    statistics: bool = False
    rounded_down: bool = False
    macs_mismatch: str = ""
    params_mismatch: str = ""

    @property
    def note(self) -> str:
        """Why a figure does not match the architecture, or under which condition it does; empty where it matches."""
        parts = (
            self.macs_mismatch and f"multiply-adds: {self.macs_mismatch}",
            self.params_mismatch and f"parameters: {self.params_mismatch}",
            "parameters match when batch norm's running statistics are counted" if self.statistics else "",
            "parameters match when digits are truncated" if self.rounded_down else "",
        )
        return "; ".join(part for part in parts if part)


_Errors = tuple[float, float | None]


def entries(*tables: str) -> list[Entry]:
    """Return the rows of some tables, in the paper's order; of all tables unless any is given."""
    return [entry for entry in ENTRIES if not tables or entry.table in tables]


def fitting(network: str, options: Mapping[str, Any], tables: Collection[str] = ()) -> list[Entry]:
    """Return the rows of a network with exactly these options of `senet.create_model`, in some tables or all."""
    return [one for one in entries(*tables) if one.network == network and dict(one.options) == dict(options)]


def _pair(entry: Entry, plain: _Errors, with_se: _Errors) -> list[Entry]:
    """Return the rows of a network without SE and with it."""
    return [
        replace(entry, top1=plain[0], top5=plain[1]),
        replace(
            entry,
            label=f"SE-{entry.label}",
            network=f"se_{entry.network}",
            original=None,
            top1=with_se[0],
            top5=with_se[1],
        ),
    ]


def _table_2(
    label: str,
    network: str,
    original: _Errors | None,
    plain: tuple[float, float, float],
    with_se: tuple[float, float, float],
    *,
    size: int = 224,
    mismatch: str = "",
) -> Iterator[Entry]:
    """Yield the rows without and with SE, from errors and multiply-adds in G."""
    entry = Entry(
        table="2", label=label, network=network, size=size, original=original, macs_digit=1e7, macs_mismatch=mismatch
    )
    for line, macs in zip(_pair(entry, plain[:2], with_se[:2]), (plain[2], with_se[2]), strict=True):
        yield replace(line, macs=macs * 1e9)


def _table_3(
    label: str,
    network: str,
    original: float,
    plain: tuple[float, float, float, float],
    with_se: tuple[float, float, float, float],
    *,
    mismatch: str = "",
    rounded_down: bool = False,
) -> Iterator[Entry]:
    """Yield the rows without and with SE, from errors, multiply-adds in M, and parameters in M."""
    entry = Entry(
        table="3",
        label=label,
        network=network,
        original=(original, None),
        macs_digit=1e6,
        params_digit=1e5,
        macs_mismatch=mismatch,
        rounded_down=rounded_down,
    )
    for line, (macs, params) in zip(_pair(entry, plain[:2], with_se[:2]), (plain[2:], with_se[2:]), strict=True):
        yield replace(line, macs=macs * 1e6, params=params * 1e6)


def _cifar(table: str, label: str, network: str, plain: float, with_se: float) -> list[Entry]:
    entry = Entry(table=table, label=label, network=network, size=32)
    return _pair(entry, (plain, None), (with_se, None))


def _variant(
    table: str,
    label: str,
    errors: _Errors,
    *,
    params: float | None = None,
    macs: float | None = None,
    statistics: bool = False,
    mismatch: str = "",
    network: str = "se_resnet50",
    **options: Any,
) -> Entry:
    """Return a row of the ablations: SE-ResNet-50 with FCs without bias; parameters in M, multiply-adds in G."""
    return Entry(
        table=table,
        label=label,
        network=network,
        options={"bias": False, **options} if network == "se_resnet50" else {},
        top1=errors[0],
        top5=errors[1],
        params=None if params is None else params * 1e6,
        params_digit=1e5,
        macs=None if macs is None else macs * 1e9,
        macs_digit=1e7,
        statistics=statistics,
        params_mismatch=mismatch,
    )


def _released(label: str, network: str, errors: _Errors, params: int, macs: float) -> Entry:
    """Return a row of the release: parameters and multiply-adds (G) counted from the files, the authors' errors."""
    return Entry(
        table="release",
        label=label,
        network=network,
        top1=errors[0],
        top5=errors[1],
        params=params,
        params_digit=1,
        macs=macs * 1e9,
        macs_digit=1e6,
    )


_INCEPTION = "counting the architecture gives more, with images of 299x299; the paper does not say what it omits"
_SHUFFLE = "counting the architecture gives fewer; the paper repeats the 140 M of ShuffleNet's own paper"
_RATIO_8 = "the layers that the paper describes have fewer, with or without batch norm's statistics"

ENTRIES: tuple[Entry, ...] = (
    *_table_2("ResNet-50", "resnet50", (24.7, 7.8), (24.80, 7.48, 3.86), (23.29, 6.62, 3.87)),
    *_table_2("ResNet-101", "resnet101", (23.6, 7.1), (23.17, 6.52, 7.58), (22.38, 6.07, 7.60)),
    *_table_2("ResNet-152", "resnet152", (23.0, 6.7), (22.42, 6.34, 11.30), (21.57, 5.73, 11.32)),
    *_table_2("ResNeXt-50", "resnext50_32x4d", (22.2, None), (22.11, 5.90, 4.24), (21.10, 5.49, 4.25)),
    *_table_2("ResNeXt-101", "resnext101_32x4d", (21.2, 5.6), (21.18, 5.57, 7.99), (20.70, 5.01, 8.00)),
    *_table_2("VGG-16", "vgg16", None, (27.02, 8.81, 15.47), (25.22, 7.70, 15.48)),
    *_table_2("BN-Inception", "bn_inception", (25.2, 7.82), (25.38, 7.89, 2.03), (24.23, 7.14, 2.04)),
    *_table_2(
        "Inception-ResNet-v2",
        "inception_resnet_v2",
        (19.9, 4.9),
        (20.37, 5.21, 11.75),
        (19.80, 4.79, 11.76),
        size=299,
        mismatch=_INCEPTION,
    ),
    *_table_3("MobileNet", "mobilenet", 29.4, (28.4, 9.4, 569, 4.2), (25.3, 7.7, 572, 4.7)),
    *_table_3(
        "ShuffleNet",
        "shufflenet",
        32.6,
        (32.6, 12.5, 140, 1.8),
        (31.0, 11.1, 142, 2.4),
        mismatch=_SHUFFLE,
        rounded_down=True,
    ),
    *_cifar("4", "ResNet-110", "preresnet110", 6.37, 5.21),
    *_cifar("4", "ResNet-164", "preresnet164", 5.46, 4.39),
    *_cifar("4", "WRN-16-8", "wrn_16_8", 4.27, 3.88),
    *_cifar("4", "Shake-Shake 26 2x96d + Cutout", "shake_shake_26_2x96d", 2.56, 2.12),
    *_cifar("5", "ResNet-110", "preresnet110", 26.88, 23.85),
    *_cifar("5", "ResNet-164", "preresnet164", 24.33, 21.31),
    *_cifar("5", "WRN-16-8", "wrn_16_8", 20.43, 19.14),
    *_cifar("5", "Shake-Even 29 2x4x64d + Cutout", "shake_even_29_2x4x64d", 15.85, 15.41),
    Entry(table="6", label="Places-365-CNN", top1=41.07, top5=11.48),
    *_pair(Entry(table="6", label="ResNet-152", network="resnet152"), (41.15, 11.61), (40.37, 11.01)),
    Entry(table="7", label="ResNet-50", network="resnet50", precision=(57.9, 38.0)),
    Entry(table="7", label="SE-ResNet-50", network="se_resnet50", precision=(61.0, 40.4)),
    Entry(table="7", label="ResNet-101", network="resnet101", precision=(60.1, 39.9)),
    Entry(table="7", label="SE-ResNet-101", network="se_resnet101", precision=(62.7, 41.9)),
    Entry(table="8", label="SENet-154", network="senet154", top1=18.68, top5=4.47),
    Entry(table="8", label="SENet-154", network="senet154", size=320, top1=17.28, top5=3.79),
    Entry(table="9", label="SENet-154", network="senet154", size=320, top1=16.88, top5=3.58),
    _variant("10", "r = 2", (22.29, 6.00), params=45.7, reduction=2),
    _variant("10", "r = 4", (22.25, 6.09), params=35.7, statistics=True, reduction=4),
    _variant("10", "r = 8", (22.26, 5.99), params=30.7, mismatch=_RATIO_8, reduction=8),
    _variant("10", "r = 16", (22.28, 6.03), params=28.1),
    _variant("10", "r = 32", (22.72, 6.20), params=26.9, statistics=True, reduction=32),
    _variant("10", "no SE", (23.30, 6.55), params=25.6, network="resnet50"),
    _variant("11", "max", (22.57, 6.09), squeeze="max"),
    _variant("11", "average", (22.28, 6.03)),
    _variant("12", "ReLU", (23.47, 6.98), gate="relu"),
    _variant("12", "tanh", (23.00, 6.38), gate="tanh"),
    _variant("12", "sigmoid", (22.28, 6.03)),
    _variant("13", "stage 2", (23.03, 6.48), params=25.6, stages=2),
    _variant("13", "stage 3", (23.04, 6.32), params=25.7, stages=3),
    _variant("13", "stage 4", (22.68, 6.22), params=26.4, statistics=True, stages=4),
    _variant("13", "all stages", (22.28, 6.03), params=28.1),
    _variant("14", "standard", (22.28, 6.03)),
    _variant("14", "PRE", (22.23, 6.00), placement="pre"),
    _variant("14", "POST", (22.78, 6.35), placement="post"),
    _variant("14", "Identity", (22.20, 6.15), placement="identity"),
    _variant("15", "SE_3x3", (22.48, 6.02), params=25.8, macs=3.86, statistics=True, placement="conv3x3"),
    _variant("16", "NoSqueeze", (22.93, 6.39), params=28.1, macs=4.27, squeeze="none"),
    _released("SE-BN-Inception", "se_bn_inception", (23.62, 7.04), 11_931_622, 2.033),
    _released("SE-ResNet-50", "se_resnet50", (22.37, 6.36), 28_088_024, 3.861),
    _released("SE-ResNet-101", "se_resnet101", (21.75, 5.72), 49_326_872, 7.575),
    _released("SE-ResNet-152", "se_resnet152", (21.34, 5.54), 66_821_848, 11.289),
    _released("SE-ResNeXt-50", "se_resnext50_32x4d", (20.97, 5.54), 27_559_896, 4.233),
    _released("SE-ResNeXt-101", "se_resnext101_32x4d", (19.81, 4.96), 48_955_416, 7.975),
    _released("SENet-154", "senet154", (18.68, 4.47), 115_088_984, 20.688),
    *_pair(Entry(table="schedule", label="ResNet-50", network="resnet50"), (23.21, 6.53), (22.20, 6.00)),
    Entry(table="challenge", label="SENet, several networks", top5=2.251),
    Entry(table="challenge", label="best of 2016", top5=2.991),
)
