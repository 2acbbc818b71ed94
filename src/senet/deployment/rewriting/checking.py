"""Compare a rewritten network with the original: what one run did not show becomes an error, not a wrong result."""

import copy
import math
from collections.abc import Mapping
from inspect import isroutine
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from senet.graph.example_inputs import Example, call, example_image, in_float64
from senet.graph.example_runs import image_inputs, with_values
from senet.utils.errors import first_line

__all__ = ["check_same"]

# Relative errors, in float64 and where a network computes in its own precision only. A wrong rewriting changes outputs
# by a visible part.
_DOUBLE, _SINGLE = 1e-5, 0.05
# Folded weights are rounded once. A network may amplify that by orders of magnitude: its result may then change by so
# many times what a unit in the last place of each weight changes.
_ROUNDINGS = 16
# Attributes that every module has.
_OWN = frozenset(vars(nn.Module()))
Layers = dict[str, tuple[nn.Module, list[Tensor]]]


def check_same(model: nn.Module, new: nn.Module, example: Example | None) -> None:
    """Check that a rewritten network returns what the original does.

    Outputs that contain indices, as those of detectors, depend on the order of nearly equal scores: there, values are
    compared in ascending order, and the outputs of unchanged layers with them.

    Args:
        model: the original, in evaluation mode.
        new: the rewritten network.
        example: an input; a random image unless given.

    Raises:
        ValueError: they differ.
    """
    inputs = with_values(model, image_inputs(model, example_image(model))) if example is None else example
    try:
        difference, tolerance = _difference(model, new, inputs, exact=True), _DOUBLE
        if not difference <= tolerance:
            rounding = _difference(model, _rounded(model), inputs, exact=True)
            tolerance = max(tolerance, min(_ROUNDINGS * rounding, _SINGLE))
    except Exception:  # whatever its code raises in float64 or on the CPU, and where it reads replaced modules
        try:
            difference, tolerance = _difference(model, new, inputs, exact=False), _SINGLE
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be rewritten: its code does not run with replaced modules, whose "
                f"attributes it may read ({first_line(error)})"
            ) from error
    if not difference <= tolerance:
        raise ValueError(
            f"{type(model).__name__} cannot be rewritten: the result would differ by {difference:.2g} of the largest "
            f"output. Its code may call layers that it keeps outside of the module tree, test their types, return or "
            f"keep maps that are not computed any more, or change tensors in place that SE returns"
        )


@torch.no_grad()
def _rounded(model: nn.Module) -> nn.Module:
    """Return a copy of a network in which each weight differs by about a unit in its last place."""
    changed, generator = copy.deepcopy(model).cpu(), torch.Generator().manual_seed(0)
    for tensor in changed.parameters():
        if tensor.is_floating_point():
            signs = 2 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
            tensor.mul_(1 + torch.finfo(tensor.dtype).eps * signs.to(tensor.dtype))
    return changed


@torch.no_grad()
def _difference(model: nn.Module, new: nn.Module, example: Example, *, exact: bool) -> float:
    """Return the largest relative difference of finite outputs; infinity for NaN in place of those.

    Args:
        model: the original.
        new: the rewritten network.
        example: an input.
        exact: compare copies in float64 on the CPU.
    """
    runs = []
    for network in (model, new):
        copied = copy.deepcopy(network).cpu().double() if exact else copy.deepcopy(network)
        inputs = in_float64(example) if exact else example
        inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            runs.append(_outputs(copied, inputs))
    (expected, layers, kept), (actual, other_layers, other_kept) = runs
    if not all(map(_is_real, expected)):
        names = [name for name in layers if name in other_layers and _unchanged(layers[name][0], other_layers[name][0])]
        # In any order; as many as the original has, unless an order or a threshold decides on that, too.
        pairs = [(one, other) for one, other in zip(expected, actual, strict=False) if one.shape == other.shape]
        pairs = [(_sorted(one), _sorted(other)) for one, other in pairs if _is_real(one)]
        expected = [*(one for one, _ in pairs), *(leaf for name in names for leaf in layers[name][1])]
        actual = [*(other for _, other in pairs), *(leaf for name in names for leaf in other_layers[name][1])]
    names = [name for name in kept if name in other_kept]
    expected = [*expected, *(leaf for name in names for leaf in kept[name])]
    actual = [*actual, *(leaf for name in names for leaf in other_kept[name])]
    if [leaf.shape for leaf in expected] != [leaf.shape for leaf in actual]:
        return float("inf")
    return max(map(_relative, actual, expected), default=0.0)


def _unchanged(layer: nn.Module, other: nn.Module) -> bool:
    """Return whether a layer was neither replaced nor given other weights."""
    state, other_state = layer.state_dict(), other.state_dict()
    same = type(layer) is type(other) and state.keys() == other_state.keys()
    return same and all(torch.equal(state[key], other_state[key]) for key in state)


def _outputs(model: nn.Module, inputs: Example) -> tuple[list[Tensor], Layers, dict[str, list[Tensor]]]:
    """Run a network.

    Returns:
        Its output tensors; its layers with the outputs of their first calls; and the tensors that the run left in
        attributes of its modules, by the name of the attribute.
    """
    before = _attributes(model)
    layers: Layers = {}
    handles = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:

            def keep(module: nn.Module, args: object, output: object, name: str = name) -> None:
                layers.setdefault(name, (module, _tensors(output)))

            handles.append(module.register_forward_hook(keep))
    try:
        found = _tensors(call(model, inputs))
    finally:
        for handle in handles:
            handle.remove()
    old = {id(leaf) for leaves in before.values() for leaf in leaves}
    after = {name: [leaf for leaf in leaves if id(leaf) not in old] for name, leaves in _attributes(model).items()}
    return found, layers, {name: _tensors(leaves) for name, leaves in after.items() if leaves}


def _attributes(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return the tensors in attributes of modules that are no parameters."""
    return {
        f"{name}.{attribute}": _within(value)
        for name, module in model.named_modules()
        for attribute, value in (*vars(module).items(), *module._buffers.items())
        if attribute not in _OWN
    }


def _within(value: object, depth: int = 4) -> list[Tensor]:
    """Return the tensors in a structure, also in attributes of objects in it."""
    found = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif depth and not isinstance(leaf, nn.Module | type) and not isroutine(leaf):
            found += _within(_parts(leaf), depth - 1)
    return found


def _parts(value: object) -> list[Any]:
    """Return the values of a mapping or sequence of another class than Python's, and the attributes of an object."""
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    parts = [getattr(value, name, None) for name in slots if isinstance(name, str) and not name.startswith("__")]
    parts += list(getattr(value, "__dict__", {}).values())
    if isinstance(value, Mapping):
        parts += list(value.values())
    elif isinstance(value, list | tuple):
        parts += value
    return parts


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in _within(output)]


def _is_real(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _sorted(x: Tensor) -> Tensor:
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).flatten().sort().values


def _relative(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of entries that are finite in the original, relative to the largest of these."""
    if expected.is_complex():
        expected, actual = (torch.view_as_real(x.resolve_conj()) for x in (expected, actual))
    finite = expected.isfinite()
    expected, actual = expected[finite].double(), actual[finite].double()
    if not expected.numel():
        return 0.0
    difference = float((actual - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
    return math.inf if math.isnan(difference) else difference
