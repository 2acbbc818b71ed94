"""Compare a deployed network with the original, in float64 and in float32, and with what rounding does to it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

import senet
from senet.graph.se_modules import find_se
from sweep_cases.networks import build

__all__ = ["RATIO", "TOLERANCE", "compare", "distance", "rounding"]

# Largest relative difference in float64, and largest error in float32 relative to the original's.
TOLERANCE, RATIO = 1e-9, 2.0
# On the other size, values may grow, and rounding with them: the most that a difference is of what rounding changes.
_ROUNDINGS = 16


@torch.no_grad()
def compare(name: str) -> dict[str, Any]:
    """Deploy a network of timm with random weights and statistics, and compare it with the original.

    Returns:
        `status`: "equal"; "equal within rounding", where the original itself amplifies rounding on the other size; or
        "differs". `error`: the relative difference in float64, the largest of two sizes.
        `rounding`: that of the original, on the first size, with its weights changed by a unit in the last place.
        `float32`: the error in float32, relative to that of the original. `se` and `norms`: counts by what was done;
        `reasons`: by the reason why SE stayed in its place or was left, and why batch norms were left. `bytes`: moved,
        relative to the original.
    """
    model, x = build(name)
    deployed = senet.deploy(model, x[:2])
    exact = copy.deepcopy(model).double()
    expected = exact(x.double())
    before, after = (distance(network(x).double(), expected) for network in (model, deployed))
    found = _counts(model, x, deployed.report) | {"side": x.shape[-1], "rounding": rounding(exact, x.double())}
    del deployed, model
    rewritten = senet.deploy(exact, x[:2].double())
    errors = [distance(rewritten(x.double()), expected)]
    # Larger, and not square.
    height, width = x.shape[2:]
    other = nn.functional.interpolate(x[:1].double(), (height + 32, width + 64), mode="bilinear")
    try:
        expected = exact(other)
    except Exception:  # of a network of one size
        found["other size"] = False
    else:
        errors.append(distance(rewritten(other), expected))
        if errors[1] > TOLERANCE:
            found["other rounding"] = rounding(exact, other)
    # Where the original is exact to the last bit, one rounding is no fault.
    ratio = after / max(before, 2.0**-24)
    status = "equal" if max(errors) <= TOLERANCE else "differs"
    if errors[0] <= TOLERANCE < max(errors) <= _ROUNDINGS * found.get("other rounding", 0.0):
        status = "equal within rounding"
    return {"status": status if ratio <= RATIO else "differs", "error": max(errors), "float32": ratio} | found


def _counts(model: nn.Module, x: Tensor, report: Any) -> dict[str, Any]:
    units = {unit.name for unit in find_se(model, x[:2])}
    se = {action: [row for row in report.of(action) if row.module in units] for action in ("moved", "replaced")}
    se |= {action: [row for row in report.of(action) if row.module in units] for action in ("constant", "left")}
    if sum(map(len, se.values())) != len(units):
        raise AssertionError(f"the report has {sum(map(len, se.values()))} of {len(units)} SE modules")
    norms = [row for row in report.of("left") if "Norm" in row.kind and row.module not in units]
    return {
        "se": {action: len(rows) for action, rows in se.items()},
        "norms": {"folded": len(report.of("folded")), "left": len(norms)},
        "reasons": {
            what: _tally(rows)
            for what, rows in (("in place", se["replaced"]), ("left", se["left"]), ("norms left", norms))
        },
        "bytes": report.bytes_moved[1] / report.bytes_moved[0],
    }


def _tally(rows: list[Any]) -> dict[str, int]:
    details = [row.detail for row in rows]
    return {detail: details.count(detail) for detail in dict.fromkeys(details)}


def distance(actual: Tensor, expected: Tensor) -> float:
    """Return the root of the mean squared difference, relative to that of what is expected."""
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@torch.no_grad()
def rounding(exact: nn.Module, x: Tensor) -> float:
    """Return the relative change of a network's output where each weight changes by about a unit in the last place.

    Args:
        exact: in float64.
        x: its input.
    """
    changed = copy.deepcopy(exact)
    for tensor in changed.parameters():
        signs = torch.randint(0, 2, tensor.shape, dtype=tensor.dtype).mul_(2).sub_(1)
        tensor.mul_(1 + torch.finfo(tensor.dtype).eps * signs)
    return distance(changed(x), exact(x))
