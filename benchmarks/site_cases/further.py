"""Networks that senet's rules were not written for, and networks with SE or attention of their own."""

import torch
from torch import nn

from site_cases.builders import LIBRARIES, row
from site_cases.cases import Case, image
from site_cases.segmentation import smp, volumes

__all__ = ["FURTHER"]

_ANY = " "  # a refusal, whatever its message is
_IR = "InvertedResidual = bn3 drop_path"
_DS = "1 :DepthwiseSeparableConv = bn2 drop_path"
_BYOB = "BottleneckBlock = conv3_1x1.bn conv3_1x1 attn_last drop_path"
_MIDDLE = "rep.8 rep"

_TIMM = (
    row("timm/convmixer_768_32", "32 :Residual = fn.2 fn", may=("32 blocks.*:Sequential = 3 .",)),
    row("timm/inception_next_atto", "12 :MetaNeXtBlock = mlp.fc2 mlp drop_path"),
    row("timm/poolformer_s12", "12 :MetaFormerBlock = mlp.fc2 mlp.drop2 mlp drop_path2 layer_scale2"),
    row(
        "timm/efficientformer_l1",
        "14 :MetaBlock2d = mlp.norm2 mlp ls2 drop_path2",
        inputs=lambda: image(1, 3, 224, 224),
    ),
    row("timm/mobilenetv2_100", f"16 :{_IR}", _DS),
    row("timm/mnasnet_100", f"16 :{_IR}", _DS),
    row("timm/spnasnet_100", f"20 :{_IR}", _DS),
    row("timm/efficientnet_lite0", f"15 :{_IR}", _DS),
    row("timm/efficientnet_es", f"11 :{_IR}", "7 :EdgeResidual = bn2 drop_path"),
    row("timm/mobilenet_edgetpu_100", f"13 :{_IR}", "8 :EdgeResidual = bn2 drop_path", may=("1 :ConvBnAct = bn1 .",)),
    row("timm/tf_mobilenetv3_small_minimal_100", f"10 :{_IR}", _DS, may=("1 :ConvBnAct = bn1 .",)),
    row(
        "timm/legacy_xception",
        "1 block1 = rep.4 rep.5 rep",
        "2 block[23] = rep.5 rep.6 rep",
        f"6 block[4-9] = {_MIDDLE}",
        f"2 block1[01] = {_MIDDLE}",
        "1 block12 = rep.5 rep.6 rep",
    ),
    row("timm/cs3darknet_m", "14 :DarkBlock = conv2.bn conv2 drop_path"),
    row("timm/cspresnext50", "13 :BottleneckBlock = conv3.bn conv3 attn3 drop_path"),
    row("timm/darknetaa53", "23 :DarkBlock = conv2.bn conv2 drop_path"),
    row("timm/convnextv2_atto", "12 :ConvNeXtBlock = mlp.fc2 mlp.drop2 mlp drop_path"),
    row("timm/convnext_tiny", "18 :ConvNeXtBlock = drop_path", why="(N, H, W, C) inside the branch"),
    row("timm/starnet_s1", "15 :Block = dwconv2.conv dwconv2 drop_path"),
    row(
        "timm/efficientvit_b0",
        "6 stages.*.blocks.*:ResidualBlock = main.point_conv.norm main.point_conv main",
        "4 stages.*.blocks.*.local_module = main.point_conv.norm main.point_conv main",
        may=("1 stem.res0 = main.point_conv.norm main.point_conv main",),
    ),
    row("timm/mobilevitv2_050", f"6 :{_BYOB}", may=("3 :MobileVitV2Block = conv_proj.bn conv_proj .",)),
    row("timm/resnext26ts", f"8 :{_BYOB}"),
    row("timm/dla60_res2net", "16 :DlaBottle2neck = bn3", may=("8 :DlaRoot = . bn relu",)),
    row("timm/dla46_c", "12 :DlaBottleneck = bn3", may=("6 :DlaRoot = . bn relu",)),
    row("timm/densenetblur121d", "58 :DenseLayer = conv2 .", may=("3 :DenseTransition = conv pool .",)),
    row("timm/fasternet_t0", "13 :MLPBlock = mlp.3 mlp drop_path"),
    row(
        "timm/swiftformer_xs",
        "12 :ConvEncoder = pwconv2 layer_scale drop_path",
        "4 :LocalRepresentation = pwconv2 layer_scale drop_path",
        may=("4 :Block = linear.fc2 linear layer_scale_2 drop_path",),
        inputs=lambda: image(1, 3, 224, 224),
    ),
    row(
        "timm/tiny_vit_5m_224",
        "2 :MBConv = conv3.bn conv3 drop_path",
        may=("3 :PatchMerging = conv3.bn conv3 .",),
        inputs=lambda: image(1, 3, 224, 224),
    ),
    row(
        "timm/visformer_tiny",
        "7 stage1.* = mlp.conv3 mlp.drop3 mlp drop_path",
        may=("4 stage2.* = mlp.conv3 mlp.drop3 mlp", "4 stage3.* = mlp.conv3 mlp.drop3 mlp"),
        inputs=lambda: image(1, 3, 224, 224),
    ),
    row("timm/hrnet_w18_small", "18 :BasicBlock = bn2", "5 :Bottleneck = bn3"),
    row(
        "timm/nextvit_small",
        "16 :NextConvBlock = mhca.projection mhca attn_drop_path",
        "16 :NextConvBlock = mlp.fc2 mlp mlp_drop_path",
        may=(
            "4 :NextTransformerBlock = mhca.projection mhca mhca_drop_path",
            "4 :NextTransformerBlock = mlp.fc2 mlp mlp_drop_path",
        ),
    ),
    row(
        "timm/halonet26t",
        f"5 :{_BYOB}",
        may=("3 :SelfAttnBlock = conv3_1x1.bn conv3_1x1 drop_path",),
        inputs=lambda: image(1, 3, 256, 256),
    ),
    row("timm/res2next50", "16 :Bottle2neck = bn3"),
    row("timm/selecsls60", "9 :SelecSlsBlock = conv6 conv6.2", may=("4 head.* = . 2",)),
    row("timm/resnetblur50", "16 :Bottleneck = bn3"),
    row("timm/mobilenetv1_100", "13 :DepthwiseSeparableConv = bn2"),
    row(
        "timm/hgnetv2_b0", "5 :HighPerfGpuBlock = . aggregation.1 aggregation.1.bn", why="the stem concatenates as well"
    ),
)

