"""Other libraries' networks with few units, the references of these tests; and files as other libraries write them."""

import re
from collections.abc import Callable
from pathlib import Path

import timm.models.resnet as timm_resnet
import timm.models.senet as timm_senet
import torch
from pytorchcv.models.preresnet_cifar import CIFARPreResNet
from pytorchcv.models.resnet import ResNet as PytorchcvResNet
from pytorchcv.models.senet import SENet as PytorchcvSENet
from pytorchcv.models.seresnet import SEResNet as PytorchcvSEResNet
from pytorchcv.models.seresnet_cifar import CIFARSEResNet
from pytorchcv.models.seresnext import SEResNeXt as PytorchcvSEResNeXt
from torch import Tensor, nn

from tests.helpers import randomise

UNITS = (1, 2, 1, 1)
_SE = {"attn_layer": "se"}


def _timm(block: type[nn.Module], units: tuple[int, ...] = UNITS, **options: object) -> nn.Module:
    return timm_resnet.ResNet(block, units, num_classes=5, **options)


def _legacy(block: type[nn.Module], units: tuple[int, ...] = UNITS, groups: int = 1, **options: object) -> nn.Module:
    return timm_senet.SENet(block, units, groups=groups, reduction=16, num_classes=5, **options)


def _channels(units: tuple[int, ...] = UNITS) -> list[list[int]]:
    return [[256 * 2**stage] * n for stage, n in enumerate(units)]


_DEEP154 = {"stem_type": "deep", "stem_width": 64, "down_kernel_size": 3, "block_reduce_first": 2}
_DEEP154 |= {"cardinality": 64, "base_width": 4}
_LEGACY154 = {"inplanes": 128, "input_3x3": True, "downsample_kernel_size": 3, "downsample_padding": 1}
_BOTTLENECK, _BASIC = timm_resnet.Bottleneck, timm_resnet.BasicBlock
_WIDE = {"cardinality": 32, "base_width": 4}

# The network, what it is called here, and what its weights state in addition to the default.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, object]]] = {
    "timm seresnet basic": (lambda: _timm(_BASIC, block_args=_SE), "se_tiny18", {"pool": "pad"}),
    "timm seresnet": (lambda: _timm(_BOTTLENECK, block_args=_SE), "se_tiny50", {"stride_in": "conv2", "pool": "pad"}),
    "timm seresnext": (lambda: _timm(_BOTTLENECK, block_args=_SE, **_WIDE), "se_tinyx50", {"pool": "pad"}),
    "timm senet154": (
        lambda: _timm(_BOTTLENECK, (2, 1, 1, 1), block_args=_SE, **_DEEP154),
        "se_tiny154",
        {"pool": "pad"},
    ),
    "timm resnet": (lambda: _timm(_BOTTLENECK), "tiny50", {"stride_in": "conv2", "pool": "pad"}),
    "timm deep stem": (
        lambda: _timm(_BOTTLENECK, stem_type="deep", stem_width=32),
        "tiny50",
        {"stem": "deep", "stride_in": "conv2", "pool": "pad"},
    ),
    "cadene se_resnet": (lambda: _legacy(timm_senet.SEResNetBottleneck), "se_tiny50", {}),
    "cadene se_resnext": (lambda: _legacy(timm_senet.SEResNeXtBottleneck, groups=32), "se_tinyx50", {}),
    "cadene senet154": (
        lambda: _legacy(timm_senet.SEBottleneck, (2, 1, 1, 1), groups=64, **_LEGACY154),
        "se_tiny154",
        {},
    ),
    "pytorchcv seresnet": (
        lambda: PytorchcvSEResNet(_channels(), 64, True, True, num_classes=5),
        "se_tiny50",
        {"pool": "pad"},
    ),
    "pytorchcv seresnet basic": (
        lambda: PytorchcvSEResNet([[64], [128] * 2, [256], [512]], 64, False, False, num_classes=5),
        "se_tiny18",
        {"pool": "pad"},
    ),
    "pytorchcv seresnext": (
        lambda: PytorchcvSEResNeXt(_channels(), 64, 32, 4, num_classes=5),
        "se_tinyx50",
        {"pool": "pad"},
    ),
    "pytorchcv senet154": (
        lambda: PytorchcvSENet(_channels((2, 1, 1, 1)), 128, 64, 4, num_classes=5),
        "se_tiny154",
        {"pool": "pad"},
    ),
    "pytorchcv resnet": (
        lambda: PytorchcvResNet(_channels(), 64, True, True, num_classes=5),
        "tiny50",
        {"pool": "pad"},
    ),
    "pytorchcv seresnet20": (
        lambda: CIFARSEResNet([[16] * 3, [32] * 3, [64] * 3], 16, False, num_classes=5),
        "se_resnet20",
        {"shortcut": "projection"},
    ),
    "pytorchcv preresnet164": (
        lambda: CIFARPreResNet([[64] * 18, [128] * 18, [256] * 18], 16, True, num_classes=5),
        "preresnet164",
        {"stride_in": "conv2"},
    ),
}


