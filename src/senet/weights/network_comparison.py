"""Compare two networks as functions: module by module, and by running both on the same images."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from senet.utils.modes import evaluating

__all__ = ["NotComparableError", "activation_name", "compare_modules", "compare_outputs", "values_of"]

# Attributes that, with its weights, determine the function of a layer.
_NUMBERS = ("stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "eps")
_POOLS = ("kernel_size", "stride", "padding", "ceil_mode", "dilation", "count_include_pad")
# Other libraries' names of activations.
_SAME = {"Swish": "SiLU", "SwishMe": "SiLU", "HardSwish": "Hardswish", "HardSigmoid": "Hardsigmoid", "GELUTanh": "GELU"}
_ACTIVATIONS = {*nn.modules.activation.__all__, *_SAME}
# Relative difference below which two float64 networks differ only by rounding.
_TOLERANCE = 1e-6
_SIDES = (97, 224)


class NotComparableError(Exception):
    """Two networks cannot be run on the same images; the message gives the reason."""


def activation_name(module: nn.Module) -> str | None:
    """Return PyTorch's name of any library's activation; None for other modules."""
    name = next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _ACTIVATIONS), None)
    return None if name is None else _SAME.get(name, name)


def values_of(model: nn.Module, attribute: str, kind: str) -> Any:
    """Return the values of an attribute over a network's layers: one value, or a sorted tuple of several.

    Args:
        model: the network.
        attribute: attribute of layers, such as "eps"; a pair of equal numbers counts as one number.
        kind: substring of the names of the layers' classes, such as "Norm".

    Returns:
        The values; None if no layer has the attribute.
    """
    found = set()
    for module in model.modules():
        is_one = any(kind in one.__name__ for one in type(module).__mro__)
        value = getattr(module, attribute, None) if is_one else None
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, int | float | tuple) and not isinstance(value, bool):
            found.add(value)
    return next(iter(found)) if len(found) == 1 else tuple(sorted(found, key=str)) or None


def compare_modules(theirs: nn.Module, here: nn.Module, names: Mapping[str, str]) -> str | None:
    """Return the first difference between corresponding layers, activations or pools of two networks.

    Args:
        theirs: the source network of the weights.
        here: the target network.
        names: modules of the target by modules of the source, for modules with weights.

    Returns:
        Text such as "stride=(1, 1) at layer3.0.conv2, and this one has (2, 2)"; None if there is no difference.
    """
    modules, own = dict(theirs.named_modules()), dict(here.named_modules())
    for name, module in modules.items():
        other = own.get(names.get(name, name))
        if other is None:
            continue
        if name in names:
            for attribute in _NUMBERS:
                one, two = _number(module, attribute), _number(other, attribute)
                if one != two and one is not None and two is not None:
                    return f"{attribute}={one!r} at {name}, and this one has {attribute}={two!r} there"
        elif (one := _kind(module)) and (two := _kind(other)) and one != two:
            return f"{one} at {name}, and this one has {two} there"
    return None


def compare_outputs(
    theirs: nn.Module, here: nn.Module, tensors: Mapping[str, Tensor], classifiers: tuple[str, str] | None
) -> None:
    """Run both networks in float64 on the same random images, and compare their outputs.

    Args:
        theirs: the source network of the weights.
        here: the target network, which stays unchanged.
        tensors: the weights, by the target's names.
        classifiers: names of the classifier in both networks, if it is not loaded: then its inputs are compared.

    Raises:
        NotComparableError: a network cannot be run on images only.
        ValueError: the outputs differ; the message states by how much.
    """
    own = {name: tensors.get(name, tensor) for name, tensor in _all_tensors(here)}
    names = classifiers or (None, None)
    error: Exception | None = None
    for side in _SIDES:
        try:
            one = _output(theirs, dict(_all_tensors(theirs)), side, names[0])
            two = _output(here, own, side, names[1])
        except Exception as problem:  # a network may require another size, other inputs, or several samples
            error = problem
            continue
        if one.shape != two.shape:
            raise ValueError(f"has an output of shape {tuple(one.shape)}, and this one of {tuple(two.shape)}")
        scale = max(float(one.abs().max()), 1e-30)
        difference = float((one - two).abs().max()) / scale
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"has another output for the same image: they differ by {100 * difference:.3g} % of the largest value"
            )
        return
    raise NotComparableError(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")


def _output(model: nn.Module, state: Mapping[str, Tensor], side: int, classifier: str | None) -> Tensor:
    double = {
        name: t.detach().cpu().double() if t.is_floating_point() else t.detach().cpu() for name, t in state.items()
    }
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    images = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    caught: list[Tensor] = []
    with ExitStack() as hooks, evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        if classifier is not None:
            hook = lambda module, inputs: caught.append(inputs[0].flatten(1))  # noqa: E731
            hooks.enter_context(model.get_submodule(classifier).register_forward_pre_hook(hook))
        given = functional_call(model, double, (2 * images - 1,))
    result = caught[0] if caught else given
    if not isinstance(result, Tensor) or not bool(torch.isfinite(result).all()):
        raise TypeError(f"the output is a {type(result).__name__} that cannot be compared")
    return result


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _number(module: nn.Module, attribute: str) -> Any:
    value = getattr(module, attribute, None)
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) and attribute != "groups" else value


def _kind(module: nn.Module) -> str | None:
    """Describe an activation or pool that affects the network's function; None for other modules."""
    if next(module.children(), None) is not None:
        return None
    if activation_name(module):
        return activation_name(module)
    name = type(module).__name__
    if "Pool" not in name or "Adaptive" in name or not hasattr(module, "kernel_size"):
        return None
    values = [f"{key}={_number(module, key)!r}" for key in _POOLS if _number(module, key) not in (None, False)]
    return f"{name}({', '.join(values)})"
