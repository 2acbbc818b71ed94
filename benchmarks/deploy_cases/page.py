"""The section of docs/deploy.md with the results of `benchmarks/deploy.py`."""

from collections.abc import Mapping
from typing import Any

from common import markdown, spread

from deploy_cases.cases import BATCHES, ENGINES, NETWORKS

__all__ = ["sections"]

# The goals of the project for the best engine, by network: batch 1 and 8.
GOALS = {
    "se_resnet50": (1.02, 1.01),
    "se_resnext50_32x4d": (1.03, 1.02),
    "senet154": (1.03, 1.02),
    "timm/efficientnet_b0": (1.08, 1.10),
    "timm/regnety_016": (1.05, 1.05),
    "timm/mobilenetv3_large_100": (1.10, 1.15),
}
COLUMNS = ("plain, deployed", "plain", "original", "deployed", "timm's, original")


def sections(about: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """Return the parts of the page: hardware, the best engines, all engines, and cases that failed."""
    measured = [result for case, result in results.items() if case != "about" and "sides" in result]
    parts = [_hardware(about)]
    if about["smoke test"]:
        parts.append("A smoke test with a tiny network: the figures are no measurement.")
    if measured:
        parts += ["#### The best engine of each network", _best(measured), "#### All engines", _all(measured)]
    failed = [f"- `{case}`: {result['failed']}" for case, result in results.items() if "failed" in result]
    return parts + (["#### Not measured", "\n".join(failed)] if failed else [])


def _hardware(about: Mapping[str, Any]) -> str:
    facts = about["hardware"]
    names = {
        "torch": "PyTorch",
        "onnxruntime": "ONNX Runtime",
        "openvino": "OpenVINO",
        "timm": "timm",
        "senet": "senet",
    }
    versions = ", ".join(f"{name} {facts[key]}" for key, name in names.items())
    return f"{facts['processor'] or facts['machine']} ({facts['capability']}), {about['threads']} threads;\n{versions}."


def _best(measured: list[dict[str, Any]]) -> str:
    """Return the table of the engines in which the deployed network takes the least time."""
    rows = []
    for name in NETWORKS:
        for number, batch in enumerate(BATCHES):
            found = [one for one in measured if (one["network"], one["batch"]) == (name, batch)]
            if not found:
                continue
            best = min(found, key=lambda one: one["sides"]["deployed"]["seconds"][0])
            sides, goal = best["sides"], GOALS[name][number]
            met = "met" if sides["deployed"]["to plain"]["median"] <= goal else "missed"
            cells = [spread(sides[side]["to plain"]) for side in ("original", "deployed")]
            rows.append([f"`{name}`", str(batch), best["engine"], *cells, f"{goal} {met}"])
    return markdown(["network", "batch", "engine", "original", "deployed", "goal"], rows)


def _all(measured: list[dict[str, Any]]) -> str:
    rows = []
    for engine in ENGINES:
        for one in (one for one in measured if one["engine"] == engine):
            sides = one["sides"]
            milliseconds = [f"{1000 * sides[side]['seconds'][0]:.4g}" if side in sides else "-" for side in COLUMNS]
            cells = [spread(sides["deployed"][what]) for what in ("to plain", "to itself")]
            rows.append([f"`{one['network']}`", engine, str(one["batch"]), *milliseconds, *cells])
    header = ["network", "engine", "batch", *(f"{column}, ms" for column in COLUMNS)]
    return markdown([*header, "deployed, to plain, deployed", "deployed, to original"], rows)
