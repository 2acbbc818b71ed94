"""Rewrite every SE network of timm by `senet.deploy`, with random weights and statistics, and compare in float64.

Usage: `python benchmarks/deploy_sweep.py --output runs/deploy_sweep.json`. Networks are found by the name patterns
below; one that has no SE is reported as such. Each prints a line: equal, or rejected with the reason.
"""

import argparse
import copy
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import senet
from senet.graph.se_modules import find_se

PATTERNS = (
    *("*seres*", "legacy_se*", "senet*", "regnety*", "regnetz*", "nf_regnet*", "nf_seresnet*", "dm_nfnet*", "nfnet*"),
    *("*efficientnet*", "*mobilenetv3*", "mobilenet_edgetpu*", "lcnet*", "semnasnet*", "mnasnet*", "spnasnet*"),
    *("fbnet*", "hardcorenas*", "tinynet*", "mixnet*", "tf_mixnet*", "ghostnet*", "repghost*", "rexnet*", "rexnetr*"),
    *(
        "ese_vovnet*",
        "hgnet*",
        "cs3se*",
        "sebotnet*",
        "sehalonet*",
        "resnetrs*",
        "tresnet*",
        "mobileone_s4",
        "repvgg*se",
    ),
    *("coatnet*", "maxvit*", "fastvit*", "rdnet*", "test_*", "skresnet*", "ecaresnet*", "efficientvit*", "vitamin*"),
)
# Largest relative error in float64, and the largest error in float32 relative to the original's.
TOLERANCE, RATIO = 1e-9, 2.0


def names(patterns: tuple[str, ...]) -> list[str]:
    """Return the networks of timm whose names match a pattern, each once."""
    return sorted({name for pattern in patterns for name in timm.list_models(pattern)})


@torch.no_grad()
def randomize(model: nn.Module, x: Tensor) -> None:
    """Draw weights of batch norms and SE, and statistics near those of a batch, as in a trained network.

    Statistics that are far from those of the maps make a deep network amplify rounding: float64 itself then differs.
    """
    norms: list[Any] = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        if norm.weight is not None:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    for unit in find_se(model):
        for layer in (unit.reduce, unit.expand):
            if layer is not None and isinstance(layer.bias, Tensor):
                nn.init.normal_(layer.bias, std=0.5)
    model.train()(x)
    model.eval()
    for norm in norms:
        if norm.running_mean is not None:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)


def build(name: str, sides: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode, and the smallest image that it takes."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).eval()
    channels, *declared = model.pretrained_cfg["input_size"]
    for size in (*((side, side) for side in sides), tuple(declared)):
        x = torch.randn(2, channels, *size)
        try:
            with torch.no_grad():
                model(x)
        except Exception:  # networks of one size
            continue
        return model, x
    raise ValueError("it runs on none of the sizes")


@torch.no_grad()
def compare(name: str, sides: tuple[int, ...]) -> dict[str, Any]:
    """Deploy one network and compare it with the original."""
    model, x = build(name, sides)
    units = find_se(model, x)
    if not units:
        return {"name": name, "status": "no SE"}
    randomize(model, x)
    deployed = senet.deploy(model, x)
    report: Any = deployed.report
    exact = copy.deepcopy(model).double()
    expected = exact(x.double())
    error = distance(senet.deploy(exact, x.double())(x.double()), expected)
    ratio = distance(deployed(x).double(), expected) / max(distance(model(x).double(), expected), 1e-9)
    named = {unit.name for unit in units}
    left = {row.detail for row in report.of("left") if row.module in named}
    return {
        "name": name,
        "status": "equal" if error <= TOLERANCE and ratio <= RATIO else "DIFFERS",
        "error": error,
        "float32_ratio": ratio,
        "se": {
            action: sum(row.module in named for row in report.of(action)) for action in ("moved", "replaced", "left")
        },
        "reasons": sorted(left),
        "norms": {"folded": len(report.of("folded")), "left": sum("Norm" in row.kind for row in report.of("left"))},
        "bytes_moved": report.bytes_moved[1] / report.bytes_moved[0],
    }


def distance(actual: Tensor, expected: Tensor) -> float:
    """Return the root of the mean squared difference, relative to that of what is expected."""
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def sweep(wanted: list[str], sides: tuple[int, ...], largest: float) -> Iterator[dict[str, Any]]:
    """Yield the result of each network."""
    for name in wanted:
        start = time.perf_counter()
        with torch.device("meta"):
            millions = sum(parameter.numel() for parameter in timm.create_model(name).parameters()) / 1e6
        if millions > largest:
            yield {"name": name, "status": f"skipped: {millions:.0f} M parameters"}
            continue
        try:
            found = compare(name, sides)
        except Exception as error:  # the reason is the result
            found = {"name": name, "status": f"rejected: {type(error).__name__}: {error}"}
        yield {**found, "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), help="globs of timm's names")
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 96, 128], help="of the images, tried in order")
    parser.add_argument("--largest", type=float, default=60, help="the most parameters of a network, in millions")
    parser.add_argument("--output", type=Path, help="a JSON file of all results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = []
    for found in sweep(names(tuple(options.patterns)), tuple(options.sides), options.largest):
        results.append(found)
        if found["status"] != "no SE":
            print(" ".join(f"{key}={value}" for key, value in found.items()), flush=True)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1))
    kinds = [found["status"].partition(":")[0] for found in results]
    print(", ".join(f"{kind}: {kinds.count(kind)}" for kind in dict.fromkeys(kinds)))


if __name__ == "__main__":
    main()
