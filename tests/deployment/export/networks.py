"""Small networks that are exported."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

import senet
from tests.helpers import randomise

CFG = {
    "input_size": (3, 12, 12),
    "crop_pct": 0.75,
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.25, 0.3),
    "interpolation": "bicubic",
    "label_names": ["cat", "dog", "owl"],
    "num_classes": 3,
}


class Small(nn.Module):
    """Two convolutions with SE after the second, and three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.se = senet.SqueezeExcitation(16, 4)
        self.fc = nn.Linear(16, 3)
        self.pretrained_cfg = CFG

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(image)))
        x = torch.relu(self.se(self.bn2(self.conv2(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class TwoInputs(nn.Module):
    """An image and a vector for each image; logits and maps, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 4)

    def forward(self, image: Tensor, extra: Tensor) -> dict[str, Tensor]:
        maps = self.conv(image) + self.fc(extra)[:, :, None, None]
        return {"logits": maps.mean((2, 3)), "maps": maps}


class OtherValues(nn.Module):
    """A network that takes and returns values that are no tensors, with an output of the name of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, logits: Tensor, times: int, mask: Tensor | None = None) -> dict[str, Any]:
        x = self.conv(logits if mask is None else logits * mask)
        return {"logits": times * x.mean((2, 3)), "times": times, "mask": mask, "sum": x.sum((2, 3))}


class DataDependent(nn.Module):
    """A network whose control flow depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.conv(image)
        return out.relu() if out.sum() > 0 else out


def small() -> Any:
    """Return a network in evaluation mode with statistics as of a trained one; the same in every call."""
    torch.manual_seed(0)
    return randomise(Small()).eval()


def in_float64(model: nn.Module, *inputs: Tensor) -> Tensor:
    """Return the output of a network in float64."""
    out: Tensor = copy.deepcopy(model).double()(*(x.double() for x in inputs))
    return out.detach()


class Listed(nn.Module):
    """A network that calls its convolution through a list, where a rewritten one is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.bn.running_mean, 1)
        self.convs = [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.convs[0](x))  # type: ignore[no-any-return]
