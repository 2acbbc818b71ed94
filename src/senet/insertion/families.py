"""Tables of supported networks: residual units, and the blocks of other families.

A residual unit is identified by the names and the definition order of its children, which are the same in torchvision,
timm and senet. A block of another family is identified by the name of its class, without importing its library. No
network has code of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from senet.graph.se_kinds import class_names
from senet.nn.recalibration import Side

__all__ = ["FAMILIES", "UNITS", "Family", "Spot", "Unit", "family_of", "unit_of"]


@dataclass(frozen=True)
class Spot:
    """A child of a unit ("" for the unit itself), its side, and the convolution with the channels of the map."""

    child: str
    side: Side
    conv: str
    channels: str = "out_channels"


@dataclass(frozen=True)
class Unit:
    """A type of residual unit: its children in definition order, and the spot of each placement."""

    children: tuple[str, ...]
    spots: dict[str, Spot]


def _unit(children: str, *, end: str, last: str, inner: str, conv3x3: str) -> Unit:
    """Create a row: `end` closes the branch, `inner` is the batch norm after the 3x3 convolution `conv3x3`."""
    return Unit(
        tuple(children.split()),
        {
            "standard": Spot(end, "output", last),
            "pre": Spot("conv1", "input", "conv1", "in_channels"),
            "post": Spot("", "output", last),
            "identity": Spot("downsample", "output", last),
            "conv3x3": Spot(inner, "output", conv3x3),
        },
    )


# Longer units first, since a bottleneck has all children of a basic unit. The definition order distinguishes batch
# norms after a convolution from pre-activation.
UNITS = (
    _unit("conv1 bn1 conv2 bn2 conv3 bn3", end="bn3", last="conv3", inner="bn2", conv3x3="conv2"),
    _unit("bn1 conv1 bn2 conv2 bn3 conv3", end="conv3", last="conv3", inner="bn3", conv3x3="conv2"),
    _unit("conv1 bn1 conv2 bn2", end="bn2", last="conv2", inner="bn1", conv3x3="conv1"),
    _unit("bn1 conv1 bn2 conv2", end="conv2", last="conv2", inner="bn2", conv3x3="conv1"),
)


def unit_of(block: nn.Module) -> Unit | None:
    """Return the type of a residual unit: it has `downsample`, and the children of a row in that order."""
    if not hasattr(block, "downsample"):
        return None
    names = [name for name, _ in block.named_children()]
    return next((unit for unit in UNITS if _in_order(unit.children, names)), None)


def _in_order(wanted: Iterable[str], names: Iterable[str]) -> bool:
    rest = iter(names)
    return all(name in rest for name in wanted)


@dataclass(frozen=True)
class Family:
    """A family without residual units, which has only the placement "standard".

    Attributes:
        blocks: full names of classes, including subclasses.
        spots: returns for a block the names of its units, and of the child of each on whose output SE acts ("" is the
            block itself). Empty if the block belongs to another network of the same class.
        first_stage: number of the stage with stride 1; a stage is this plus log2 of the total stride.
    """

    blocks: tuple[str, ...]
    spots: Callable[[nn.Module], list[tuple[str, str]]]
    first_stage: int = 0


def _at(child: str) -> Callable[[nn.Module], list[tuple[str, str]]]:
    return lambda block: [("", child)]


def _after_convolutions(vgg: nn.Module) -> list[tuple[str, str]]:
    """Return the ReLU of each convolution: the last module before the next convolution or pool (paper section 6.1)."""
    features = list(vgg.get_submodule("features").named_children())
    ends = (nn.Conv2d, nn.MaxPool2d)
    return [
        (f"features.{name}", f"features.{name}")
        for index, (name, module) in enumerate(features)
        if not isinstance(module, ends) and (index + 1 == len(features) or isinstance(features[index + 1][1], ends))
    ]


def _pointwise(network: nn.Module) -> list[tuple[str, str]]:
    """Return the batch norm with ReLU of each pointwise convolution, in MobileNet v1 only."""
    blocks = [
        (f"blocks.{stage}.{name}", block)
        for stage, blocks in network.get_submodule("blocks").named_children()
        for name, block in blocks.named_children()
    ]
    # Other networks of this class start with such a block, without the activation, then have inverted residuals.
    if not all(getattr(block, "has_pw_act", False) for _, block in blocks):
        return []
    return [(name, f"{name}.bn2") for name, _ in blocks]


def _classes(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


_INCEPTION_RESNET = "timm.models.inception_resnet_v2"
_WHOLE = (
    *_classes("senet.models.bn_inception", "Inception"),
    *_classes("torchvision.models.googlenet", "Inception"),
    *_classes("torchvision.models.inception", "InceptionA InceptionB InceptionC InceptionD InceptionE"),
    *_classes("timm.models.inception_v3", "InceptionA InceptionB InceptionC InceptionD InceptionE"),
    *_classes("timm.models.inception_v4", "InceptionA ReductionA InceptionB ReductionB InceptionC"),
    *_classes(_INCEPTION_RESNET, "Mixed_5b Mixed_6a Mixed_7a"),
)

# A new family is a new row.
FAMILIES = (
    # VGG has stages conv1 to conv5: the first is at full resolution.
    Family(("torchvision.models.vgg.VGG", "timm.models.vgg.VGG"), _after_convolutions, first_stage=1),
    # Inception: the output of each module, including those with a stride, without the stem.
    Family(_WHOLE, _at("")),
    # Inception-ResNet: a residual branch's end is a convolution, before scaling and sum.
    Family(_classes(_INCEPTION_RESNET, "Block35 Block17 Block8"), _at("conv2d")),
    Family(_classes("timm.models.efficientnet", "EfficientNet EfficientNetFeatures"), _pointwise),
    # ShuffleNet: the residual branch's end, before the sum or the concatenation.
    Family(("senet.models.shufflenet.ShuffleUnit",), _at("bn3")),
    # Shake-Shake: the mixed branches, before the sum with the skip; its stages are those of CIFAR's residual networks.
    Family(("senet.models.shake_shake.ShakeShakeUnit",), _at("mix"), first_stage=2),
)
_BY_CLASS = {name: family for family in FAMILIES for name in family.blocks}


def family_of(block: nn.Module) -> tuple[Family, list[tuple[str, str]]] | None:
    """Return the family that a block is of, and its spots; None where there are none."""
    family = next((_BY_CLASS[name] for name in class_names(block) if name in _BY_CLASS), None)
    spots = family.spots(block) if family else []
    return (family, spots) if family and spots else None
