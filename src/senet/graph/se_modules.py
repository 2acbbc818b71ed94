"""What counts as an SE module, ours or another's: one adapter, for everything that looks at gates.

Classes of libraries are known by name, without importing the library, and users register theirs. Any other SE is
recognised by what it does (`senet.graph.se_search`): only modules with two layers C -> hidden -> C are run for that.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.graph.example_inputs import Example
from senet.graph.se_search import BehavingSE, search_se
from senet.graph.taps import Tap, tap
from senet.nn.block import SqueezeExcitation
from senet.nn.insertions import insertions

__all__ = ["SEUnit", "class_names", "find_se", "own_se", "register_se", "watch_gates"]


@dataclass(frozen=True)
class _Kind:
    """Where a class of SE modules keeps its parts: names of children; "" where it has none.

    `None` in place of a gate or an activation stands for a function that forward calls on the layer's output.
    """

    reduce: str
    activation: str | None
    expand: str
    gate: str | None
    norm: str = ""
    axis: int | None = None


# A new kind is a new row. Subclasses are known by the class that they come from.
_KINDS = {
    "senet.nn.block.SqueezeExcitation": _Kind("fc1", "activation", "fc2", "gate"),
    "timm.layers.squeeze_excite.SEModule": _Kind("fc1", "act", "fc2", "gate", norm="bn"),
    "timm.layers.squeeze_excite.SqueezeExciteCl": _Kind("fc1", "act", "fc2", "gate"),
    "timm.layers.squeeze_excite.EffectiveSEModule": _Kind("", "", "fc", "gate"),
    "timm.models._efficientnet_blocks.SqueezeExcite": _Kind("conv_reduce", "act1", "conv_expand", "gate"),
    "timm.models.senet.SEModule": _Kind("fc1", "relu", "fc2", "sigmoid"),
    "timm.models.hgnet.EseModule": _Kind("", "", "conv", "sigmoid"),
    "torchvision.ops.misc.SqueezeExcitation": _Kind("fc1", "activation", "fc2", "scale_activation"),
}
_OURS = "senet.nn.block.SqueezeExcitation"


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
        form: "block": the module gives the map that it scales. "gate": it gives the gate, and the module around it
            multiplies. "inline": it is a module that does this and more in its forward.
        axis: of the channels of the map, 1 or -1.
        gate_axis: of the channels of what `gate` gives, 1 or -1.
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
    form: str = "block"
    axis: int = 1
    gate_axis: int = 1

    @property
    def parts(self) -> list[nn.Module]:
        """The modules that are SE and nothing else: the module itself, or its layers where it does more."""
        if self.form != "inline":
            return [self.module]
        parts = (self.reduce, self.norm, self.activation, self.expand, self.gate)
        return [part for part in parts if part is not None and not isinstance(part, Tap)]

    @property
    def gain(self) -> float:
        """What multiplies the output of `gate`: 1 but for blocks of ours that start as the identity."""
        return self.module.gain_value if isinstance(self.module, SqueezeExcitation) else 1.0


def find_se(model: nn.Module, example: Example | None = None) -> list[SEUnit]:
    """Every SE module of a network, in the order of `named_modules`; empty for a plain network.

    Known are `senet.SqueezeExcitation`, timm's `SEModule`, `SqueezeExcite` (MobileNetV3, EfficientNet, ...),
    `EffectiveSEModule` and legacy `SEModule`, torchvision's `SqueezeExcitation`, and classes of `register_se`. Other
    SE is recognised by what it does: it pools a map over space, makes a gate of it by two layers, and scales the same
    map, in modules of any names or inline in a forward. Modules that may be such are run on tensors without values.

    Args:
        model: the network.
        example: an input of it (a tensor, or a tuple or dict of inputs), which helps where a module that may be SE
            does not run by itself.
    """
    sites = {insertion.se: insertion.name for insertion in insertions(model)}
    found = []
    for name, module in model.named_modules():
        kind = next((kind for kind in class_names(module) if kind in _KINDS), None)
        if kind is not None:
            found.append(_unit(name, module, kind, sites.get(module)))
    behaving = search_se(model, [unit.name for unit in found], example)
    if behaving:
        order = {name: place for place, (name, _) in enumerate(model.named_modules())}
        places = {unit.name: order[unit.name] for unit in found}
        for unit, place in _recognised(model, behaving, order):
            found.append(unit)
            places[unit.name] = place
        found.sort(key=lambda unit: places[unit.name])
    return found


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
    """Register a class of SE modules, which take a map and give the scaled map, under the names of its parts.

    Most SE needs no registration, as it is recognised by what it does, see `find_se`. Registering helps where a module
    computes the gate in an unusual way, or does not run on its own.

    Args:
        kind: the class, or its full name ("package.module.Class"); subclasses are known by it.
        reduce: name of the child that is the first layer, C to hidden, such as "fc1" or "fc.0".
        expand: the second layer, hidden to C.
        activation: between the two; None for a function that forward calls on the output of the first layer.
        gate: after the second; None for a function, such as `torch.sigmoid`.
        norm: between the first layer and the activation; "" for none.
        channels_last: whether the map is (N, *spatial, C).

    Raises:
        TypeError: `kind` is neither a class of modules nor text.
        ValueError: the class is known already, with other parts.
    """
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        name = f"{kind.__module__}.{kind.__qualname__}"
    elif isinstance(kind, str):
        name = kind
    else:
        raise TypeError(f"expected a class of torch.nn.Module or its full name, got {kind!r}")
    row = _Kind(reduce, activation, expand, gate, norm, -1 if channels_last else 1)
    if _KINDS.setdefault(name, row) != row:
        raise ValueError(f"{name} is known as SE already, with the parts {_KINDS[name]}; register another class")


def own_se(model: nn.Module, example: Example | None = None) -> SEUnit | None:
    """The first SE module that a network has of its own, and not by `senet.insert`; None where there is none."""
    return next((unit for unit in find_se(model, example) if unit.site is None), None)


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
        gain = getattr(unit.module, "gain", None) if unit.kind == _OURS else None
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
    try:
        parts = {part: _child(module, getattr(row, part)) for part in ("reduce", "norm", "expand")}
        # Inline functions: what is next to do with the layer's output.
        parts["activation"] = tap(parts["norm"] or parts["reduce"]) if row.activation is None else None
        parts["activation"] = parts["activation"] or _child(module, row.activation)
        parts["gate"] = tap(parts["expand"]) if row.gate is None else _child(module, row.gate)
        channels, hidden = _sizes(parts["expand"])
    except AttributeError as error:
        raise ValueError(
            f"{name or type(module).__name__!r} is SE of the class {kind} and lacks a part of one: {error}; "
            f"name its parts with senet.register_se"
        ) from error
    if isinstance(parts["norm"], nn.Identity):
        parts["norm"] = None
    # Other libraries have linear layers on maps with the channels last.
    linear = isinstance(parts["expand"], nn.Linear)
    axis = row.axis or (-1 if linear and kind != _OURS else 1)
    return SEUnit(
        name=name,
        module=module,
        kind=kind,
        channels=channels,
        hidden_channels=None if parts["reduce"] is None else hidden,
        squeeze=_squeeze(module, kind),
        site=site,
        axis=axis,
        gate_axis=-1 if linear else 1,
        **parts,
    )


def _child(module: nn.Module, name: str | None) -> Any:
    return module.get_submodule(name) if name else None


def _recognised(model: nn.Module, behaving: list[BehavingSE], order: dict[str, int]) -> Iterator[tuple[SEUnit, int]]:
    """Units of SE that was recognised by what it does, and their places in the order of modules."""
    names = Counter(one.name for one in behaving)
    for one in behaving:
        # A network may hold several that are inline in the same forward, or in its own: the second layer tells them.
        whole = names[one.name] == 1 and bool(one.name or one.form != "inline")
        name = one.name if whole else one.expand
        module, reduce, expand = model.get_submodule(one.name), *map(model.get_submodule, (one.reduce, one.expand))
        norm = None if one.norm is None else model.get_submodule(one.norm)
        middle = one.found.middle[1:] if norm is not None else one.found.middle
        channels, hidden = _sizes(expand)
        unit = SEUnit(
            name=name,
            module=model.get_submodule(name),
            kind=next(class_names(module)),
            channels=channels,
            hidden_channels=hidden,
            reduce=reduce,
            activation=model.get_submodule(one.activation) if one.activation else tap(norm or reduce, middle),
            expand=expand,
            gate=model.get_submodule(one.gate) if one.gate else tap(expand, one.found.last),
            norm=norm,
            squeeze=one.found.squeeze,
            site=None,
            form=one.form,
            axis=one.found.axis,
            gate_axis=one.gate_axis,
        )
        yield unit, order[name]


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
