"""Fuse the SE networks of timm, and compare a training step of each with that of the original, in float64.

Networks are described on the meta device, to find those with SE. Of those of one module of timm with the same kinds of
SE, the smallest is compared: with random weights, on 8 small images. It is equal if output and gradients differ by at
most 1e-9 of the largest, or by ten times what a change of each weight by one unit in its last place does. Results are
JSON lines, one for each network; networks that are in the file are not run again.

    python benchmarks/fuse_sweep.py --output fused.jsonl
    python benchmarks/fuse_sweep.py --output fused.jsonl --networks 'regnet*' --every
    python benchmarks/fuse_sweep.py --output fused.jsonl --write docs/fused.md --no-running

The exit status is 1 where a network differs.
"""

import argparse
import copy
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import timm
import torch
from common import check_section, markdown, paragraph, read_results, write, write_section
from sweep_cases.networks import build, describe
from torch import Tensor, nn

import senet
from senet.cli.common.console import progress
from senet.utils.errors import first_line

BEGIN = "<!-- measured: written by benchmarks/fuse_sweep.py -->"
# Largest relative difference in float64; and factor of what a unit in the last place of each weight changes.
TOLERANCE, ROUNDINGS = 1e-9, 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["*"], metavar="GLOB", help="of timm's names")
    parser.add_argument("--every", action="store_true", help="compare every architecture, not one of each group")
    parser.add_argument("--largest", type=float, default=60, help="the most parameters of a network, in millions")
    parser.add_argument("--output", type=Path, required=True, help="a file of JSON lines; results in it are kept")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="write the results into a page")
    parser.add_argument("--no-running", action="store_true", help="write from what --output has")
    args = parser.parse_args(arguments)
    about = {"timm": timm.__version__, "torch": torch.__version__, "senet": senet.__version__}
    results: dict[str, Any] = {"about": about}
    try:
        if args.output.is_file():
            results = read_results(args.output, about)
        if args.write:
            check_section(args.write, BEGIN)
    except ValueError as error:
        parser.error(str(error))
    names = [name for name in timm.list_models() if any(fnmatchcase(name, glob) for glob in args.networks)]
    if not names:
        parser.error(f"--networks {' '.join(args.networks)} matches no network of timm")
    if not args.no_running:
        _run(results, names, args)
    if args.write:
        write_section(args.write, BEGIN, sections(results))
    print(summary(results))
    return int(any(result.get("status") == "differs" for result in results.values()))


def _run(results: dict[str, Any], names: list[str], args: argparse.Namespace) -> None:
    """Describe networks and compare those that are chosen; results are added, and written after each."""
    warnings.filterwarnings("ignore")  # of networks about their own options
    senet.set_fused("aten")  # maps of any size
    write(args.output, "".join(_line(name, one) for name, one in results.items()))
    with args.output.open("a", encoding="utf-8") as file:

        def keep(name: str, found: dict[str, Any]) -> None:
            results[name] = results.get(name, {}) | found
            file.write(_line(name, results[name]))
            file.flush()

        for index in progress(range(len(names)), len(names), "find SE"):
            if names[index] not in results:
                keep(names[index], _caught(describe, names[index]))
        chosen = [name for name in _chosen(results, args.every) if name in names and "seconds" not in results[name]]
        chosen = [name for name in chosen if results[name]["millions"] <= args.largest]
        for index in progress(range(len(chosen)), len(chosen), "compare"):
            start = time.perf_counter()
            found = _caught(compare, chosen[index])
            keep(chosen[index], found | {"seconds": round(time.perf_counter() - start, 1)})


