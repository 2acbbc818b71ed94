"""Networks written as users write them: a YOLO-like detector, and one-dimensional networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ResNet1d", "UNet", "Yolo"]


class Conv(nn.Module):
    """Convolution, batch norm and SiLU."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Two convolutions, and their input added where `shortcut`."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))  # type: ignore[no-any-return]


class C3(nn.Module):
    """Two branches, one of bottlenecks, concatenated (YOLOv5)."""

    def __init__(self, channels: int, out: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        hidden = out // 2
        self.cv1 = Conv(channels, hidden)
        self.cv2 = Conv(channels, hidden)
        self.cv3 = Conv(2 * hidden, out)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))  # type: ignore[no-any-return]


class C2f(nn.Module):
    """Halves of a map and the output of each bottleneck, concatenated (YOLOv8)."""

    def __init__(self, channels: int, out: int, n: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        self.c = out // 2
        self.cv1 = Conv(channels, 2 * self.c)
        self.cv2 = Conv((2 + n) * self.c, out)
        self.m = nn.ModuleList(Bottleneck(self.c, shortcut) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Repeated max pooling, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(2 * channels, channels)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))  # type: ignore[no-any-return]


class Concat(nn.Module):
    """Concatenation of a list of maps."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), 1)


class Detect(nn.Module):
    """Boxes and classes at each resolution."""

    def __init__(self, channels: Sequence[int], classes: int = 4) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), nn.Conv2d(16, 4, 1)) for c in channels)
        self.cv3 = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), nn.Conv2d(16, classes, 1)) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat((box(x), cls(x)), 1) for box, cls, x in zip(self.cv2, self.cv3, maps, strict=True)]


class Yolo(nn.Module):
    """A backbone, a neck that joins three resolutions, and a detection head, as a list of layers with their inputs.

    Args:
        block: `C3` or `C2f`.
        width: channels of the first map.
    """

    def __init__(self, block: type[C3] | type[C2f], width: int = 16) -> None:
        super().__init__()
        w = width
        layers: list[tuple[int | list[int], nn.Module]] = [
            (-1, Conv(3, w, 3, 2)),
            (-1, Conv(w, 2 * w, 3, 2)),
            (-1, block(2 * w, 2 * w, 1, True)),
            (-1, Conv(2 * w, 4 * w, 3, 2)),
            (-1, block(4 * w, 4 * w, 2, True)),
            (-1, Conv(4 * w, 8 * w, 3, 2)),
            (-1, block(8 * w, 8 * w, 2, True)),
            (-1, SPPF(8 * w)),
            (-1, nn.Upsample(scale_factor=2)),
            ([-1, 4], Concat()),
            (-1, block(12 * w, 4 * w, 1, False)),
            (-1, nn.Upsample(scale_factor=2)),
            ([-1, 2], Concat()),
            (-1, block(6 * w, 2 * w, 1, False)),
            (-1, Conv(2 * w, 2 * w, 3, 2)),
            ([-1, 10], Concat()),
            (-1, block(6 * w, 4 * w, 1, False)),
            ([13, 16], Detect((2 * w, 4 * w))),
        ]
        self.sources = [source for source, _ in layers]
        self.model = nn.ModuleList(layer for _, layer in layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return boxes and classes at each resolution."""
        made: list[Tensor] = []
        for source, layer in zip(self.sources, self.model, strict=True):
            if isinstance(source, list):
                x = layer([made[i] for i in source])
            else:
                x = layer(x if source == -1 else made[source])
            made.append(x)
        return x  # type: ignore[return-value]


class ResidualBlock1d(nn.Module):
    """Two convolutions over time and a skip."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, out, 7, stride, 3, bias=False),
            nn.BatchNorm1d(out),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(out, out, 7, 1, 3, bias=False),
            nn.BatchNorm1d(out),
        )
        changes = stride != 1 or channels != out
        self.shortcut = nn.Conv1d(channels, out, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet1d(nn.Module):
    """A residual network for time series, such as an ECG with 12 leads.

    Args:
        widths: channels of the stages of two blocks.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64), channels: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(channels, widths[0], 15, 2, 7), nn.BatchNorm1d(widths[0]), nn.ReLU(), nn.MaxPool1d(2)
        )
        stages, last = [], widths[0]
        for width in widths:
            first = ResidualBlock1d(last, width, 1 if width == last else 2)
            stages.append(nn.Sequential(first, ResidualBlock1d(width, width)))
            last = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, classes)."""
        return self.head(self.stages(self.stem(x)).mean(-1))  # type: ignore[no-any-return]


def _double(channels: int, out: int, axes: int) -> nn.Sequential:
    conv = (nn.Conv1d, nn.Conv2d)[axes - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1]
    layers: list[nn.Module] = []
    for inner in (channels, out):
        layers += [conv(inner, out, 3, padding=1), norm(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net, with a skip concatenated at each resolution.

    Args:
        axes: spatial axes, 1 or 2.
        widths: channels from the full resolution down.
    """

    def __init__(
        self, axes: int = 2, widths: Sequence[int] = (16, 32, 64), channels: int = 3, classes: int = 2
    ) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d)[axes - 1]
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d)[axes - 1]
        self.pool = (nn.MaxPool1d, nn.MaxPool2d)[axes - 1](2)
        self.down = nn.ModuleList(_double(i, o, axes) for i, o in zip((channels, *widths[:-1]), widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(transposed(i, o, 2, 2) for i, o in pairs)
        self.merge = nn.ModuleList(_double(2 * o, o, axes) for _, o in pairs)
        self.classifier = conv(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, classes, *spatial)."""
        skips = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else self.pool(x))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat((skip, up(x)), 1))
        return self.classifier(x)  # type: ignore[no-any-return]
