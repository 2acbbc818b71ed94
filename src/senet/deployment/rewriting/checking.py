"""Compare a rewritten network with the original: what one run did not show becomes an error, not a wrong result."""

import copy
import math

import torch
from torch import Tensor, nn

from senet.deployment.rewriting.results import PRECISIONS, Precision, distances, magnitudes, results
from senet.graph.example_inputs import Example, example_image
from senet.graph.example_runs import image_inputs, with_values
from senet.utils.arguments import argument
from senet.utils.errors import RewriteError, first_line

__all__ = ["check_same"]

# Accepted differences in float64, relative to the largest value of an output, and of a channel. Weights are rounded
# once; a wrong rewriting changes outputs by a visible part. The second one is larger, as a channel may be a single
# number, which is by chance near zero.
_OUTPUT, _CHANNEL = 1e-5, 1e-3
# Below this part of the largest value of an output, values are rounding errors in float64.
_ROUNDING = 1e-12
# A network may amplify rounding by orders of magnitude: its result may then change by so many times what a unit in the
# last place of each weight changes, in the largest of a number of runs, up to a part of the largest value of an output.
_TIMES, _RUNS, _LARGEST = 16, 4, 0.05
_HALVES = (torch.float16, torch.bfloat16)


def check_same(model: nn.Module, new: nn.Module, example: Example | None) -> None:
    """Check that a rewritten network returns what the original does.

    Args:
        model: the original, in evaluation mode.
        new: the rewritten network.
        example: an input; a random image unless given.

    Raises:
        RewriteError: they differ.
    """
    inputs = with_values(model, image_inputs(model, example_image(model))) if example is None else example
    kind = type(model).__name__
    difference = rounding = 0.0
    failure: Exception | None = None
    for precision in PRECISIONS:
        try:
            difference, rounding = _differences(model, new, inputs, precision)
            break
        except Exception as error:  # whatever its code raises in float64, on the CPU, or where it reads modules
            failure = error
    else:
        assert failure is not None
        raise RewriteError(
            f"{kind} cannot be rewritten: its code does not run with replaced modules, whose attributes it may read "
            f"({first_line(failure)})"
        ) from failure
    if math.isnan(difference):
        raise RewriteError(
            f"{kind} cannot be rewritten: an output has NaN only, so no result can be compared with it; load other "
            f"weights, or give real images as {argument('example')}"
        )
    if difference and rounding > _LARGEST:
        raise RewriteError(
            f"{kind} cannot be rewritten: a unit in the last place of its weights changes its result by "
            f"{rounding:.2g} of the largest output, which hides whether rewriting does; convert it to float64, or "
            f"load other weights"
        )
    if difference:
        raise RewriteError(
            f"{kind} cannot be rewritten: the result would differ by {difference:.2g} of the largest value in an "
            f"output or a channel. Its code may call layers that it keeps outside of the module tree, test their "
            f"types, return or keep maps that are not computed any more, or change tensors in place that SE returns"
        )
    if precision.exact and _overflows(model, new, inputs):
        raise RewriteError(
            f"{kind} cannot be rewritten in half precision: the result would be NaN or infinity; rewrite it in float32"
        )


def _differences(model: nn.Module, new: nn.Module, example: Example, precision: Precision) -> tuple[float, float]:
    """Compare two networks.

    Returns:
        The largest relative difference of values that differ by more than rounding explains, 0 without one, NaN where
        an output of the original has NaN only; and that of an output by rounding, as far as it was measured.
    """
    layers, others = dict(model.named_modules()), dict(new.named_modules())
    same = [name for name, layer in layers.items() if name in others and _unchanged(layer, others[name])]
    original = results(model, example, precision)
    if any(one.numel() and bool(one.isnan().all()) for one in original.outputs):
        return math.nan, 0.0
    found = distances(original, results(new, example, precision), same)
    if found is None:
        return math.inf, 0.0
    if not found:
        return 0.0, 0.0
    scales = [magnitudes(one) for one, _ in found]
    scale, difference = torch.cat(scales), torch.cat([magnitudes(one) for _, one in found])
    largest = torch.cat([one[:1].expand(len(one)) for one in scales])
    share = torch.cat([one.new_tensor([_OUTPUT] + [_CHANNEL] * (len(one) - 1)) for one in scales])
    if not precision.exact:
        share = share.clamp(min=min(_TIMES * _epsilon(model), _LARGEST))
    limit = torch.maximum(share * scale, _ROUNDING * largest)
    amplified = 0.0
    for seed in range(_RUNS):
        if bool((difference <= limit).all()):
            return 0.0, amplified
        rounded = distances(original, results(_rounded(model, seed), example, precision), same)
        if rounded is not None:
            rounding = torch.cat([magnitudes(one) for _, one in rounded])
            amplified = max(amplified, float((rounding / largest.clamp(min=torch.finfo(scale.dtype).tiny)).max()))
            limit = torch.maximum(limit, torch.minimum(_TIMES * rounding, _LARGEST * largest).nan_to_num(0.0))
    wrong = ~(difference <= limit)
    worst = float((difference / torch.where(scale > 0, scale, 1.0))[wrong].max()) if bool(wrong.any()) else 0.0
    return math.inf if math.isnan(worst) else worst, amplified


def _unchanged(layer: nn.Module, other: nn.Module) -> bool:
    """Return whether a layer was neither replaced nor given other weights."""
    state, other_state = layer.state_dict(), other.state_dict()
    same = type(layer) is type(other) and state.keys() == other_state.keys()
    return same and all(torch.equal(state[key], other_state[key]) for key in state)


@torch.no_grad()
def _rounded(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network in which each weight differs by about a unit in its last place."""
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for tensor in changed.parameters():
        if tensor.is_floating_point():
            signs = 2 * torch.randint(0, 2, tensor.shape, generator=generator) - 1
            tensor.mul_(1 + torch.finfo(tensor.dtype).eps * signs.to(tensor.device, tensor.dtype))
    return changed


def _epsilon(model: nn.Module) -> float:
    """Return the rounding of one in the lowest precision of a network's weights."""
    return max((torch.finfo(x.dtype).eps for x in model.parameters() if x.is_floating_point()), default=0.0)


def _overflows(model: nn.Module, new: nn.Module, example: Example) -> bool:
    """Return whether a network of half precision returns NaN or infinity where the original returns none."""
    if not any(x.dtype in _HALVES for x in model.parameters()):
        return False
    runs: list[list[Tensor]] = []
    for network in (model, new):
        try:
            runs.append(results(network, example, PRECISIONS[-1]).outputs)
        except Exception:  # whatever its code raises where it does not run in half precision on this device
            return False
    return any(bool((one.isfinite() & ~other.isfinite()).any()) for one, other in zip(*runs, strict=True))