_RES = "body.conv2.bn body.conv2 body"


def _condensenet() -> nn.Module:
    """Build CondenseNet with random indices: its layers read the channels that training chose, the last one half."""
    model = LIBRARIES["pytorchcv"]("condensenet74_c4_g4")
    for name, index in model.named_buffers():
        if name.endswith(".index"):
            channels = 2 * len(index) if name == "output.index" else len(index)
            index.copy_(torch.randperm(channels)[: len(index)])
    return model


_PYTORCHCV = (
    row(
        "pytorchcv/rir_cifar10",
        "16 :RiRUnit = res_pass_conv trans_cross_conv res_postactiv res_postactiv.activ",
        may=("16 :RiRUnit = trans_pass_conv res_cross_conv trans_postactiv trans_postactiv.activ",),
        why="units of two maps, each of which adds to both: no branch ends in one of them",
    ),
    row("pytorchcv/diracnet18v2", "16 :DiracConv = conv ."),
    row("pytorchcv/igcv3_w1", "32 :InvResUnit = conv3.bn conv3"),
    row("pytorchcv/shufflenet_g1_w1", "16 :ShuffleUnit = expand_bn3"),
    row("pytorchcv/menet108_8x1_g3", "16 :MEUnit = expand_bn3"),
    row("pytorchcv/vovnet39", "6 :VoVUnit = concat_conv.activ concat_conv ."),
    row("pytorchcv/hrnet_w18_small_v1", "5 :ResBottleneck = conv3.bn conv3 .", "18 :ResBlock = conv2.bn conv2 ."),
    row("pytorchcv/bninception", "10 features.stage*.unit* = branches ."),
    row(
        "pytorchcv/icnet_resnetd50b_cityscapes",
        "16 :ResUnit = body.conv3.bn body.conv3 body",
        options={"in_size": (128, 128), "aux": False},
        inputs=lambda: image(1, 3, 128, 128),
        example=True,
    ),
    row(
        "pytorchcv/peleenet",
        "21 :DenseBlock = . branch1.conv2.activ branch1.conv2 branch1",
        may=(
            "21 :DenseBlock = branch2.conv3.activ branch2.conv3 branch2",
            "3 :TransitionBlock = conv.activ conv pool .",
        ),
    ),
    row(
        "pytorchcv/condensenet74_c4_g4",
        "36 :CondenseUnit = conv2.conv conv2",
        why="its indices of channels are all 0 without trained weights",
        build=_condensenet,
    ),
    row(
        "pytorchcv/sinet_cityscapes",
        "13 :ESPBlock = preactiv.activ preactiv .",
        why="blocks with and without a skip; sums of depthwise convolutions within",
        inputs=lambda: image(1, 3, 128, 128),
    ),
    row("pytorchcv/airnet50_1x64d_r2", "16 :AirUnit = body.conv3.bn body.conv3 body"),
    row(
        "pytorchcv/hardnet39ds",
        "3 features.stage[123].unit1 = conv.activ conv",
        "1 features.stage4.unit1 = conv.activ conv .",
    ),
    row("pytorchcv/spnasnet", "21 :SPNASUnit = conv2.bn conv2"),
    row("pytorchcv/sqnxt23v5_w1", "21 :SqnxtUnit = conv5.activ conv5"),
    row("pytorchcv/selecsls42", "6 :SelecSLSUnit = last_conv.activ last_conv"),
    row(
        "pytorchcv/fractalnet_cifar10",
        "4 features.unit[2345].block = .",
        may=(
            "1 features.unit1.block = .",
            "35 :DropConvBlock = . activ",
        ),
    ),
    row(
        "pytorchcv/shakeshakeresnet20_2x16d_cifar10",
        "9 :ShakeShakeResUnit = branch1.conv2.bn branch1.conv2 branch1 .",
        may=("9 :ShakeShakeResUnit = branch2.conv2.bn branch2.conv2 branch2",),
    ),
    row("pytorchcv/bam_resnet18", f"8 :ResUnit = {_RES}", why="attention between stages, outside of units"),
    row("pytorchcv/ror3_56_cifar10", f"24 :RoRResUnit = {_RES}"),
    row("pytorchcv/proxylessnas_cpu", "20 :ProxylessBlock = pw_conv.bn pw_conv ."),
    row(
        "pytorchcv/fbnet_cb",
        "20 features.stage*.unit* = conv2.bn conv2",
        may=("1 features.init_block.conv2 = conv2.bn conv2",),
    ),
    row("pytorchcv/drnc26", f"12 :DRNUnit = {_RES}"),
    row("pytorchcv/dpn68", "22 :DPNUnit = conv3.conv conv3"),
    row("pytorchcv/mnasnet_b1", "17 :DwsExpSEResUnit = pw_conv.bn pw_conv"),
    row(
        "pytorchcv/fdmobilenet_w1",
        "11 :DwsConvBlock = pw_conv.activ pw_conv .",
        may=("11 :DwsConvBlock = dw_conv.activ dw_conv dw_conv.bn",),
    ),
    row("pytorchcv/squeezeresnet_v1_1", "8 :FireUnit = ."),
    row("pytorchcv/nasnet_4a1056", "14 features.stage*.unit* = ."),
    row(
        "pytorchcv/darts",
        "14 features.stage*.unit* = body .",
        may=("3 :DartsReduceBranch = bn .",),
        why="the concatenation of a cell; its reductions are concatenations as well",
    ),
    row(
        "pytorchcv/simplepose_resnet18_coco",
        f"8 :ResUnit = {_RES}",
        inputs=lambda: image(1, 3, 256, 192),
        example=True,
    ),
)

