"""Networks of segmentation_models_pytorch, MONAI, Hugging Face and pytorchcv."""

from typing import Any

from torch import nn

from site_cases.builders import row
from site_cases.cases import Case, image

__all__ = ["HUGGING_FACE", "MONAI", "PYTORCHCV", "SMP"]

# Each encoder: what is expected in it at full depth, and at the depth of PSPNet.
_ENCODERS = {
    "resnet18": (("8 encoder.layer*.* = bn2",), ("4 encoder.layer[12].* = bn2",)),
    "vgg11_bn": (
        ("8 encoder.features.*:ReLU = .",),
        ("2 encoder.features.?:ReLU = .", "3 encoder.features.1[037] = .", "1 encoder.features.20 = ."),
    ),
    "mobilenet_v2": (
        ("17 :InvertedResidual = conv.2:BatchNorm2d conv.3 conv",),
        ("6 encoder.features.[1-6] = conv.2:BatchNorm2d conv.3 conv",),
    ),
    "resnext50_32x4d": (("16 encoder.layer*.* = bn3",), ()),
    "timm-regnetx_002": (("13 :Bottleneck = conv3.bn conv3 drop_path",), ()),
    "densenet121": (
        ("58 encoder.features.denseblock*.denselayer* = conv2 .",),
        ("18 encoder.features.denseblock[12].denselayer* = conv2 .",),
    ),
}
# Blocks of the decoders, which may have sites.
_DECODERS = {
    "Unet": ("5 decoder.blocks.* = . conv2 conv2.1 conv2.2 attention2",),
    "UnetPlusPlus": ("11 decoder.blocks.* = . conv2 conv2.1 conv2.2 attention2",),
    "FPN": ("7 :Conv3x3GNReLU = . block block.1 block.2",),
    "DeepLabV3Plus": (
        "1 decoder.aspp = . 0 0.project 0.project.1 0.project.2 1 2 3",
        "1 decoder.block1 = . 1 2",
        "1 decoder.block2 = . 1 2",
    ),
    "PSPNet": ("1 decoder.psp = .", "1 decoder.conv = . 1 2"),
    "MAnet": ("1 decoder.blocks.4 = . conv2 conv2.1 conv2.2",),
    "Linknet": ("5 decoder.blocks.* = . block block.2 block.2.1 block.2.2",),
    "PAN": (),
}


def smp(kind: str, encoder: str) -> Case:
    """Create the case of a segmentation network with an encoder."""
    full, shallow = _ENCODERS[encoder]
    may = _DECODERS[kind]
    side = 128 if kind == "PAN" else 64
    if encoder == "densenet121":
        may += ("3 :_Transition = conv pool .",)
    return row(
        f"smp/{kind}+{encoder}",
        *(shallow if kind == "PSPNet" else full),
        may=may,
        why="units of the encoder; skips of the decoder are no units",
        inputs=lambda: image(2, 3, side, side),
    )


_DILATED = ("resnet18", "mobilenet_v2", "resnext50_32x4d", "timm-regnetx_002")  # encoders with a dilated mode
SMP = (
    *(
        smp(kind, encoder)
        for kind in ("Unet", "UnetPlusPlus", "FPN", "PSPNet")
        for encoder in ("resnet18", "vgg11_bn", "mobilenet_v2", "densenet121")
    ),
    *(smp("DeepLabV3Plus", encoder) for encoder in _DILATED),
)


def _volume() -> Any:
    return image(2, 1, 32, 32, 32)


def volumes(name: str, *blocks: str, options: dict[str, Any], **others: Any) -> Case:
    """Create the case of a network for volumes."""
    return row(name, *blocks, options=options, inputs=_volume, **others)


_UNET: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": (8, 16, 32, 64),
    "strides": (2, 2, 2),
}
_LEVELS = (
    "model.0",
    *("model" + ".1.submodule" * n + ".0" for n in (1, 2)),
    "model.1.submodule.1.submodule.1.submodule",
)
_UPS = ("model.1.submodule.2", "model.1.submodule.1.submodule.2")
_DYNUNET: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [8, 16, 32],
}
_UNIT = "conv.unit1.adn.A conv.unit1.adn conv.unit1 conv"
MONAI = (
    volumes(
        "monai/UNet",
        *(f"1 {name} = {_UNIT}" for name in _LEVELS),
        *(f"1 {name}.1 = {_UNIT.replace('unit1', 'unit0')}" for name in _UPS),
        options=_UNET | {"num_res_units": 2},
        why="units end in an activation; the last one makes the logits",
    ),
    volumes(
        "monai/UNet-plain",
        *(f"1 {name} = adn.A adn ." for name in _LEVELS[1:]),
        may=tuple(f"1 {name} = adn.A adn ." for name in (_LEVELS[0], *_UPS)),
        options=_UNET | {"num_res_units": 0},
        why="convolutions; the first one may be the stem, and the last one makes the logits",
    ),
    volumes(
        "monai/SegResNet",
        "12 :ResBlock = conv2.conv conv2",
        options={"spatial_dims": 3, "init_filters": 8},
        why="pre-activation units; skips of the decoder are sums over a change of resolution",
    ),
    volumes(
        "monai/DynUNet",
        "1 downsamples.* = .",
        "1 bottleneck = .",
        may=("1 input_block = .", "2 upsamples.*.conv_block = .", "2 upsamples.* = ."),
        options=_DYNUNET,
        why="double convolutions; lrelu runs twice in a block",
    ),
    volumes(
        "monai/DynUNet-res",
        "3 :UnetResBlock = norm2",
        may=("2 upsamples.* = conv_block.norm2 conv_block .",),
        options=_DYNUNET | {"res_block": True},
        why="residual units of the encoder",
    ),
    volumes(
        "monai/DenseNet121",
        "58 :_DenseLayer = layers.conv2 layers",
        may=("3 :_Transition = conv pool .",),
        options={"spatial_dims": 3, "in_channels": 1, "out_channels": 2},
        why="new maps",
    ),
    volumes("monai/resnet10", "4 :ResNetBlock = bn2", options={"n_input_channels": 1}, why="units of the table"),
    volumes("monai/resnet18", "8 :ResNetBlock = bn2", options={"n_input_channels": 1}, why="units of the table"),
    volumes("monai/resnet50", "16 :ResNetBottleneck = bn3", options={"n_input_channels": 1}, why="units of the table"),
)


