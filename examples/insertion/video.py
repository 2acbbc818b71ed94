"""A 3-D ResNet for video, of torchvision (Tran et al. 2018)."""

import torchvision
from torch import nn


def r3d() -> nn.Module:
    """Return r3d_18 with the classes of Kinetics-400."""
    return torchvision.models.video.r3d_18(num_classes=400)
