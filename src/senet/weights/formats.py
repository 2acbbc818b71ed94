"""The table of weight formats: how to identify a library by tensor names, and its names of each module.

A new format is a new row, which also states the architecture that names do not determine.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from senet.weights.patterns import Names, all_there

__all__ = ["AS_IS", "FORMATS", "HEADS", "MMPRETRAIN", "SENET", "SHARED", "Format", "identify"]

# Names of the classifier in networks and scripts, the most common first.
HEADS = (
    *("fc", "classifier", "classifier.6", "head.fc", "head", "last_linear", "classif", "linear", "logits", "output"),
    *("classifier.1", "classifier.3", "heads.head", "head.l", "fc_out", "cls_head.fc", "head.linear", "output.fc"),
)

# The authors' images: 0 to 255 minus the mean; BGR in Caffe, RGB here.
ON_255 = {"mean": (123 / 255, 117 / 255, 104 / 255), "std": (1 / 255,) * 3}
# SE blocks of other libraries are the paper's.
_PAPER = {"squeeze": "avg", "gate": "sigmoid", "activation": "relu"}


@dataclass(frozen=True, kw_only=True)
class Format:
    """A row of the table.

    Attributes:
        name: name of the format.
        signatures: patterns of module names; weights have this format if all patterns of one entry match.
        names: the library's names and senet's names of modules; others are equal. "@" is the site of a unit's SE.
        pool: pool after the stem of ImageNet networks, as in `ResNetSpec`; None if it varies.
        stride: convolution with the stride in bottlenecks of ImageNet networks; None if it varies.
        grouped_stride: `stride` if the 3x3 convolution has groups.
        small_stride: `stride` for CIFAR networks.
        certain: whether all networks of the library have these strides.
        blocks: options of all SE blocks.
        basic: why senet has no SE networks of basic units in this format; empty if it has.
        preprocessing: preprocessing of images, as in `pretrained_cfg`.
    """

    name: str
    signatures: tuple[str, ...]
    names: Names = ()
    pool: str | None = None
    stride: str | None = None
    grouped_stride: str | None = None
    small_stride: str | None = None
    certain: bool = True
    blocks: Mapping[str, str] = field(default_factory=lambda: _PAPER)
    basic: str = ""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


# Properties that names do not determine, in the authors' release and in torchvision.
_authors = partial(Format, pool="ceil", stride="conv1", grouped_stride="conv2")
_torchvision = partial(Format, pool="pad", stride="conv2", grouped_stride="conv2")

_DEEP_LAYER0: Names = (
    ("layer0.conv1", "conv1.0"),
    ("layer0.bn1", "conv1.1"),
    ("layer0.conv2", "conv1.3"),
    ("layer0.bn2", "conv1.4"),
    ("layer0.conv3", "conv1.6"),
    ("layer0.bn3", "bn1"),
)
_LAYER0: Names = (("layer0.conv1", "conv1"), ("layer0.bn1", "bn1"))
_CADENE: Names = (("layer{s}.{u}.se_module.fc{n}", "layer{s}.{u}.@.se.fc{n}"), ("last_linear", "fc"))
_MONAI: Names = (
    ("layer{s}.{u}.conv{n}.conv", "layer{s}.{u}.conv{n}"),
    ("layer{s}.{u}.conv{n}.adn.N", "layer{s}.{u}.bn{n}"),
    ("layer{s}.{u}.se_layer.fc.0", "layer{s}.{u}.@.se.fc1"),
    ("layer{s}.{u}.se_layer.fc.2", "layer{s}.{u}.@.se.fc2"),
    ("layer{s}.{u}.project.conv", "layer{s}.{u}.downsample.0"),
    ("layer{s}.{u}.project.adn.N", "layer{s}.{u}.downsample.1"),
    ("last_linear", "fc"),
)
_UNIT = "features.stage{s}.unit{u}"
_HERE = "layer{s}.{u-1}"
_PYTORCHCV: Names = (
    ("features.init_block.conv.conv", "conv1"),
    ("features.init_block.conv.bn", "bn1"),
    ("features.init_block.conv1.conv", "conv1.0"),
    ("features.init_block.conv1.bn", "conv1.1"),
    ("features.init_block.conv2.conv", "conv1.3"),
    ("features.init_block.conv2.bn", "conv1.4"),
    ("features.init_block.conv3.conv", "conv1.6"),
    ("features.init_block.conv3.bn", "bn1"),
    # CIFAR networks: one 3x3 convolution, without batch norm in pre-activation networks.
    ("features.init_block.conv", "conv1"),
    ("features.init_block.bn", "bn1"),
    ("features.init_block", "conv1"),
    (f"{_UNIT}.body.conv{{n}}.conv", f"{_HERE}.conv{{n}}"),
    (f"{_UNIT}.body.conv{{n}}.bn", f"{_HERE}.bn{{n}}"),
    (f"{_UNIT}.se.conv{{n}}", f"{_HERE}.@.se.fc{{n}}"),
    (f"{_UNIT}.identity_conv.conv", f"{_HERE}.downsample.0"),
    (f"{_UNIT}.identity_conv.bn", f"{_HERE}.downsample.1"),
    (f"{_UNIT}.identity_conv", f"{_HERE}.downsample"),
    ("features.post_activ.bn", "norm.0"),
    ("output.fc", "fc"),
    ("output", "fc"),
)
_MMPRETRAIN: Names = (
    ("backbone.stem.0.conv", "conv1.0"),
    ("backbone.stem.0.bn", "conv1.1"),
    ("backbone.stem.1.conv", "conv1.3"),
    ("backbone.stem.1.bn", "conv1.4"),
    ("backbone.stem.2.conv", "conv1.6"),
    ("backbone.stem.2.bn", "bn1"),
    ("backbone.conv1", "conv1"),
    ("backbone.bn1", "bn1"),
    ("backbone.layer{s}.{u}.se_layer.conv{n}.conv", "layer{s}.{u}.@.se.fc{n}"),
    ("backbone.layer{s}.{u}.conv{n}", "layer{s}.{u}.conv{n}"),
    ("backbone.layer{s}.{u}.bn{n}", "layer{s}.{u}.bn{n}"),
    ("backbone.layer{s}.{u}.downsample.{n}", "layer{s}.{u}.downsample.{n}"),
    ("head.fc", "fc"),
)
_BLOCK = "conv{s}_{u}"
_LAYER = "layer{s-1}.{u-1}"
_CAFFE: Names = (
    ("conv1/7x7_s2", "conv1"),
    ("conv1/7x7_s2/bn", "bn1"),
    ("conv1_1/3x3_s2", "conv1.0"),
    ("conv1_1/3x3_s2/bn", "conv1.1"),
    ("conv1_2/3x3", "conv1.3"),
    ("conv1_2/3x3/bn", "conv1.4"),
    ("conv1_3/3x3", "conv1.6"),
    ("conv1_3/3x3/bn", "bn1"),
    (f"{_BLOCK}_1x1_reduce", f"{_LAYER}.conv1"),
    (f"{_BLOCK}_1x1_reduce/bn", f"{_LAYER}.bn1"),
    (f"{_BLOCK}_3x3", f"{_LAYER}.conv2"),
    (f"{_BLOCK}_3x3/bn", f"{_LAYER}.bn2"),
    (f"{_BLOCK}_1x1_increase", f"{_LAYER}.conv3"),
    (f"{_BLOCK}_1x1_increase/bn", f"{_LAYER}.bn3"),
    (f"{_BLOCK}_1x1_down", f"{_LAYER}.@.se.fc1"),
    (f"{_BLOCK}_1x1_up", f"{_LAYER}.@.se.fc2"),
    (f"{_BLOCK}_1x1_proj", f"{_LAYER}.downsample.0"),
    (f"{_BLOCK}_1x1_proj/bn", f"{_LAYER}.downsample.1"),
    ("classifier", "fc"),
)

_BRANCHES = ("1x1", "3x3_reduce", "3x3", "double3x3_reduce", "double3x3a", "double3x3b", "pool_proj")
_IN_INCEPTION = {
    f"inception_{{M}}/{there}": f"inception_{{M}}.{'conv' * there[0].isdigit()}{there}" for there in _BRANCHES
}
_LAYERS = {
    "conv1/7x7_s2": "conv1",
    "conv2/3x3_reduce": "conv2_reduce",
    "conv2/3x3": "conv2",
    **_IN_INCEPTION,
}
_CAFFE_INCEPTION: Names = (
    *((there, f"{here}.conv") for there, here in _LAYERS.items()),
    *((f"{there}/bn", f"{here}.bn") for there, here in _LAYERS.items()),
    ("inception_{M}_1x1_down", "inception_{M}.standard.se.fc1"),
    ("inception_{M}_1x1_up", "inception_{M}.standard.se.fc2"),
    ("classifier", "fc"),
)

# NVIDIA's DeepLearningExamples: stages in one sequence, or as in torchvision in files of before June 2020.
_NVIDIA_SE: Names = (
    ("layer{s}.{u}.squeeze.squeeze", "layer{s}.{u}.@.se.fc1"),
    ("layer{s}.{u}.squeeze.expand", "layer{s}.{u}.@.se.fc2"),
)
_NVIDIA: Names = (
    ("layers.{s-1}.{u}.squeeze.squeeze", "layer{s}.{u}.@.se.fc1"),
    ("layers.{s-1}.{u}.squeeze.expand", "layer{s}.{u}.@.se.fc2"),
    ("layers.{s-1}.{u}.conv{n}", "layer{s}.{u}.conv{n}"),
    ("layers.{s-1}.{u}.bn{n}", "layer{s}.{u}.bn{n}"),
    ("layers.{s-1}.{u}.downsample.{n}", "layer{s}.{u}.downsample.{n}"),
)
# Names in scripts of an SE block in torchvision's units, and of its two layers; timm's "se.fc1" has its own row. Names
# that mostly mean another block are excluded, such as "ca" for CBAM, which pools twice.
_BLOCK_NAMES = (
    *("se", "se_layer", "se_module", "se_block", "se_unit", "senet", "selayer", "semodule", "seblock", "seunit"),
    *("SE", "SELayer", "SEModule", "SEBlock", "SE_block", "SE_layer", "seLayer", "seModule", "seBlock"),
    *("se1", "se2", "se3", "se_block1", "squeeze_excite", "squeeze_excitation", "attn", "attention"),
)
_LAYER_NAMES = (
    *(("fc.0", "fc.2"), ("fc.1", "fc.3"), ("fc1", "fc2"), ("fc_1", "fc_2"), ("excitation.0", "excitation.2")),
    *(("conv_reduce", "conv_expand"), ("reduce", "expand"), ("squeeze", "expand"), ("squeeze", "excite")),
    *(("squeeze", "excitation"), ("conv1", "conv2"), ("conv_du.0", "conv_du.2"), ("down", "up")),
    *(("linear1", "linear2"), ("linear_1", "linear_2"), ("se.0", "se.2"), ("se.1", "se.3"), ("0", "2"), ("1", "3")),
)
_SCRIPTS: Names = tuple(
    (f"layer{{s}}.{{u}}.{block}.{layer}", f"layer{{s}}.{{u}}.@.se.fc{number}")
    for block in _BLOCK_NAMES
    for layers in _LAYER_NAMES
    if (block, layers[0]) != ("se", "fc1")
    for number, layer in enumerate(layers, 1)
)

_CIFAR: Names = (
    ("layer{s}.{u}.shortcut.{n}", "layer{s}.{u}.downsample.{n}"),
    ("layer{s}.{u}.shortcut", "layer{s}.{u}.downsample"),
    ("linear", "fc"),
)

# The catalogue's defaults; a model file states the exceptions.
SENET = _authors(
    name="senet",
    names=_CIFAR,
    signatures=(
        "layer{s}.{u}.bn{n}.se.fc1",
        "layer{s}.{u}.conv{n}.standard.se.fc1",
        "layer{s}.{u}.conv{n}.pre.se.fc1",
        "layer{s}.{u}.post.se.fc1",
        "layer{s}.{u}.downsample.{n}.se.fc1",
        "layer{s}.{u}.downsample.se.fc1",
    ),
    blocks={},
)
# Plain networks have the same names in timm, torchvision and senet.
SHARED = _torchvision(name="torchvision/timm", signatures=("layer{s}.{u}.conv{n}",))
MMPRETRAIN = Format(
    name="mmpretrain",
    signatures=("backbone.layer{s}.{u}.conv{n}",),
    names=_MMPRETRAIN,
    pool="pad",
    stride="conv2",  # style="pytorch", the default; "caffe" has the same names
    grouped_stride="conv2",
    certain=False,
)
# The first match counts.
FORMATS = (
    SENET,
    Format(
        name="caffe",
        signatures=("inception_{M}/3x3",),
        names=_CAFFE_INCEPTION,
        preprocessing=ON_255,
    ),
    _authors(
        name="caffe",
        signatures=("conv{s}_{u}_1x1_increase",),
        names=_CAFFE,
        preprocessing=ON_255,
    ),
    Format(
        name="pytorchcv",
        signatures=("features.stage{s}.unit{u}.body.conv{n}.conv",),
        names=_PYTORCHCV,
        pool="pad",
        stride="conv1",  # of seresnet50; seresnet50b has it in conv2, under the same names
        grouped_stride="conv2",
        small_stride="conv2",
        certain=False,
    ),
    MMPRETRAIN,
    _authors(
        name="monai",
        signatures=("layer0.conv3 layer{s}.{u}.conv{n}.adn.N",),
        names=(*_DEEP_LAYER0, *_MONAI),
    ),
    _authors(
        name="monai",
        signatures=("layer0.conv1 layer{s}.{u}.conv{n}.adn.N",),
        names=(*_LAYER0, *_MONAI),
    ),
    _authors(
        name="cadene",
        signatures=("layer0.conv3 layer{s}.{u}.conv{n}",),
        names=(*_DEEP_LAYER0, *_CADENE),
    ),
    _authors(
        name="cadene",
        signatures=("layer0.conv1 layer{s}.{u}.conv{n}",),
        names=(*_LAYER0, *_CADENE),
        basic="legacy_seresnet18 and 34 have a ReLU between the last batch norm and SE; seresnet18 and 34 have none",
    ),
    _torchvision(
        name="timm",
        signatures=("layer{s}.{u}.se.fc1",),
        names=(("layer{s}.{u}.se.fc{n}", "layer{s}.{u}.@.se.fc{n}"),),
    ),
    _torchvision(name="nvidia", signatures=("layers.{s-1}.{u}.conv{n}",), names=_NVIDIA),
    _torchvision(name="nvidia", signatures=("layer{s}.{u}.squeeze.squeeze",), names=_NVIDIA_SE),
    # Scripts that put SE into torchvision's units, such as moskomule/senet.pytorch ("se.fc.0").
    _torchvision(
        name="torchvision with SE",
        signatures=tuple(f"bn1 {there}" for there, here in _SCRIPTS if here.endswith("fc1")),
        names=(*_SCRIPTS, *_CIFAR),
    ),
    # Scripts for CIFAR, of which there are many.
    Format(
        name="cifar",
        signatures=("linear layer{s}.{u}.conv{n}", "layer{s}.{u}.shortcut.{n}", "layer{s}.{u}.shortcut"),
        names=_CIFAR,
    ),
    SHARED,
)
# Any other network: its names are not converted.
AS_IS = Format(name="names of its own", signatures=(), blocks={})


def identify(modules: Collection[str]) -> Format:
    """Identify the format of weights by the names of their modules."""
    for form in FORMATS:
        if any(all_there(patterns, modules) for patterns in form.signatures):
            return form
    return AS_IS
