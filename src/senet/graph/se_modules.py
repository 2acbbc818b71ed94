"""Find the SE modules of a network, senet's or another library's: one adapter for all that reads gates.

Some classes are known by name (`senet.graph.se_kinds`). Any other SE is recognized by what it computes
(`senet.graph.se_search`): only modules with two layers C -> hidden -> C are traced for that.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.graph.example_inputs import Example
from senet.graph.function_modules import FunctionModule, function_module
from senet.graph.operations import Trace
from senet.graph.se_description import RecognizedSE
from senet.graph.se_kinds import KINDS, OURS, class_names
from senet.graph.se_search import search_se
from senet.nn.block import SqueezeExcitation
from senet.nn.inserted_se import find_inserted_se

__all__ = ["SEUnit", "find_se", "own_se", "watch_gates"]


@dataclass(frozen=True)
class SEUnit:
    """An SE module of a network, of any library.

    Attributes:
        name: of the module, as in `named_modules`; within an `SEBatchNorm` it ends in `.se`.
        module: the module itself.
        kind: the full name of its class, such as "timm.models.senet.SEModule".
        channels: C of the map that it scales.
        hidden_channels: units between the two layers; None if there is one layer (effective SE).
        reduce: the first layer, C to hidden; None if there is one layer.
        activation: between the two layers; None if there is one layer.
        expand: the second layer, hidden to C.
        gate: the module that computes the gate from the second layer's output.
        norm: a normalization between the first layer and the activation; None without one.
        squeeze: "avg", "max", "none", or "avg+max" for the mean of the two.
        site: the module where senet inserted it, as `InsertedSE.name`; None if it is the network's own.
        form: "block": the module returns the scaled map. "gate": it returns the gate, and the module around it
            multiplies. "inline": the module does this and more in its forward.
        axis: of the channels of the map, 1 or -1.
        gate_axis: of the channels of the output of `gate`, 1 or -1.
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
        """The modules that are SE and nothing else: the module itself, or its layers if it does more."""
        if self.form != "inline":
            return [self.module]
        parts = (self.reduce, self.norm, self.activation, self.expand, self.gate)
        return [part for part in parts if part is not None and not isinstance(part, FunctionModule)]

    @property
    def gain(self) -> float:
        """The factor of the output of `gate`: 1, except for blocks of senet that start as the identity."""
        return self.module.gain_value if isinstance(self.module, SqueezeExcitation) else 1.0

    @property
    def gate_range(self) -> tuple[float, float]:
        """The bounds of the gates, gain included; infinite where there is none, or none is known."""
        gate, gain = type(self.gate).__name__.lower(), self.gain
        if gate in ("sigmoid", "hardsigmoid", "hardsigmoidjit", "hardsigmoidme"):
            ends = (0.0, gain)
        elif gate == "tanh":
            ends = (-gain, gain)
        elif gate in ("relu", "relu6"):
            ends = (0.0, math.copysign(math.inf, gain))
        else:
            ends = (-math.inf, math.inf)
        return min(ends), max(ends)

    def rows(self, values: Tensor) -> Tensor:
        """Return what a part of the module takes or returns as (N, C), or (N, *positions, C) if there are several."""
        # 1x1 convolutions return (N, C, 1, 1), and layers on channels-last maps (N, 1, 1, C).
        return values if self.kind == OURS else values.flatten(1)


def find_se(model: nn.Module, example: Example | None = None, run: Trace | None = None) -> list[SEUnit]:
    """Return every SE module of a network, in the order of `named_modules`; nothing for a plain network.

    Known classes are `senet.SqueezeExcitation`, timm's `SEModule`, `SqueezeExcite` (MobileNetV3, EfficientNet, ...),
    `EffectiveSEModule` and legacy `SEModule`, torchvision's `SqueezeExcitation`, and classes of `register_se`. Other
    SE is recognized by what it computes: it pools a map over space, computes a gate from the result by two layers, and
    scales the same map, in modules of any names or inline in a forward. Candidates run on tensors without values.

    Args:
        model: the network.
        example: an input of the network (a tensor, or a tuple or dict of inputs), for candidates that do not run by
            themselves.
        run: of the network, which then does not run again for these.

    Examples:
        >>> import torchvision
        >>> units = senet.graph.find_se(torchvision.models.mobilenet_v3_small())
        >>> len(units), units[0].name
        (9, 'features.1.block.1')
    """
    sites = {insertion.se: insertion.name for insertion in find_inserted_se(model)}
    found = []
    for name, module in model.named_modules():
        kind = next((kind for kind in class_names(module) if kind in KINDS), None)
        if kind is not None:
            found.append(_unit(name, module, kind, sites.get(module)))
    recognized = search_se(model, [unit.name for unit in found], example, run)
    if recognized:
        order = {name: place for place, (name, _) in enumerate(model.named_modules())}
        places = {unit.name: order[unit.name] for unit in found}
        for unit, place in _recognized_units(model, recognized, order):
            found.append(unit)
            places[unit.name] = place
        found.sort(key=lambda unit: places[unit.name])
    return found


