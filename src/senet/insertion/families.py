"""What is known of networks: the table of residual units, and the table of other families' blocks.

A residual unit is told by the names of its children and the order in which they are defined, which is the same in
torchvision's, timm's and senet's networks. A block of another family is told by its class, by name: no library is
imported to look. No network has code of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from senet.graph.se_kinds import class_names

__all__ = ["FAMILIES", "UNITS", "Family", "Spot", "Unit", "family_of", "unit_of"]


@dataclass(frozen=True)
class Spot:
    """A child of a unit (the unit itself: ""), the side of it, and the convolution whose channels the map has."""

    child: str
    side: str
    conv: str
    channels: str = "out_channels"


@dataclass(frozen=True)
class Unit:
    """A kind of residual unit: its children in the order of their definition, and the spot of each placement."""

    children: tuple[str, ...]
    spots: dict[str, Spot]


def _unit(children: str, *, end: str, last: str, inner: str, conv3x3: str) -> Unit:
    """A row of the table: `end` closes the branch, `inner` is the batch norm after the 3x3 convolution `conv3x3`."""
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


# Longer units first: a basic unit's children are among a bottleneck's. The order of definition tells the batch norm
# that follows a convolution from the pre-activation that precedes it.
UNITS = (
    _unit("conv1 bn1 conv2 bn2 conv3 bn3", end="bn3", last="conv3", inner="bn2", conv3x3="conv2"),
    _unit("bn1 conv1 bn2 conv2 bn3 conv3", end="conv3", last="conv3", inner="bn3", conv3x3="conv2"),
    _unit("conv1 bn1 conv2 bn2", end="bn2", last="conv2", inner="bn1", conv3x3="conv1"),
    _unit("bn1 conv1 bn2 conv2", end="conv2", last="conv2", inner="bn2", conv3x3="conv1"),
)


def unit_of(block: nn.Module) -> Unit | None:
    """The kind of residual unit that a module is: it has a slot for its skip and the children, in their order."""
    if not hasattr(block, "downsample"):
        return None
    names = [name for name, _ in block.named_children()]
    return next((unit for unit in UNITS if _in_order(unit.children, names)), None)


def _in_order(wanted: Iterable[str], names: Iterable[str]) -> bool:
    rest = iter(names)
    return all(name in rest for name in wanted)


@dataclass(frozen=True)
class Family:
    """A row of the table of families that are not made of residual units; they know the placement "standard" alone.

    Attributes:
        blocks: classes by their full names; subclasses too.
        spots: of such a block, the block or the child to speak of, and the child whose output SE acts on, by their
            names within it ("": the block itself). Empty where the block is of another network of the same class.
        first_stage: the stage's number where the stride is 1: a stage is that plus log2 of the total stride.
    """

    blocks: tuple[str, ...]
    spots: Callable[[nn.Module], list[tuple[str, str]]]
    first_stage: int = 0


def _at(child: str) -> Callable[[nn.Module], list[tuple[str, str]]]:
    return lambda block: [("", child)]


def _after_convolutions(vgg: nn.Module) -> list[tuple[str, str]]:
    """After the ReLU of each convolution: the last module before the next convolution or pool (paper section 6.1)."""
    features = list(vgg.get_submodule("features").named_children())
    ends = (nn.Conv2d, nn.MaxPool2d)
    return [
        (f"features.{name}", f"features.{name}")
        for index, (name, module) in enumerate(features)
        if not isinstance(module, ends) and (index + 1 == len(features) or isinstance(features[index + 1][1], ends))
    ]


def _pointwise(network: nn.Module) -> list[tuple[str, str]]:
    """MobileNet v1, of the networks of this class: after the pointwise convolution's batch norm and ReLU."""
    blocks = [
        (f"blocks.{stage}.{name}", block)
        for stage, blocks in network.get_submodule("blocks").named_children()
        for name, block in blocks.named_children()
    ]
    # Others begin with such a block, without the activation, and go on with inverted residuals.
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
    # Inceptions: the output of a module, those with a stride included, the stem excepted.
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
    """The family that a block is of, and its spots; None where there are none."""
    family = next((_BY_CLASS[name] for name in class_names(block) if name in _BY_CLASS), None)
    spots = family.spots(block) if family else []
    return (family, spots) if family and spots else None
