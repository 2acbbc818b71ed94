"""SE as it is written by hand in networks of others, in many forms, with its gates written out once more."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

C, H = 16, 4


class MostUsed(nn.Module):
    """As in the most-used repository of SE networks: `fc` is a sequence, `expand_as`."""

    def __init__(self) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(C, H, bias=False), nn.ReLU(inplace=True), nn.Linear(H, C, bias=False), nn.Sigmoid()
        )

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc[2](torch.relu(self.fc[0](x.mean((2, 3))))))

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class Functional(nn.Module):
    """1x1 convolutions; everything else is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(C, H, 1), nn.Conv2d(H, C, 1)

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        w = F.avg_pool2d(x, x.shape[2:])
        return x * torch.sigmoid(self.up(F.relu(self.down(w))))


class HardFunctional(Functional):
    """A hard sigmoid of several functions, and an inner activation that is no ReLU."""

    def gates(self, x: Tensor) -> Tensor:
        y = self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))).flatten(1)
        return (y + 3).clamp(0, 6) / 6

    def forward(self, x: Tensor) -> Tensor:
        w = F.silu(self.down(F.adaptive_avg_pool2d(x, 1)), inplace=True)
        return F.relu6(self.up(w) + 3.0) / 6.0 * x


class Volume(nn.Module):
    """As MONAI's residual layer: any number of axes, and the map is added once more."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(C, H), nn.ReLU(), nn.Linear(H, C), nn.Sigmoid())

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc[2](torch.relu(self.fc[0](x.mean((2, 3))))))

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        y = self.fc(self.pool(x).view(b, c)).view([b, c] + [1] * (x.ndim - 2))
        result = x * y
        result += x
        return result


class Normalized(nn.Module):
    """A norm between the layers, and both pools."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.bn, self.act = nn.Conv2d(C, H, 1, bias=False), nn.BatchNorm2d(H), nn.ReLU(inplace=True)
        self.other, self.gate = nn.Conv2d(H, C, 1), nn.Hardsigmoid()

    def gates(self, x: Tensor) -> Tensor:
        z = 0.5 * x.mean((2, 3), keepdim=True) + 0.5 * x.amax((2, 3), keepdim=True)
        return F.hardsigmoid(self.other(torch.relu(self.bn(self.one(z))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        z = 0.5 * x.mean((2, 3), keepdim=True) + 0.5 * F.adaptive_max_pool2d(x, 1)
        return x.mul(self.gate(self.other(self.act(self.bn(self.one(z))))))


class Swish(Functional):
    """An inner activation of operations of its own."""

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x.mean((2, 3), keepdim=True))
        return self.up(y * torch.sigmoid(y)).sigmoid().expand_as(x) * x


class Reversed(MostUsed):
    """The second layer is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential()
        self.up, self.down = nn.Linear(H, C), nn.Linear(C, H)

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)[:, :, None, None]


class Learned(Functional):
    """The inner activation has a parameter, which it reads in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.PReLU(H)

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(self.act(self.down(x.mean((2, 3), keepdim=True))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(self.act(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Parametrized(Functional):
    """The weights are computed, and the gate is scaled by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        weight_norm(self.down)
        spectral_norm(self.up)
        self.scale = nn.Parameter(torch.ones(C, 1, 1))

    def gates(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))) * self.scale
        return gate.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))) * self.scale)


class FixedPool(Functional):
    """The pool has the size of the map in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(16)

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.relu(self.down(F.avg_pool2d(x, 16))))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


class Doubled(MostUsed):
    """The gate is scaled after its module: what multiplies the map is twice a sigmoid."""

    def gates(self, x: Tensor) -> Tensor:
        return 2 * super().gates(x)

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 * self.fc(x.mean((2, 3))))[:, :, None, None]


class GateAlone(nn.Module):
    """As NVIDIA's `squeeze`: gives the gate, and the block multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.expand = nn.Linear(C, H), nn.Linear(H, C)
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(torch.relu(self.squeeze(x.mean((2, 3))))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.sigmoid(self.expand(self.relu(self.squeeze(torch.mean(x, [2, 3])))))
        return y.unsqueeze(-1).unsqueeze(-1)


class Sequence(nn.Sequential):
    """The gate as a sequence with the pool in it."""

    def __init__(self) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, H, 1), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(H, C, 1), nn.Sigmoid()
        )

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self[4](torch.relu(self[1](x.mean((2, 3), keepdim=True))))).flatten(1)


class Around(nn.Module):
    """Multiplies by the gate that a child gives."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(C, C, 3, padding=1), gate

    def gates(self, x: Tensor) -> Tensor:
        return self.gate.gates(self.conv(x))  # type: ignore[operator, no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y * self.gate(y)


class AroundSum(Around):
    """Multiplies and adds in one operation."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.addcmul(x, self.gate(y), y)


class Inline(nn.Module):
    """No module of its own: the block's forward does it, between other things."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc1, self.fc2 = (
            nn.Conv2d(C, C, 3, padding=1),
            nn.BatchNorm2d(C),
            nn.Linear(C, H),
            nn.Linear(H, C),
        )

    def map(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]

    def gates(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(self.map(x).mean((2, 3))))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.map(x)
        w = y.mean((2, 3))
        w = torch.sigmoid(self.fc2(F.relu(self.fc1(w))))
        return F.relu(x + y * w[:, :, None, None])


class Net(nn.Module):
    """A block between a stem and a head."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, C, 3, 2, 1), block, nn.Linear(C, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


# By name: a block, the form in which SE is in it, and the name of its SE in `Net`.
FORMS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "most used": (MostUsed, "block", "block"),
    "functional": (Functional, "block", "block"),
    "hard functional": (HardFunctional, "block", "block"),
    "swish": (Swish, "block", "block"),
    "reversed": (Reversed, "block", "block"),
    "learned activation": (Learned, "block", "block"),
    "parametrized": (Parametrized, "block", "block"),
    "residual": (Volume, "inline", "block"),
    "normalized": (Normalized, "block", "block"),
    "doubled": (Doubled, "block", "block"),
    "gate alone": (lambda: Around(GateAlone()), "gate", "block.gate"),
    "sequence": (lambda: Around(Sequence()), "gate", "block.gate"),
    "addcmul": (lambda: AroundSum(GateAlone()), "gate", "block.gate"),
    "inline": (Inline, "inline", "block"),
}


# --- what is not SE ---


class ChannelGate(nn.Module):
    """CBAM's channel attention: two squeezes, two gates' logits, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(C, H, 1), nn.ReLU(), nn.Conv2d(H, C, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))


class SpatialGate(nn.Module):
    """CBAM's spatial attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(torch.stack((x.mean(1), x.amax(1)), 1)))


class Efficient(nn.Module):
    """ECA: one convolution over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean((2, 3))[:, None])[:, 0])[:, :, None, None]


