"""The table of SE classes that are known by name, without importing their libraries, and by registration."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

__all__ = ["KINDS", "OURS", "SEKind", "class_names", "register_se"]


@dataclass(frozen=True)
class SEKind:
    """The names of the children that are the parts of a class of SE modules; "" for a missing part.

    `None` for a gate or an activation stands for a function that the forward calls on the layer's output.
    """

    reduce: str
    activation: str | None
    expand: str
    gate: str | None
    norm: str = ""
    axis: int | None = None


# A new kind is a new row, which holds for subclasses too.
KINDS = {
    "senet.nn.block.SqueezeExcitation": SEKind("fc1", "activation", "fc2", "gate"),
    "timm.layers.squeeze_excite.SEModule": SEKind("fc1", "act", "fc2", "gate", norm="bn"),
    "timm.layers.squeeze_excite.SqueezeExciteCl": SEKind("fc1", "act", "fc2", "gate"),
    "timm.layers.squeeze_excite.EffectiveSEModule": SEKind("", "", "fc", "gate"),
    "timm.models._efficientnet_blocks.SqueezeExcite": SEKind("conv_reduce", "act1", "conv_expand", "gate"),
    "timm.models.senet.SEModule": SEKind("fc1", "relu", "fc2", "sigmoid"),
    "timm.models.hgnet.EseModule": SEKind("", "", "conv", "sigmoid"),
    "torchvision.ops.misc.SqueezeExcitation": SEKind("fc1", "activation", "fc2", "scale_activation"),
}
OURS = "senet.nn.block.SqueezeExcitation"


def register_se(
    kind: type[nn.Module] | str,
    *,
    reduce: str,
    expand: str,
    activation: str | None = None,
    gate: str | None = None,
    norm: str = "",
    channels_last: bool = False,
) -> None:
    """Register a class of SE modules, which take a map and return the scaled map, by the names of its parts.

    Most SE needs no registration: it is recognized by what it computes, see `find_se`. Register a module that computes
    the gate in an unusual way, or does not run by itself.

    Args:
        kind: the class, or its full name ("package.module.Class"). It holds for subclasses too.
        reduce: name of the child that is the first layer, C to hidden, such as "fc1" or "fc.0".
        expand: the second layer, hidden to C.
        activation: between the two; None for a function that the forward calls on the output of the first layer.
        gate: after the second; None for a function, such as `torch.sigmoid`.
        norm: between the first layer and the activation; "" for none.
        channels_last: whether the map is (N, *spatial, C).

    Raises:
        TypeError: `kind` is neither a class of modules nor a string.
        ValueError: the class is registered already, with other parts.

    Examples:
        >>> senet.register_se("mylibrary.ChannelGate", reduce="mlp.0", expand="mlp.2", activation="mlp.1")
    """
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        name = f"{kind.__module__}.{kind.__qualname__}"
    elif isinstance(kind, str):
        name = kind
    else:
        raise TypeError(f"expected a class of torch.nn.Module or its full name, got {kind!r}")
    row = SEKind(reduce, activation, expand, gate, norm, -1 if channels_last else 1)
    if KINDS.setdefault(name, row) != row:
        raise ValueError(f"{name} is known as SE already, with the parts {KINDS[name]}; register another class")


def class_names(module: nn.Module) -> Iterator[str]:
    """Yield the full names of a module's class and its base classes, nearest first: "timm.models.vgg.VGG"."""
    for kind in type(module).__mro__:
        yield f"{kind.__module__}.{kind.__qualname__}"
