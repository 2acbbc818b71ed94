"""Write the page of a recording: one HTML file with styles, scripts and data."""

import base64
import hashlib
from importlib import resources
from os import PathLike

from senet.gates.diagnosis.diagnosis import VERDICTS, Diagnosis
from senet.gates.recording.record import Gates
from senet.gates.report.detail_levels import DETAIL_LEVELS
from senet.gates.report.grad_cam import GradCam
from senet.gates.report.page_data import heat_map_orders, pack_page
from senet.utils.errors import GatesError
from senet.utils.files import atomic_path
from senet.utils.templates import render

__all__ = ["write_page"]

_LIBRARY = ("d3.min.js", "plot.umd.min.js")
# In the order of their dependencies.
_SCRIPTS = (
    "data.js",
    "dom.js",
    "figure.js",
    "state.js",
    "overview.js",
    "cam.js",
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
    diagnosis: Diagnosis,
    path: str | PathLike[str],
    *,
    title: str | None = None,
    budget: int = 6_000_000,
    grad_cam: GradCam | None = None,
) -> None:
    """Write a page about a network's gates: one HTML file that loads nothing from the network.

    If the recording does not fit into the budget, the page stores some channels in full and the others in 8 bits for
    fewer classes, and heat maps and histograms have fewer cells. The page states what it stores.

    Args:
        gates: the recording.
        diagnosis: the diagnosis of the recording.
        path: the file.
        title: the heading; by default the name of the network.
        budget: the maximum size of the file in bytes.
        grad_cam: heat maps of a few images at each block, see `compute_grad_cam`; None for none.

    Raises:
        GatesError: nothing was recorded, the diagnosis has other blocks, or the smallest page exceeds the budget.
        ValueError: SciPy is missing, which the heat maps need.
        OSError: the file cannot be written.

    Examples:
        >>> from senet.gates import diagnose, write_page
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> write_page(gates, diagnose(gates), "gates.html")
    """
    if not gates.blocks or not gates.images:
        raise GatesError("the recording has no images; record some data first")
    names, diagnosed = [block.name for block in gates.blocks], [block.name for block in diagnosis.blocks]
    if names != diagnosed:
        raise GatesError(
            f"the diagnosis has the blocks {', '.join(diagnosed) or '(none)'}, the recording {', '.join(names)}; "
            f"diagnose this recording"
        )
    orders = heat_map_orders(gates)
    size = 0
    for level in DETAIL_LEVELS:
        if level is not DETAIL_LEVELS[-1] and level.exceeds(gates, budget):
            continue
        page = _render(
            title or f"Gates of {gates.network}", pack_page(gates, diagnosis, VERDICTS, level, orders, grad_cam)
        )
        data = page.encode()
        size = len(data)
        if size <= budget:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
            return
    raise GatesError(f"the page needs at least {size:,} bytes, but the budget is {budget:,}; raise the budget")


def _render(title: str, data: str) -> str:
    folder = resources.files("senet.gates.report")
    library = [folder.joinpath("vendor", name).read_text("utf-8") for name in _LIBRARY]
    modules = [folder.joinpath("assets", name).read_text("utf-8") for name in _SCRIPTS]
    # One function scope for all modules: only the libraries define globals.
    scripts = [*library, '"use strict";(() => {\n' + "\n".join(modules) + "\n})();"]
    style = folder.joinpath("assets", "page.css").read_text("utf-8")
    values = {"title": title, "policy": _policy(scripts), "style": style, "scripts": scripts, "data": data}
    return render("senet.gates.report", "page.html.jinja", **values)


def _policy(scripts: list[str]) -> str:
    """Return a Content-Security-Policy that allows these scripts only, and no requests."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
