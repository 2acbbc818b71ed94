"""Compare a rewritten network with the original: what one run did not show becomes an error, not a wrong result."""

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from senet.graph.example_inputs import Example, call, example_image, in_float64
from senet.utils.errors import first_line

__all__ = ["check_same"]

# Relative errors, in float64 and where a network computes in its own precision only. Networks with random weights may
# amplify rounding by orders of magnitude; a wrong rewriting changes outputs by a visible part.
_DOUBLE, _OWN = 1e-5, 0.05


def check_same(model: nn.Module, new: nn.Module, example: Example | None) -> None:
    """Check that a rewritten network returns what the original does.

    Outputs that contain indices, as those of detectors, depend on the order of nearly equal scores: there, the outputs
    of unchanged layers are compared instead.

    Args:
        model: the original, in evaluation mode.
        new: the rewritten network.
        example: an input; a random image unless given.

    Raises:
        ValueError: they differ.
    """
    inputs = _random_image(model) if example is None else example
    try:
        difference, tolerance = _difference(model, new, inputs, exact=True), _DOUBLE
    except Exception:  # whatever its code raises in float64 or on the CPU, and where it reads replaced modules
        try:
            difference, tolerance = _difference(model, new, inputs, exact=False), _OWN
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be rewritten: its code does not run with replaced modules, whose "
                f"attributes it may read ({first_line(error)})"
            ) from error
    if not difference <= tolerance:
        raise ValueError(
            f"{type(model).__name__} cannot be rewritten: the result would differ by {difference:.2g} of the largest "
            f"output. Its code may call layers that it keeps outside of the module tree, test their types, or change "
            f"tensors in place that SE returns"
        )


def _random_image(model: nn.Module) -> Tensor:
    image = example_image(model)
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(image.shape, generator=generator).to(device, image.dtype)


@torch.no_grad()
def _difference(model: nn.Module, new: nn.Module, example: Example, *, exact: bool) -> float:
    """Return the largest relative difference; where the original returns NaN or infinity, none.

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
    (expected, layers), (actual, other_layers) = runs
    if any(not leaf.is_floating_point() for leaf in expected):
        names = [name for name in layers if name in other_layers and _unchanged(layers[name][0], other_layers[name][0])]
        expected = [leaf for name in names for leaf in layers[name][1]]
        actual = [leaf for name in names for leaf in other_layers[name][1]]
    if [leaf.shape for leaf in expected] != [leaf.shape for leaf in actual]:
        return float("inf")
    return max((_relative(one, other) for one, other in zip(actual, expected, strict=True)), default=0.0)


def _unchanged(layer: nn.Module, other: nn.Module) -> bool:
    """Return whether a layer was neither replaced nor given other weights."""
    state, other_state = layer.state_dict(), other.state_dict()
    same = type(layer) is type(other) and state.keys() == other_state.keys()
    return same and all(torch.equal(state[key], other_state[key]) for key in state)


def _outputs(model: nn.Module, inputs: Example) -> tuple[list[Tensor], dict[str, tuple[nn.Module, list[Tensor]]]]:
    """Return the output tensors of a network, and its layers with the outputs of their first calls."""
    layers: dict[str, tuple[nn.Module, list[Tensor]]] = {}
    handles = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:

            def keep(module: nn.Module, args: object, output: object, name: str = name) -> None:
                layers.setdefault(name, (module, _tensors(output)))

            handles.append(module.register_forward_hook(keep))
    try:
        return _tensors(call(model, inputs)), layers
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: object) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _relative(actual: Tensor, expected: Tensor) -> float:
    expected, actual = expected.double(), actual.double()
    if not expected.numel() or not bool(expected.isfinite().all()):
        return 0.0
    return float((actual - expected).abs().max()) / (float(expected.abs().max()) or 1.0)
