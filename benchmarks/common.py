"""What the scripts that compare networks share: sides, their ratios, and the section of a page that has the results."""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from senet.benchmark import Setting, measure, ratio
from senet.utils.files import atomic_path
from senet.utils.progress import Progress

END = "<!-- /measured -->"


@dataclass(frozen=True)
class Side:
    """A network of a case.

    Attributes:
        name: of the network.
        build: builds it.
        twin: the name of the side that it is compared with, in addition to the first.
        fused: how its batch norms are computed, see `senet.set_fused`; as chosen for the process unless given.
        also: the name of a second side that it is compared with, or "".
    """

    name: str
    build: Callable[[], nn.Module]
    twin: str
    fused: str | None = None
    also: str = ""


def compare(
    sides: Sequence[Side],
    setting: Setting,
    **options: Any,
) -> dict[str, Any]:
    """Measure all sides of a case, interleaved; with ratios of each to the first side and to its twin.

    Args:
        sides: the first is the base.
        setting: the same for all.
        options: of `senet.benchmark.measure`, such as rounds and progress.
    """
    named = [(side.name, side.build()) for side in sides]
    measured, times = measure(named, setting, fused=[side.fused for side in sides], **options)
    names = [side.name for side in sides]
    found = []
    for index, (side, one) in enumerate(zip(sides, measured, strict=True)):
        # Where its twin is not measured, it is compared with the first alone.
        others = {"base": names[0], "twin": side.twin, "also": side.also}
        below = {what: names.index(name) for what, name in others.items() if name in names}
        speeds = np.quantile(setting.batch / times.seconds[:, index], [0.25, 0.75]).tolist()
        entry: dict[str, Any] = asdict(one) | {"images_per_second_quartiles": speeds}
        for what, other in below.items():
            spread = ratio(times.seconds[:, index], times.seconds[:, other])
            plain = measured[other].saved_bytes
            saved = one.saved_bytes / plain if one.saved_bytes and plain else None
            entry[what] = asdict(spread) | {
                "conclusive": spread.conclusive,
                "saved": saved,
                "peak": one.peak_bytes / measured[other].peak_bytes,
                "name": names[other],
            }
        found.append(entry)
    return {
        "steps": times.steps,
        "warm_up": times.warm_up,
        "steady": times.steady,
        "rounds": len(times.seconds),
        "sides": found,
    }


def progress_lines(name: str) -> Progress:
    """A line every half a minute on standard error."""

    def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        last = time.monotonic()
        for done, step in enumerate(steps):
            if done == 0 or time.monotonic() - last > 30:
                print(f"{name}, {what}: {done} of {total}", file=sys.stderr)
                last = time.monotonic()
            yield step

    return progress


def cell(side: dict[str, Any], what: str) -> str:
    """A ratio of `compare` with its quartiles, for a table; with a `?` where it is inconclusive."""
    if what not in side or side[what]["name"] == side["name"]:
        return "1" if what == "base" else "-"
    return spread(side[what])


def spread(found: dict[str, Any]) -> str:
    """A median with its quartiles, for a table."""
    low, high = found["quartiles"]
    return f"{found['median']:.3f}{'' if found['conclusive'] else ' ?'} ({low:.3f} to {high:.3f})"


def markdown(header: list[str], rows: list[list[str]], *, right: bool = True) -> str:
    """A Markdown table; all columns but the first are aligned to the right, unless `right` is false."""
    lines = [header, ["---", *["---:" if right else "---"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paragraph(text: str) -> str:
    """Wrap a paragraph of a page."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def check_section(page: Path, begin: str) -> tuple[str, str]:
    """What a page has before a marker, and after the next `END`.

    Raises:
        ValueError: there is no such page, or it has no such section.
    """
    try:
        before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    except OSError as error:
        raise ValueError(f"{page} cannot be read ({error.strerror})") from error
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"{page} has no {begin} ... {END} to write between")
    return before, after


def write_section(page: Path, begin: str, parts: Sequence[str]) -> None:
    """Replace what a page has between a marker and the next `END`."""
    try:
        before, after = check_section(page, begin)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    write(page, f"{before}{begin}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")


def read_results(path: Path, about: dict[str, Any] | None) -> dict[str, Any]:
    """Results in JSON lines, by case; the case "about" has what they have in common. A cut last line is left out.

    Args:
        path: of the file.
        about: what new results will have in common; None takes any.

    Raises:
        ValueError: there is no file, or it has other content, or results of other options, versions or another machine.
    """
    found: dict[str, Any] = {}
    if not path.is_file():
        raise ValueError(f"no results at {path}")
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
            found[one.pop("case")] = one
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
    if "about" not in found:
        raise ValueError(f"{path} has no results of this script; give another --output")
    if about is not None:
        check_about(path, found["about"], about)
    return found


def check_about(path: Path, earlier: dict[str, Any], about: dict[str, Any]) -> None:
    """Check that new results have in common what earlier ones have.

    Args:
        path: of the file, for the message.
        earlier: "about" of the earlier results.
        about: that of the new ones.

    Raises:
        ValueError: they are of other options, versions or another machine.
    """
    now = json.loads(json.dumps(about))
    if earlier != now:
        raise ValueError(
            f"{path} has results of other options, versions or another machine ({_difference(earlier, now)}); "
            f"give another --output, or delete it"
        )


def _difference(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    """The first fact that differs."""
    before, after = (_facts(about) for about in (earlier, now))
    name = next(name for name in {**before, **after} if before.get(name) != after.get(name))
    return f"{name}: {before.get(name)} there, {after.get(name)} now"


def _facts(about: dict[str, Any]) -> dict[str, Any]:
    """What results have in common, with the facts in dictionaries as facts of their own."""
    inner = {name: fact for facts in about.values() if isinstance(facts, dict) for name, fact in facts.items()}
    return {name: fact for name, fact in about.items() if not isinstance(fact, dict)} | inner


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results for `read_results`: a line for each case, and for "about"."""
    write(path, "".join(json.dumps({"case": case} | result) + "\n" for case, result in results.items()))


def write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