def compare(name: str) -> dict[str, Any]:
    """Fuse a network of timm with random weights, and compare a training step with that of the original.

    Returns:
        `status`: "equal", or "differs". `error` and `rounding`: relative differences of output and gradients, from the
        original to the fused network, and to itself with its weights changed by a unit in the last place. `fused`: the
        number of SE modules that are fused; `left`: the others by reason.
    """
    model, x = build(name)
    exact, x = model.double().train(), x.double()
    changed = copy.deepcopy(exact)
    with torch.no_grad():
        for tensor in changed.parameters():
            signs = torch.randint(0, 2, tensor.shape, dtype=tensor.dtype).mul_(2).sub_(1)
            tensor.mul_(1 + torch.finfo(tensor.dtype).eps * signs)
    fused = senet.fuse(copy.deepcopy(exact), example=x)
    expected = _step(exact, x)
    error, rounding = (_distance(_step(one, x), expected) for one in (fused, changed))
    report: Any = fused.fuse_report
    return {
        "status": "equal" if error <= max(TOLERANCE, ROUNDINGS * rounding) else "differs",
        "error": error,
        "rounding": rounding,
        "fused": len(report.fused),
        "left": dict(Counter(row.reason for row in report.left)),
    }


def summary(results: dict[str, Any]) -> str:
    """Return the numbers of networks and SE modules, and the reasons for which SE is left unchanged."""
    compared = {name: one for name, one in results.items() if "error" in one}
    fused = sum(one["fused"] for one in compared.values())
    left: Counter[str] = sum((Counter(one["left"]) for one in compared.values()), Counter())
    with_se = sum(bool(one.get("modules")) for one in results.values())
    lines = [f"{with_se} names of timm have SE; compared {len(compared)}: {_statuses(results)}"]
    lines.append(f"SE modules: {fused} fused, {sum(left.values())} left")
    lines += [f"{count:5d}  {reason}" for reason, count in left.most_common()]
    failed = {name: one["status"] for name, one in results.items() if one.get("status", "equal") != "equal"}
    return "\n".join([*lines, *(f"{name}: {status}" for name, status in failed.items())])


def sections(results: dict[str, Any]) -> list[str]:
    """Return the text and the tables of a page."""
    compared = {name: one for name, one in results.items() if "error" in one}
    with_se = sum(bool(one.get("modules")) for one in results.values())
    fused, left = (
        sum(one["fused"] for one in compared.values()),
        sum(sum(one["left"].values()) for one in compared.values()),
    )
    families = sorted({one["family"] for one in compared.values()})
    rows = []
    for family in families:
        ones = [one for one in compared.values() if one["family"] == family]
        reasons = sum((Counter(one["left"]) for one in ones), Counter[str]())
        why = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
        differs = sum(one["status"] == "differs" for one in ones)
        rows.append([f"`{family}`", str(len(ones)), str(sum(one["fused"] for one in ones)), str(differs), why or "-"])
    about = results["about"]
    return [
        paragraph(
            f"{with_se} names of timm {about['timm']} have SE. {len(compared)} networks were compared, the smallest of "
            f"each group: {_statuses(results)}. Of their SE modules {fused} are fused and {left} are left."
        ),
        markdown(
            ["module of timm", "networks", "SE fused", "networks that differ", "SE left, and why"], rows, right=False
        ),
    ]


def _statuses(results: dict[str, Any]) -> str:
    counts = Counter(one["status"].partition(":")[0] for one in results.values() if "seconds" in one)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def _chosen(results: dict[str, Any], every: bool) -> list[str]:
    """Return the names of the networks to compare, the smallest first: one of each architecture, or of each group."""
    found: dict[Any, str] = {}
    sizes = {name: one["millions"] for name, one in results.items() if one.get("modules")}
    for name in sorted(sizes, key=lambda name: float(sizes[name])):
        one = results[name]
        found.setdefault(one["digest"] if every else (one["family"], *one["kinds"]), name)
    return list(found.values())


def _step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output and the gradients of a training step."""
    torch.manual_seed(0)
    out = model(x)
    out = out if isinstance(out, Tensor) else out[0]
    out.square().mean().backward()
    return [out.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])]


def _distance(actual: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(actual, expected, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def _caught(do: Any, name: str) -> dict[str, Any]:
    try:
        return do(name)  # type: ignore[no-any-return]
    except Exception as error:  # the reason is the result
        return {"status": f"not compared: {type(error).__name__}: {first_line(error)}"}


def _line(name: str, found: dict[str, Any]) -> str:
    return json.dumps({"case": name} | found) + "\n"


if __name__ == "__main__":
    sys.exit(main())
