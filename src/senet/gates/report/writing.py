"""The page as a file: its text, styles and scripts, and a recording, in one piece that needs no network."""

import base64
import hashlib
import html
from importlib import resources
from os import PathLike
from typing import TYPE_CHECKING

from senet.gates.recording.record import Gates
from senet.gates.report.content import orders, pack_page
from senet.gates.report.levels import LEVELS
from senet.utils.errors import GatesError
from senet.utils.files import atomic_path

if TYPE_CHECKING:
    from senet.gates.diagnosis.diagnosis import Diagnosis

__all__ = ["write_page"]

_LIBRARY = ("d3.min.js", "plot.umd.min.js")
# In the order in which they need each other.
_SCRIPTS = (
    "data.js",
    "dom.js",
    "figure.js",
    "state.js",
    "overview.js",
    "block.js",
    "classes.js",
    "curves.js",
    "heat.js",
    "spread.js",
    "channel.js",
    "main.js",
)


def write_page(
    gates: Gates,
    diagnosis: "Diagnosis",
    path: str | PathLike[str],
    *,
    title: str | None = None,
    budget: int = 6_000_000,
) -> None:
    """Write a page that shows a network's gates: one file of HTML, which loads nothing from anywhere.

    Where all of the recording does not fit into the budget, some channels are kept in full and the rest in 8 bits, for
    fewer classes, and heat maps and histograms have fewer cells; the page says what it keeps.

    Args:
        gates: as recorded.
        diagnosis: of these.
        path: of the file.
        title: at the top; the network's name where it is None.
        budget: bytes that the file has at most.

    Raises:
        GatesError: nothing was recorded, the diagnosis is of other blocks, or not even the least fits into the budget.
        ValueError: there is no SciPy, which the heat maps need.
        OSError: the file cannot be written.
    """
    from senet.gates.diagnosis.diagnosis import VERDICTS

    if not gates.blocks or not gates.images:
        raise GatesError("the recording has no image, so there is nothing to show; record some data first")
    names, diagnosed = [block.name for block in gates.blocks], [block.name for block in diagnosis.blocks]
    if names != diagnosed:
        raise GatesError(
            f"the diagnosis is of {', '.join(diagnosed) or 'no block'}, the recording of {', '.join(names)}; "
            "diagnose this recording"
        )
    order = orders(gates)
    size = 0
    for level in LEVELS:
        if level is not LEVELS[-1] and level.hopeless(gates, budget):
            continue
        page = _page(title or f"Gates of {gates.network}", pack_page(gates, diagnosis, VERDICTS, level, order))
        data = page.encode()
        size = len(data)
        if size <= budget:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
            return
    raise GatesError(f"the page needs {size:,} bytes at least, the budget is {budget:,}; raise the budget")


def _page(title: str, data: str) -> str:
    folder = resources.files("senet.gates.report")
    asset = {
        name: folder.joinpath("assets", name).read_text("utf-8") for name in ("template.html", "page.css", *_SCRIPTS)
    }
    library = [folder.joinpath("vendor", name).read_text("utf-8") for name in _LIBRARY]
    # One scope of its own for all of them: nothing is left in the window but the library.
    own = '"use strict";(() => {\n' + "\n".join(asset[name] for name in _SCRIPTS) + "\n})();"
    scripts = [*library, own]
    parts = {
        "title": html.escape(title),
        "policy": html.escape(_policy(scripts)),
        "style": asset["page.css"],
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
        "data": data,
    }
    page = []
    # In one pass, so that no part is looked through for the mark of another.
    for index, piece in enumerate(asset["template.html"].split("%%")):
        page.append(parts[piece] if index % 2 else piece)
    return "".join(page)


def _policy(scripts: list[str]) -> str:
    """What the browser may do with the page: run these scripts and no other, and load nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
