"""A detector in the manner of YOLOv8: C2f blocks, a neck that goes up and down again, a head at three resolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Convolution, batch norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, with a skip in the backbone and without one in the neck."""

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        self.skip, self.cv1, self.cv2 = skip, Conv(channels, channels, 3), Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.skip else y


class C2f(nn.Module):
    """Bottlenecks on half of the channels; all of their outputs are concatenated."""

    def __init__(self, inputs: int, outputs: int, blocks: int = 1, skip: bool = True) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(inputs, outputs), Conv((2 + blocks) * (outputs // 2), outputs)
        self.m = nn.ModuleList(Bottleneck(outputs // 2, skip) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            maps.append(block(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class Detector(nn.Module):
    """Backbone, neck and head; the output is (N, 4 + classes, H, W) at strides 8, 16 and 32."""

    def __init__(self, width: int = 16, classes: int = 80) -> None:
        super().__init__()
        w2, w3, w4, w5 = (width * factor for factor in (2, 4, 8, 16))
        self.stem, self.down2, self.c2 = Conv(3, width, 3, 2), Conv(width, w2, 3, 2), C2f(w2, w2)
        self.down3, self.c3 = Conv(w2, w3, 3, 2), C2f(w3, w3, 2)
        self.down4, self.c4 = Conv(w3, w4, 3, 2), C2f(w4, w4, 2)
        self.down5, self.c5 = Conv(w4, w5, 3, 2), C2f(w5, w5)
        self.up4, self.up3 = C2f(w5 + w4, w4, skip=False), C2f(w4 + w3, w3, skip=False)
        self.pan4, self.n4 = Conv(w3, w3, 3, 2), C2f(w3 + w4, w4, skip=False)
        self.pan5, self.n5 = Conv(w4, w4, 3, 2), C2f(w4 + w5, w5, skip=False)
        heads = (nn.Sequential(Conv(c, w3, 3), nn.Conv2d(w3, 4 + classes, 1)) for c in (w3, w4, w5))
        self.detect = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        p3 = self.c3(self.down3(self.c2(self.down2(self.stem(images)))))
        p4 = self.c4(self.down4(p3))
        p5 = self.c5(self.down5(p4))
        u4 = self.up4(torch.cat([F.interpolate(p5, scale_factor=2.0), p4], 1))
        u3 = self.up3(torch.cat([F.interpolate(u4, scale_factor=2.0), p3], 1))
        d4 = self.n4(torch.cat([self.pan4(u3), u4], 1))
        d5 = self.n5(torch.cat([self.pan5(d4), p5], 1))
        return [head(x) for head, x in zip(self.detect, (u3, d4, d5), strict=True)]