_MONAI = (
    volumes(
        "monai/VNet",
        "4 :DownTransition = ops.*.act_function ops.* ops",
        "4 :UpTransition = ops.*.act_function ops.* ops",
        may=("1 in_tr = conv_block.adn.N conv_block.adn conv_block",),
        options={},
    ),
    volumes(
        "monai/UNETR",
        "8 :UnetResBlock = norm2",
        options={
            "in_channels": 1,
            "out_channels": 2,
            "img_size": (32, 32, 32),
            "feature_size": 8,
            "hidden_size": 96,
            "mlp_dim": 96,
            "num_heads": 4,
        },
    ),
    volumes("monai/HighResNet", "9 :HighResBlock = layers.3.conv layers.3 layers", options={}),
    volumes(
        "monai/SegResNetVAE",
        "12 :ResBlock = conv2.conv conv2",
        options={"input_image_size": (32, 32, 32), "vae_nz": 16, "init_filters": 8},
    ),
    volumes(
        "monai/BasicUNet",
        "4 down_*.convs = conv_1.adn.A conv_1.adn conv_1 .",
        "4 upcat_* = convs.conv_1.adn.A convs.conv_1.adn convs.conv_1 convs .",
        may=(
            "1 conv_0 = conv_1.adn.A conv_1.adn conv_1 .",
            "1 conv_0 = conv_0.adn.A conv_0.adn conv_0",
            "4 down_*.convs = conv_0.adn.A conv_0.adn conv_0",
            "4 upcat_*.convs = conv_0.adn.A conv_0.adn conv_0",
        ),
        why="ends of the double convolutions, or of each convolution",
        options={"features": (8, 8, 16, 32, 64, 8)},
    ),
)