def _hugging_face(kind: str) -> nn.Module:
    import transformers

    sizes = {"bottleneck": [64, 128, 256, 512], "basic": [32, 64, 128, 256]}[kind]
    config = transformers.ResNetConfig(layer_type=kind, depths=[2, 2, 2, 2], hidden_sizes=sizes, embedding_size=32)
    return transformers.ResNetForImageClassification(config)  # type: ignore[no-any-return]


HUGGING_FACE = (
    row(
        "transformers/ResNet-bottleneck",
        "8 :ResNetBottleNeckLayer = layer.2.normalization layer.2.activation layer.2 layer",
        build=lambda: _hugging_face("bottleneck"),
        why="end of the branch",
    ),
    row(
        "transformers/ResNet-basic",
        "8 :ResNetBasicLayer = layer.1.normalization layer.1.activation layer.1 layer",
        build=lambda: _hugging_face("basic"),
        why="end of the branch",
    ),
)

_RES = "body.conv2.bn body.conv2 body"
_PRE = "body.conv2.conv body.conv2 body"
PYTORCHCV = (
    row("pytorchcv/resnet20_cifar10", f"9 :ResUnit = {_RES}"),
    row("pytorchcv/preresnet20_cifar10", f"9 :PreResUnit = {_PRE}", why="pre-activation"),
    row("pytorchcv/resnext29_32x4d_cifar10", "9 :ResNeXtUnit = body.conv3.bn body.conv3 body"),
    row(
        "pytorchcv/densenet40_k12_cifar10",
        "36 :DenseSimpleUnit = conv.conv conv",
        may=("2 :TransitionBlock = conv.conv conv pool .",),
        why="new maps",
    ),
    row("pytorchcv/wrn16_10_cifar10", f"6 :PreResUnit = {_PRE}", why="pre-activation"),
    row("pytorchcv/pyramidnet110_a48_cifar10", "54 :PyrUnit = bn", why="the branch ends in the unit's own norm"),
    row(
        "pytorchcv/xdensenet40_2_k24_bc_cifar10",
        "18 :XDenseUnit = conv2.conv conv2",
        may=("2 :TransitionBlock = conv.conv conv pool .",),
        why="new maps",
    ),
    row(
        "pytorchcv/nin_cifar10",
        "5 features.stage[23].unit* = activ .",
        "2 features.stage1.unit[23] = activ .",
        may=("1 features.stage1.unit1 = activ .",),
        why="convolutions with an activation; the first one may be the stem",
    ),
    row("pytorchcv/resnet18", f"8 :ResUnit = {_RES}"),
    row("pytorchcv/preresnet18", f"8 :PreResUnit = {_PRE}", why="pre-activation"),
    row(
        "pytorchcv/mobilenet_w1",
        "13 :DwsConvBlock = pw_conv.activ pw_conv .",
        may=("13 :DwsConvBlock = dw_conv.activ dw_conv dw_conv.bn",),
        why="pointwise convolutions",
    ),
    row(
        "pytorchcv/mobilenetv2_w1",
        "17 :LinearBottleneck = conv3.bn conv3",
        why="batch norm of the projection, with a skip or without",
    ),
    row(
        "pytorchcv/vgg11",
        "7 features.stage[2345].unit* = activ .",
        may=("1 features.stage1.unit1 = activ .",),
        why="convolutions with an activation; the first one may be the stem",
    ),
    row(
        "pytorchcv/bn_vgg11",
        "7 features.stage[2345].unit* = activ .",
        may=("1 features.stage1.unit1 = activ .",),
        why="convolutions with an activation; the first one may be the stem",
    ),
    row(
        "pytorchcv/darknet53",
        "23 :DarkUnit = conv2.activ conv2 conv2.bn",
        may=("5 features.stage*.unit1 = activ . bn",),
        why="branches end in an activation",
    ),
    row(
        "pytorchcv/densenet121",
        "58 :DenseUnit = conv2.conv conv2",
        may=("3 :TransitionBlock = conv.conv conv pool .",),
        why="new maps",
    ),
    row("pytorchcv/squeezenet_v1_1", "8 :FireUnit = .", why="the concatenation of both expansions"),
    row(
        "pytorchcv/inceptionv3",
        "11 features.stage*.unit* = branches .",
        inputs=lambda: image(1, 3, 299, 299),
        why="output of each module",
    ),
    row(
        "pytorchcv/xception",
        "12 :XceptionUnit = body.block3.bn body.block2.bn body.block3 body.block2 body.pool body",
        inputs=lambda: image(1, 3, 299, 299),
        why="end of the branch, before a pool or after",
    ),
    row("pytorchcv/dla34", f"12 :DLAResBlock = {_RES}", may=("6 :DLARoot = conv.bn conv activ .",)),
    row("pytorchcv/regnetx002", "13 :RegNetUnit = body.conv3.bn body.conv3 body"),
    row("pytorchcv/shufflenetv2_w1", "16 :ShuffleUnit = .", why="the concatenation; one activation runs several times"),
)
