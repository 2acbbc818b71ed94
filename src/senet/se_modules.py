"""What counts as an SE module, ours or another library's: one adapter, for everything that looks at gates.

A module is told by its class and the library that the class comes from, by name: no library is imported to look.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.batch_norm import SEBatchNorm
from senet.block import SqueezeExcitation
from senet.recalibration import Recalibrate

__all__ = ["Insertion", "SEUnit", "class_names", "find_se", "insertions", "own_se", "watch_gates"]


@dataclass(frozen=True)
class _Kind:
    """Where a class of SE modules keeps its parts: names of children; "" where it has none."""

    reduce: str
    activation: str
    expand: str
    gate: str
    norm: str = ""


# A new kind is a new row. Subclasses are known by the class that they come from.
_KINDS = {
    "senet.block.SqueezeExcitation": _Kind("fc1", "activation", "fc2", "gate"),
    "timm.layers.squeeze_excite.SEModule": _Kind("fc1", "act", "fc2", "gate", norm="bn"),
    "timm.layers.squeeze_excite.SqueezeExciteCl": _Kind("fc1", "act", "fc2", "gate"),
    "timm.layers.squeeze_excite.EffectiveSEModule": _Kind("", "", "fc", "gate"),
    "timm.models._efficientnet_blocks.SqueezeExcite": _Kind("conv_reduce", "act1", "conv_expand", "gate"),
    "timm.models.senet.SEModule": _Kind("fc1", "relu", "fc2", "sigmoid"),
    "timm.models.hgnet.EseModule": _Kind("", "", "conv", "sigmoid"),
    "torchvision.ops.misc.SqueezeExcitation": _Kind("fc1", "activation", "fc2", "scale_activation"),
}
_OURS = "senet.block.SqueezeExcitation"


@dataclass(frozen=True)
class Insertion:
    """SE as it stands in a network.

    Attributes:
        name: the module at which it acts.
        how: "batch_norm", "input", "output" or "skip", as in `Site`.
        child: the child that holds it, for "input" and "output": the placement; otherwise "".
        se: the block.
    """

    name: str
    how: str
    child: str
    se: SqueezeExcitation


@dataclass(frozen=True)
class SEUnit:
    """An SE module of a network, whichever library it comes from.

    Attributes:
        name: of the module, as in `named_modules`; within an `SEBatchNorm` it ends in `.se`.
        module: the module itself.
        kind: its class with the library that it comes from, such as "timm.models.senet.SEModule".
        channels: C, of the map that it scales.
        hidden_channels: units between the two layers; None where there is but one (effective SE).
        reduce: the first layer, C to hidden; None where there is but one.
        activation: between the two; None where there is but one.
        expand: the second layer, hidden to C.
        gate: the module that makes the gate of the second layer's output.
        norm: a normalisation between the first layer and the activation; None where there is none.
        squeeze: "avg", "max", "none", or "avg+max" for the mean of the two.
        site: the module where senet put it, as `Insertion.name`; None where it is the network's own.
    """

    name: str
    module: nn.Module
    kind: str
    channels: int
    hidden_channels: int | None
    reduce: nn.Module | None
    activation: nn.Module | None
    expand: nn.Module
    gate: nn.Module
    norm: nn.Module | None
    squeeze: str
    site: str | None

    @property
    def gain(self) -> float:
        """What multiplies the output of `gate`: 1 but for blocks of ours that start as the identity."""
        gain = getattr(self.module, "gain", None)
        return float(gain) if isinstance(gain, Tensor) else 1.0


def insertions(model: nn.Module) -> list[Insertion]:
    """Where SE stands in a network by `insert` or as `SEBatchNorm`, read off the network itself."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, SEBatchNorm):
            found.append(Insertion(name, "batch_norm", "", module.se))
        elif isinstance(module, Recalibrate):
            parent, _, child = name.rpartition(".")
            site, child = (name, "") if module.how == "skip" else (parent, child)
            found.append(Insertion(site, module.how, child, module.se))
    return found


def find_se(model: nn.Module) -> list[SEUnit]:
    """Every SE module of a network, in the order of `named_modules`; empty for a plain network.

    Known are `senet.SqueezeExcitation`, timm's `SEModule`, `SqueezeExcite` (MobileNetV3, EfficientNet, ...),
    `EffectiveSEModule` and legacy `SEModule`, and torchvision's `SqueezeExcitation`.
    """
    sites = {insertion.se: insertion.name for insertion in insertions(model)}
    found = []
    for name, module in model.named_modules():
        kind = next((kind for kind in class_names(module) if kind in _KINDS), None)
        if kind is not None:
            found.append(_unit(name, module, kind, sites.get(module)))
    return found


def own_se(model: nn.Module) -> SEUnit | None:
    """The first SE module that a network has of its own, and not by `senet.insert`; None where there is none."""
    return next((unit for unit in find_se(model) if unit.site is None), None)


def watch_gates(unit: SEUnit, see: Callable[[Tensor], Any]) -> RemovableHandle:
    """Have a function called with the gates as they are computed, once for each call of the module.

    Args:
        unit: of `find_se`.
        see: takes the gates, (N, C), with the gain of a block in them, and with their graph; for the squeeze "none"
            (N, *spatial, C).

    Returns:
        A handle, whose `remove` ends it.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        gain = getattr(unit.module, "gain", None)
        # 1x1 convolutions give (N, C, 1, 1), and layers on maps with the channels last (N, 1, 1, C).
        gates = output if unit.squeeze == "none" else output.flatten(1)
        see(gates * gain if isinstance(gain, Tensor) else gates)

    return unit.gate.register_forward_hook(hook)


def class_names(module: nn.Module) -> Iterator[str]:
    """Full names of a module's class and its base classes, nearest first: "timm.models.vgg.VGG"."""
    for kind in type(module).__mro__:
        yield f"{kind.__module__}.{kind.__qualname__}"


def _unit(name: str, module: nn.Module, kind: str, site: str | None) -> SEUnit:
    row = _KINDS[kind]
    parts: dict[str, Any] = {part: getattr(module, child) if child else None for part, child in vars(row).items()}
    if isinstance(parts["norm"], nn.Identity):
        parts["norm"] = None
    channels, hidden = _sizes(parts["expand"])
    return SEUnit(
        name=name,
        module=module,
        kind=kind,
        channels=channels,
        hidden_channels=None if parts["reduce"] is None else hidden,
        squeeze=_squeeze(module, kind),
        site=site,
        **parts,
    )


def _sizes(layer: Any) -> tuple[int, int]:
    """Outputs and inputs of a layer, linear or a 1x1 convolution."""
    if isinstance(layer.weight, Tensor):
        outputs, inputs = layer.weight.shape[:2]
    elif hasattr(layer, "out_features"):  # quantised: the weight is packed, and a method returns it
        outputs, inputs = layer.out_features, layer.in_features
    else:
        outputs, inputs = layer.out_channels, layer.in_channels
    return int(outputs), int(inputs)


def _squeeze(module: Any, kind: str) -> str:
    if kind == _OURS:
        return str(module.squeeze)
    return "avg+max" if getattr(module, "add_maxpool", False) else "avg"
