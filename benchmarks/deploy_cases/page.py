"""The section of docs/deploy.md with the results of `benchmarks/deploy.py`."""

from collections.abc import Iterator, Mapping
from typing import Any

from common import markdown, paragraph, spread

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
# How many times as fast as timm's se_resnet50 in eager mode, at least.
GOAL_TIMM = 1.15
_WHAT_IS_MET = paragraph(
    "Time relative to the plain network: median and quartiles. A goal is met if the median of the deployed network is "
    "not above it."
)
SIDES = ("plain", "original", "deployed", "timm's")


def sections(about: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """Return the parts of the page: hardware, the best engines, all engines, profiles, 8 bits, and failed cases."""
    measured = {case: result for case, result in results.items() if "sides" in result and not case.startswith("int8")}
    parts = [_hardware(about)]
    if about["smoke test"]:
        parts.append("A smoke test with a tiny network: the figures are no measurement.")
    if measured:
        found = list(measured.values())
        parts += ["#### The best engine of each network", _best(found), *_timm(found)]
        parts += ["#### All engines", _all(found), _slower(found)]
    profiles = [result for result in results.values() if "profile" in result]
    parts += [f"#### Time by operation: {name}\n\n{table}" for name, table in _profiles(profiles)]
    quantized = [result for case, result in results.items() if "sides" in result and case.startswith("int8")]
    if quantized:
        parts += ["#### 8 bits", _quantized(quantized)]
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
            met = "yes" if sides["deployed"]["to plain"]["median"] <= goal else "no"
            original, deployed = (spread(sides[side]["to plain"]) for side in ("original", "deployed"))
            rows.append([f"`{name}`", str(batch), best["engine"], original, f"{goal:.2f}", deployed, met])
    table = markdown(["network", "batch", "engine", "original", "goal", "deployed", "met"], rows)
    return f"{table}\n\n{_WHAT_IS_MET}"


def _timm(measured: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each batch size at which timm's network was measured."""
    for one in measured:
        found = one["sides"]["deployed"].get("to timm's")
        if found is not None:
            speed = 1 / found["median"]
            met = "met" if speed >= GOAL_TIMM else "missed"
            yield (
                f"Eager `se_resnet50`, deployed, batch {one['batch']}: {speed:.2f} times as fast as timm's "
                f"`seresnet50` (goal {GOAL_TIMM}: {met})."
            )


def _all(measured: list[dict[str, Any]]) -> str:
    rows = []
    for engine in ENGINES:
        found = [one for one in measured if one["engine"] == engine]
        for one in sorted(found, key=lambda one: (NETWORKS.index(one["network"]), one["batch"])):
            sides = one["sides"]
            milliseconds = [f"{1000 * sides[side]['seconds'][0]:.4g}" if side in sides else "-" for side in SIDES]
            cells = [spread(sides["original"]["to plain"]), spread(sides["deployed"]["to plain"])]
            cells.append(spread(sides["deployed"]["to itself"]))
            rows.append([f"`{one['network']}`", engine, str(one["batch"]), *milliseconds, *cells])
    header = ["network", "engine", "batch", *(f"{side}, ms" for side in SIDES)]
    return markdown([*header, "original / plain", "deployed / plain", "deployed / original"], rows)


def _slower(measured: list[dict[str, Any]]) -> str:
    """Return which deployed networks are slower than the original ones, by more than the spread."""
    found = [
        f"`{one['network']}` in {one['engine']}, batch {one['batch']}"
        for one in measured
        if one["sides"]["deployed"]["to itself"]["quartiles"][0] > 1
    ]
    what = ", ".join(found) if found else "none"
    return f"Deployed networks that are slower than the original (first quartile above 1): {what}."


def _profiles(profiles: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield name and table of each profile: milliseconds of a run with one image, by type of operation."""
    for one in profiles:
        plain, deployed = one["profile"]["plain"], one["profile"]["deployed"]
        kinds = sorted({*plain, *deployed}, key=lambda kind: plain.get(kind, 0) - deployed.get(kind, 0))
        rows = [
            [f"`{kind}`", *(f"{time:.2f}" for time in (a, b)), f"{b - a:+.2f}"]
            for kind in kinds
            if max(a := plain.get(kind, 0.0), b := deployed.get(kind, 0.0)) >= 0.005
        ]
        sums = sum(plain.values()), sum(deployed.values())
        rows.append(["sum", *(f"{time:.2f}" for time in sums), f"{sums[1] - sums[0]:+.2f}"])
        header = ["operation", "plain, ms", "deployed, ms", "difference"]
        yield f"`{one['network']}`, {one['engine']}, batch 1", markdown(header, rows)


def _quantized(measured: list[dict[str, Any]]) -> str:
    rows = []
    for one in measured:
        sides = one["sides"]
        milliseconds = [f"{1000 * side['seconds'][0]:.4g}" for side in sides.values()]
        cells = [spread(sides["deployed, int8"][what]) for what in ("to float32", "to plain")]
        rows.append([f"`{one['network']}`", one["engine"], str(one["batch"]), *milliseconds, *cells])
    header = ["network", "engine", "batch", "plain int8, ms", "deployed float32, ms", "deployed int8, ms"]
    return markdown([*header, "int8 / float32", "int8 / plain int8"], rows)