def reference(name: str) -> tuple[nn.Module, str, dict[str, object]]:
    """A network in float64 with random weights and statistics; its name here; what its weights say."""
    build, here, said = NETWORKS[name]
    there = build()
    if name.startswith("pytorchcv"):  # a pool of 7x7 or 8x8, which takes images of one size
        there.features.final_pool = nn.AdaptiveAvgPool2d(1)
    return randomise_all(there), here, said


def randomise_all(model: nn.Module) -> nn.Module:
    """SE included, whose convolutions have biases; gates that saturate would leave few digits of deep networks."""
    for module in randomise(model).modules():
        if isinstance(getattr(module, "bn3", None), nn.BatchNorm2d):  # as trained branches are, small against the sum
            module.bn3.weight.data *= 0.3
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.double().eval()


def image(name: str) -> Tensor:
    """Of an odd side, where the network halves it in a pool."""
    size = 32 if name.endswith(("20", "164")) else 65
    return torch.randn(1, 3, size, size, dtype=torch.float64)


# Names of mmpretrain and MONAI, from their sources: mmpretrain/models/backbones/resnet.py and utils/se_layer.py,
# monai/networks/nets/senet.py, whose table for Cadene's weights the second is.
_MMPRETRAIN = (
    (r"^(conv1|bn1|layer)", r"backbone.\1"),
    (r"\.se\.fc([12])\.", r".se_layer.conv\1.conv."),
    (r"^fc\.", "head.fc."),
)
_MONAI = (
    (r"^(layer[1-4]\.\d+\.conv\d)\.", r"\1.conv."),
    (r"^(layer[1-4]\.\d+)\.bn(\d)\.", r"\1.conv\2.adn.N."),
    (r"\.se_module\.fc1\.", ".se_layer.fc.0."),
    (r"\.se_module\.fc2\.", ".se_layer.fc.2."),
    (r"\.downsample\.0\.", ".project.conv."),
    (r"\.downsample\.1\.", ".project.adn.N."),
)


def as_mmpretrain(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of timm's seresnet, whose architecture is mmpretrain's, under mmpretrain's names."""
    return _renamed(model, _MMPRETRAIN)


def as_monai(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of Cadene's se_resnet, whose architecture is MONAI's, under MONAI's names, SE as linear layers."""
    state = _renamed(model, _MONAI)
    return {key: w.flatten(1) if ".fc." in key and w.ndim == 4 else w for key, w in state.items()}


def _renamed(model: nn.Module, table: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    state = {}
    for key, value in model.state_dict().items():
        for pattern, name in table:
            key = re.sub(pattern, name, key)
        state[key] = value
    return state


def write(state: dict[str, Tensor], folder: Path, name: str = "weights.pth") -> Path:
    torch.save(state, folder / name)
    return folder / name
