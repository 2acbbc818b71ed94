"""A report's table as text, the same in the terminal, in Markdown and in HTML; and where its pictures' axes end."""

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "difference_to",
    "heading",
    "is_cut",
    "limits",
    "measured_on",
    "plain_markdown",
    "report_rows",
    "short_paths",
]


def heading(data: Mapping[str, Any]) -> str:
    """What a report is of, in a line.

    Args:
        data: of `senet.study.report.report_data.as_data`.
    """
    title = data["title"][:1].upper() + data["title"][1:]
    networks = list(dict.fromkeys(arm["network"] for arm in data["arms"]))
    return f"{title}: {' and '.join(networks)}" if len(networks) < 3 else f"{title}: {len(networks)} networks"


def difference_to(data: Mapping[str, Any]) -> str:
    """What differences are to, for the head of a column."""
    if not data["baseline"]:
        return "difference (no arm has a baseline)"
    labels = {"twins": "its plain twin"} | {arm["name"]: str(arm["label"]) for arm in data["arms"]}
    return f"difference to {labels.get(data['baseline'], data['baseline'])}"


def measured_on(data: Mapping[str, Any]) -> str:
    """Data, recipe, epochs and seeds, in a line."""
    epochs = " or ".join(map(str, data["epochs"]))
    unit = "epoch" if data["epochs"] == [1] else "epochs"
    what = data["data_set"] or data["data"]
    settings = f" with {', '.join(data['settings'])}" if data["settings"] else ""
    return (
        f"{what}: {data['training_images']:,} training and {data['validation_images']:,} validation images; "
        f"{epochs} {unit} of the recipe {data['recipe']}{settings}; {data['runs']} of {data['planned']} runs complete, "
        f"{len(data['seeds'])} {'seed' if len(data['seeds']) == 1 else 'seeds'} planned"
    )


def plain_markdown(text: str) -> str:
    """Text in one line that Markdown takes for nothing else, in a table as well."""
    text = re.sub(r"([\\`*_{}\[\]|#])", r"\\\1", " ".join(text.split()))
    # Not every Markdown knows a backslash before these.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short_paths(text: str) -> str:
    """Text with the last two parts of each absolute path: where data lie on a machine is nothing for a report."""
    return re.sub(r"(?<![\w.~])/(?:[^\s/:'\"]+/)+(?=[^\s/:'\"]+/[^\s/:'\"]+)", "…/", text)


def report_rows(data: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row for each arm; columns that no arm has anything for are left out, but for the first three."""
    makers: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "arm": lambda arm: arm["label"],
        "seeds": lambda arm: str(len(arm["seeds"])),
        "error %": lambda arm: _with_half(arm["mean"], arm["half"], ""),
        "difference": lambda arm: "no baseline" if arm["without_baseline"] else _difference(arm),
        "p (Holm)": lambda arm: _p((arm["difference"] or {}).get("p")),
        "p (Wilcoxon)": lambda arm: _p((arm["difference"] or {}).get("wilcoxon_p")),
        "paper's error %": lambda arm: _paper(arm, "top1_error", ".2f"),
        "paper's difference": lambda arm: _paper(arm, "difference", "+.2f") if arm["baseline"] else "",
        "same side": lambda arm: {None: "", True: "yes", False: "no"}[(arm["paper"] or {}).get("same_sign")],
        "parameters": lambda arm: "" if arm["parameters"] is None else f"{arm['parameters']:,}",
        "multiply-adds": lambda arm: "" if arm["macs"] is None else _macs(arm["macs"]),
        "s an epoch": lambda arm: "" if arm["seconds_per_epoch"] is None else f"{arm['seconds_per_epoch']:.3g}",
        "": lambda arm: arm["verdict"],
    }
    made = {name: [make(arm) for arm in data["arms"]] for name, make in makers.items()}
    kept = [name for index, name in enumerate(made) if index < 3 or any(made[name])]
    return kept, [[made[name][index] for name in kept] for index in range(len(data["arms"]))]


def limits(data: Mapping[str, Any], what: str) -> tuple[float, float]:
    """Where the axis of "errors" or "differences" ends.

    Points are all within. An interval of two seeds is so wide that beside it nothing could be told apart: intervals
    stretch the axis to three times the range of the points at most, and are cut off there.
    """
    points, ends = [0.0] if what == "differences" else [], []
    for arm in data["arms"]:
        found = arm["difference"] if what == "differences" else {**arm, "values": arm["errors"]}
        if found:
            points += found["values"]
            if found["half"] is not None:
                ends += [found["mean"] - found["half"], found["mean"] + found["half"]]
        if what == "differences" and arm["baseline"] and arm["paper"] and arm["paper"]["difference"] is not None:
            points.append(arm["paper"]["difference"])
    low, high = min(points, default=0.0), max(points, default=1.0)
    span = high - low or abs(high) * 0.1 or 1.0
    low, high = max(low - span, min([low, *ends])), min(high + span, max([high, *ends]))
    margin = 0.06 * (high - low) or 0.5 * span
    return low - margin, high + margin


def is_cut(data: Mapping[str, Any]) -> bool:
    """Whether an interval goes on beyond its axis, see `limits`."""
    for what in ("errors", "differences"):
        low, high = limits(data, what)
        shown = [arm["difference"] if what == "differences" else arm for arm in data["arms"]]
        intervals = [(one["mean"], one["half"]) for one in shown if one and one["half"] is not None]
        if any(mean - half < low or mean + half > high for mean, half in intervals):
            return True
    return False


def _with_half(mean: float | None, half: float | None, sign: str) -> str:
    if mean is None:
        return ""
    return f"{mean:{sign}.2f}" + ("" if half is None else f" ± {half:.2f}")


def _difference(arm: Mapping[str, Any]) -> str:
    found = arm["difference"]
    return "" if found is None else _with_half(found["mean"], found["half"], "+")


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _paper(arm: Mapping[str, Any], key: str, digits: str) -> str:
    value = (arm["paper"] or {}).get(key)
    return "" if value is None else f"{value:{digits}}"


def _macs(count: int) -> str:
    return f"{count / 1e9:.3f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"