def own_se(model: nn.Module, example: Example | None = None) -> SEUnit | None:
    """Return the first SE module that is the network's own, not inserted by `senet.insert`; None without one."""
    return next((unit for unit in find_se(model, example) if unit.site is None), None)


def watch_gates(unit: SEUnit, see: Callable[[Tensor], Any]) -> RemovableHandle:
    """Call a function with the gates as they are computed, once for each call of the module.

    Args:
        unit: of `find_se`.
        see: takes the gates, (N, C), gain included, attached to their autograd graph; for the squeeze "none"
            (N, *spatial, C), and over windows (N, *windows, C).

    Returns:
        A handle with `remove`.
    """

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        gain = getattr(unit.module, "gain", None) if unit.kind == OURS else None
        see(unit.rows(output) * gain if isinstance(gain, Tensor) else unit.rows(output))

    return unit.gate.register_forward_hook(hook)


def _unit(name: str, module: nn.Module, kind: str, site: str | None) -> SEUnit:
    row = KINDS[kind]
    try:
        parts = {part: _child(module, getattr(row, part)) for part in ("reduce", "norm", "expand")}
        # Functions: the next operation on the layer's output.
        parts["activation"] = function_module(parts["norm"] or parts["reduce"]) if row.activation is None else None
        parts["activation"] = parts["activation"] or _child(module, row.activation)
        parts["gate"] = function_module(parts["expand"]) if row.gate is None else _child(module, row.gate)
        if isinstance(parts["reduce"], nn.Identity):  # of attention without a hidden layer
            parts["reduce"] = parts["activation"] = None
        channels = module.channels if isinstance(module, SqueezeExcitation) else _sizes(parts["expand"])[0]
        hidden = None if parts["reduce"] is None else _sizes(parts["reduce"])[0]
    except AttributeError as error:
        raise ValueError(
            f"{name or type(module).__name__!r} is SE of the class {kind} and lacks a part of it: {error}; "
            f"name its parts with senet.register_se"
        ) from error
    if isinstance(parts["norm"], nn.Identity):
        parts["norm"] = None
    # Other libraries use linear layers on channels-last maps.
    linear = isinstance(parts["expand"], nn.Linear)
    axis = row.axis or (-1 if linear and kind != OURS else 1)
    return SEUnit(
        name=name,
        module=module,
        kind=kind,
        channels=channels,
        hidden_channels=hidden,
        squeeze=_squeeze(module, kind),
        site=site,
        axis=axis,
        gate_axis=-1 if linear or kind == OURS else 1,
        **parts,
    )


def _child(module: nn.Module, name: str | None) -> Any:
    return module.get_submodule(name) if name else None


def _recognized_units(
    model: nn.Module, recognized: list[RecognizedSE], order: dict[str, int]
) -> Iterator[tuple[SEUnit, int]]:
    """Yield the units of recognized SE, and their places in the order of modules."""
    names = Counter(one.name for one in recognized)
    for one in recognized:
        # Several may be inline in one forward, or in the network's own: name them by their second layers.
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
            activation=model.get_submodule(one.activation)
            if one.activation
            else function_module(norm or reduce, middle),
            expand=expand,
            gate=model.get_submodule(one.gate) if one.gate else function_module(expand, one.found.last),
            norm=norm,
            squeeze=one.found.squeeze,
            site=None,
            form=one.form,
            axis=one.found.axis,
            gate_axis=one.gate_axis,
        )
        yield unit, order[name]


def _sizes(layer: Any) -> tuple[int, int]:
    """Return the outputs and inputs of a layer, linear or a 1x1 convolution."""
    if isinstance(layer.weight, Tensor):
        outputs, inputs = layer.weight.shape[:2]
    elif hasattr(layer, "out_features"):  # quantized: the weight is packed, returned by a method
        outputs, inputs = layer.out_features, layer.in_features
    else:
        outputs, inputs = layer.out_channels, layer.in_channels
    return int(outputs), int(inputs)


def _squeeze(module: Any, kind: str) -> str:
    if kind == OURS:
        return str(module.squeeze)
    return "avg+max" if getattr(module, "add_maxpool", False) else "avg"
