"""Networks of torchvision and timm, and networks written by hand."""

from typing import Any

import torch

from site_cases.builders import row
from site_cases.cases import image
from site_cases.own import C3, C2f, ResNet1d, UNet, Yolo

__all__ = ["OWN", "TIMM", "TORCHVISION"]


def _detection(size: int = 64) -> tuple[list[torch.Tensor]]:
    return ([image(3, size, size), image(3, size, size)],)


def _targets() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    return (*_detection(), [target, target])


def _clip() -> torch.Tensor:
    return image(2, 3, 4, 32, 32)


_BOTTLENECK = "16 :Bottleneck = bn3"
_DETECTOR: dict[str, Any] = {
    "options": {"min_size": 64, "max_size": 64},
    "inputs": _detection,
    "example": True,
    "training": _targets,
    "why": "bn3 of each residual unit of the backbone; laterals of the FPN and heads are no units",
}
_END = "end of the branch, before the sum"
_MOBILE = "batch norm of the projection, with a skip or without"

TORCHVISION = (
    row("torchvision/densenet121", "58 :_DenseLayer = conv2 .", may=("3 :_Transition = conv pool .",), why="new maps"),
    row("torchvision/mobilenet_v2", "17 :InvertedResidual = conv.2:BatchNorm2d conv.3 conv", why=_MOBILE),
    row("torchvision/mnasnet1_0", "16 :_InvertedResidual = layers.7 layers", may=("1 layers.7 = .",), why=_MOBILE),
    row("torchvision/squeezenet1_1", "8 :Fire = .", why="the concatenation of both expansions"),
    row("torchvision/shufflenet_v2_x1_0", "16 :InvertedResidual = branch2.7 branch2 .", why="new half of the maps"),
    row(
        "torchvision/convnext_tiny",
        "18 :CNBlock = block block.6 stochastic_depth",
        why="branch, before layer scale or after",
    ),
    row("torchvision/regnet_x_400mf", "22 :ResBottleneckBlock = f.c.1 f.c f", why=_END),
    row("torchvision/r3d_18", "8 :BasicBlock = conv2.1 conv2", inputs=_clip, why=_END),
    row("torchvision/mc3_18", "8 :BasicBlock = conv2.1 conv2", inputs=_clip, why=_END),
    row("torchvision/r2plus1d_18", "8 :BasicBlock = conv2.1 conv2", inputs=_clip, why=_END),
    row(
        "torchvision/raft_small",
        "6 feature_encoder.layer*.*:BottleneckBlock = convnormrelu3.2 convnormrelu3",
        "6 context_encoder.layer*.*:BottleneckBlock = convnormrelu3.1 convnormrelu3",
        why="branches end in a ReLU; the update block runs several times",
        inputs=lambda: (image(1, 3, 128, 128), image(1, 3, 128, 128)),
        example=True,
    ),
    row("torchvision/fcos_resnet50_fpn", _BOTTLENECK, **_DETECTOR),
    row("torchvision/retinanet_resnet50_fpn", _BOTTLENECK, **_DETECTOR),
    row("torchvision/fasterrcnn_resnet50_fpn", _BOTTLENECK, **_DETECTOR),
    row("torchvision/deeplabv3_resnet50", _BOTTLENECK, why="bn3 of each residual unit of the backbone"),
)