class GatedLinear(nn.Module):
    """A gate at each position: nothing is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(C, H, 1), nn.Conv2d(H, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.other(F.relu(self.one(x))))


class Selective(nn.Module):
    """SK: what is pooled is a sum, and the gates share out two branches by a softmax."""

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.softmax = softmax
        self.a, self.b = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, C, 5, padding=2)
        self.one, self.other = nn.Conv2d(C, H, 1), nn.Conv2d(H, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        w = self.other(F.relu(self.one((a + b).mean((2, 3), keepdim=True))))
        w = w.softmax(1) if self.softmax else w.sigmoid()
        return a * w + b * (1 - w)


class Added(nn.Module):
    """Pooled context through two layers, and a sigmoid, but added."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(C, H, 1), nn.Conv2d(H, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.other(F.relu(self.one(x.mean((2, 3), keepdim=True)))))


class Softmax(Added):
    """The gate is a softmax over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.other(F.relu(self.one(x.mean((2, 3), keepdim=True)))).softmax(1)


class Ungated(Added):
    """The second layer's output scales the map, without a gate."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.other(F.relu(self.one(x.mean((2, 3), keepdim=True))))


class Standardized(Added):
    """A norm over space, and a bottleneck behind it."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean((2, 3), keepdim=True)) * torch.sigmoid(x.std((2, 3), keepdim=True))
        return x + self.other(F.relu(self.one(x)))


class Classifier(nn.Module):
    """Two layers and a sigmoid behind the pool, as many classes as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(C, C, 3), nn.Linear(C, H), nn.Linear(H, C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.other(F.relu(self.one(self.conv(x).mean((2, 3))))))[:, :, None, None]


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "CBAM channel": ChannelGate,
    "CBAM spatial": SpatialGate,
    "ECA": Efficient,
    "gated linear": GatedLinear,
    "SK": Selective,
    "SK with sigmoid": lambda: Selective(softmax=False),
    "added": Added,
    "softmax": Softmax,
    "ungated": Ungated,
    "standardized": Standardized,
    "classifier": Classifier,
    "group norm": lambda: nn.GroupNorm(4, C),
}