# Networks with SE or attention of their own, or without convolutional blocks in (N, C, *spatial).
_REFUSED = (
    *(
        "torchvision/mobilenet_v3_small",
        "torchvision/efficientnet_b0",
        "torchvision/regnet_y_400mf",
        "torchvision/swin_t",
    ),
    *("timm/ghostnet_100", "timm/repghostnet_050", "timm/tresnet_m", "timm/hardcorenas_a", "timm/mixnet_s"),
    *("timm/dm_nfnet_f0", "timm/skresnet18", "timm/resnest14d", "timm/ese_vovnet19b_dw", "timm/regnetv_040"),
    *("timm/ecaresnet26t", "timm/eca_nfnet_l0", "timm/repvit_m0_9", "timm/fastvit_t8", "timm/hgnet_tiny"),
    *("timm/rdnet_tiny", "timm/mambaout_femto", "timm/davit_tiny", "timm/vit_tiny_patch16_224"),
    *("timm/levit_128s", "timm/nest_tiny", "timm/xcit_nano_12_p16_224", "timm/focalnet_tiny_srf"),
    "timm/bat_resnext26ts",
    *("pytorchcv/cbam_resnet18", "pytorchcv/seresnet18"),
)

FURTHER: tuple[Case, ...] = (
    *_TIMM,
    *_PYTORCHCV,
    *_MONAI,
    smp("Linknet", "resnet18"),
    smp("PAN", "resnet18"),
    smp("Linknet", "mobilenet_v2"),
    smp("MAnet", "resnet18"),
    row("torchvision/s3d", "9 :SepInceptionBlock3D = .", inputs=lambda: image(1, 3, 14, 224, 224)),
    *(row(name, refused=_ANY, why="SE or attention of its own") for name in _REFUSED),
)