_CSP = "parallel branches of a stage are joined around residual units, which have the sites"
TIMM = (
    row("timm/dla34", "12 :DlaBasic = bn2", may=("6 :DlaRoot = . conv bn relu",), why=_END),
    row("timm/res2net50_26w_4s", "16 :Bottle2neck = bn3", why="sums between the scales are inside the branch"),
    row("timm/regnetx_002", "13 :Bottleneck = conv3.bn conv3 drop_path", why=_END),
    row("timm/cspresnet50", "13 :BottleneckBlock = conv3.bn conv3 attn3 drop_path", why=_CSP),
    row("timm/cspdarknet53", "23 :DarkBlock = conv2.bn conv2 drop_path", why=_CSP + "; branches end in an activation"),
    row("timm/darknet53", "23 :DarkBlock = conv2.bn conv2 drop_path", why="branches end in an activation"),
    row("timm/densenet121", "58 :DenseLayer = conv2 .", may=("3 :DenseTransition = conv pool .",), why="new maps"),
    row(
        "timm/xception41",
        "10 blocks.? = stack.conv3.bn_pw stack.conv3.act_pw stack.conv3 stack",
        "2 blocks.1[01] = stack.conv3.bn_pw stack.conv3.act_pw stack.conv3 stack",
        may=("1 blocks.12 = stack.conv3.bn_pw stack.conv3.act_pw stack.conv3 stack .",),
        why=_END + "; the last module has no skip",
    ),
    row("timm/dpn68", "22 :DualPathBlock = c1x1_c.conv c1x1_c", why="residual and dense maps of one convolution"),
    row("timm/vovnet39a", "6 :OsaBlock = conv_concat.bn conv_concat .", why="one convolution joins all maps"),
    row("timm/nf_resnet50", "16 :NormFreeBlock = conv3 drop_path", why="no norms"),
    row("timm/resnetv2_50", "16 :PreActBottleneck = conv3 drop_path", why="pre-activation"),
    row("timm/resnetv2_50x1_bit", "16 :PreActBottleneck = conv3 drop_path", why="pre-activation, group norms"),
    row(
        "timm/mobilenetv4_conv_small",
        "12 :UniversalInvertedResidual = pw_proj.bn pw_proj dw_end layer_scale drop_path",
        may=("5 :ConvBnAct = bn1 .",),
        why=_MOBILE,
    ),
    row(
        "timm/convnext_atto",
        "12 :ConvNeXtBlock = mlp.fc2 mlp.drop2 mlp drop_path",
        why="branch, before layer scale or after",
    ),
    row("timm/repvgg_a0", "21 stages.*.*:RepVggBlock = attn act .", why="parallel convolutions make one layer"),
    row("timm/mobileone_s0", "42 stages.*.*:MobileOneBlock = attn act .", why="parallel convolutions make one layer"),
    row(
        "timm/gernet_s",
        "4 :BasicBlock = conv2_kxk.bn conv2_kxk attn_last drop_path",
        "10 :BottleneckBlock = conv3_1x1.bn conv3_1x1 attn_last drop_path",
        why=_END,
    ),
    row(
        "timm/edgenext_xx_small",
        "9 :ConvBlock = drop_path",
        may=("3 :SplitTransposeBlock = drop_path",),
        why="only drop_path sees (N, C, H, W) at the end of the branch; split blocks contain attention",
    ),
    row(
        "timm/selecsls42",
        "6 :SelecSlsBlock = conv6 conv6.2",
        may=("4 head.* = . 2",),
        why="last convolution, which joins maps",
    ),
    row("timm/fbnetc_100", "21 :InvertedResidual = bn3 drop_path", why=_MOBILE),
    row(
        "timm/mobilevit_xxs",
        "7 :BottleneckBlock = conv3_1x1.bn conv3_1x1 attn_last drop_path",
        may=("3 :MobileVitBlock = conv_fusion.bn conv_fusion .",),
        why=_MOBILE + "; MobileViT blocks contain attention",
    ),
)

OWN = (
    row(
        "own/yolo_c3",
        "5 model.[246].m.* = cv2 cv2.act",
        "3 model.1[036] = cv3 cv3.act .",
        may=("3 model.[246] = cv3 cv3.act .", "1 :SPPF = cv2 cv2.act ."),
        why="bottlenecks with a skip in the backbone, blocks without a skip in the neck",
        build=lambda: Yolo(C3),
    ),
    row(
        "own/yolo_c2f",
        "5 model.[246].m.* = cv2 cv2.act",
        "3 model.1[036] = cv2 cv2.act .",
        may=("3 model.[246] = cv2 cv2.act .", "1 :SPPF = cv2 cv2.act ."),
        why="bottlenecks with a skip in the backbone, blocks without a skip in the neck",
        build=lambda: Yolo(C2f),
    ),
    row(
        "own/resnet_1d",
        "6 :ResidualBlock1d = body.5 body",
        why=_END,
        build=ResNet1d,
        inputs=lambda: image(2, 12, 256),
    ),
    row(
        "own/unet_1d",
        "3 down.* = 5 .",
        "2 merge.* = 5 .",
        why="ends of the double convolutions; skips are concatenations over a change of resolution",
        build=lambda: UNet(1),
        inputs=lambda: image(2, 3, 64),
    ),
    row(
        "own/unet_2d",
        "3 down.* = 5 .",
        "2 merge.* = 5 .",
        why="ends of the double convolutions; skips are concatenations over a change of resolution",
        build=UNet,
    ),
)
