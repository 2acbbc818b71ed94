"""The sites of a network, with their costs: as a table, and as data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import stdout, table
from senet.cli.common.inputs import parse_inputs
from senet.utils.choices import Placement

if TYPE_CHECKING:
    from senet.costs.site_costs import SiteCosts
    from senet.graph.operations import Trace

__all__ = [
    "AtOption",
    "PlacementOption",
    "SiteReport",
    "StagesOption",
    "as_data",
    "draw",
    "find",
    "parse_stages",
    "print_report",
]

PlacementOption = Annotated[
    Placement,
    typer.Option(
        help="Where SE acts in a residual unit: at the end of the branch (standard), its input (pre), the output of "
        "the unit (post), the skip (identity), or after the first spatial convolution (conv3x3)."
    ),
]
StagesOption = Annotated[
    str | None, typer.Option(help="Only these stages, such as 2,3. The first stage of blocks is 2.")
]
AtOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|GLOB",
        help="Only sites and units with this name, such as 'layer3.*'; or any other modules, on whose output SE then "
        "acts. Repeatable.",
    ),
]

_MOST_NAMES = 5


@dataclass(frozen=True)
class SiteReport:
    """The sites of a placement in a network.

    Attributes:
        placement: the placement.
        costs: of the sites.
        excluded: modules without a site, and the reasons, if the search ran the network.
        run: of the network on its example; None if it did not run.
        example: as given by `--input`; None without it.
    """

    placement: str
    costs: "SiteCosts"
    excluded: dict[str, str]
    run: "Trace | None"
    example: Any

    @property
    def sites(self) -> list[Any]:
        """The sites."""
        return [cost.site for cost in self.costs.sites]


def find(
    model: Any,
    placement: Any,
    *,
    stages: str | None = None,
    at: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    **options: Any,
) -> SiteReport:
    """Find the sites of a network, and count what SE costs there.

    Args:
        model: the network.
        placement: as for `senet.find_sites`.
        stages: of `--stages`.
        at: of `--at`.
        inputs: of `--input`.
        options: of SE, see `senet.costs.site_costs.cost_of_sites`.

    Raises:
        ValueError: an invalid option, or an error of `senet.find_sites`.
    """
    from senet.costs.site_costs import cost_of_sites, example_run
    from senet.insertion.sites import explain

    example = parse_inputs(inputs, model)
    found = explain(model, placement, stages=parse_stages(stages), at=at, example=example)
    excluded = {module.name: module.reason for module in found.excluded}
    run = example_run(model, example)
    return SiteReport(placement, cost_of_sites(model, found.sites, run, **options), excluded, run, example)


def parse_stages(text: str | None) -> set[int] | None:
    """Parse `--stages`; None if it is not given.

    Raises:
        ValueError: it is not a list of integers.
    """
    if text is None:
        return None
    try:
        return {int(part) for part in text.split(",")}
    except ValueError as error:
        raise ValueError(f"invalid --stages {text!r}: expected integers separated by commas, such as 2,3") from error


def as_data(report: SiteReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    costs = report.costs
    return {
        "placement": report.placement,
        "inputs": [list(shape) for shape in costs.inputs],
        "sites": [
            asdict(cost.site)
            | {
                "resolution": None if cost.resolution is None else list(cost.resolution),
                "hidden": cost.hidden,
                "parameters": cost.params,
                "macs": cost.macs,
            }
            for cost in costs.sites
        ],
        "parameters": costs.params,
        "macs": costs.macs,
        "se_parameters": costs.se_params,
        "se_macs": costs.se_macs,
        "excluded": [{"name": name, "reason": reason} for name, reason in report.excluded.items()],
    }


def print_report(report: SiteReport) -> None:
    """Print the sites as a table, and their sum."""
    costs = report.costs
    rows = [
        [
            cost.site.name,
            cost.site.rule,
            cost.site.how,
            "-" if cost.site.stage is None else cost.site.stage,
            cost.site.channels,
            "-" if cost.resolution is None else by(cost.resolution),
            cost.params,
            "-" if cost.macs is None else cost.macs,
        ]
        for cost in costs.sites
    ]
    columns = ["site", "found by", "attached", "stage", "channels", "resolution", "parameters", "multiply-adds"]
    table(f"{report.placement}: {len(rows)} {'site' if len(rows) == 1 else 'sites'}", columns, rows, text=3)
    stdout.print(f"\n{_sum(costs)}", soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for name, reason in report.excluded.items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        stdout.print()
        table(
            "No sites in", ["modules", "because"], [[_shortened(names), why] for why, names in reasons.items()], text=2
        )


def _shortened(names: Sequence[str]) -> str:
    """Return a list of names as text, without the middle of a long one."""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} more"


def draw(report: SiteReport, path: str, name: str) -> None:
    """Draw the network with its sites.

    Args:
        report: the sites.
        path: of the PNG.
        name: of the network, for the title.

    Raises:
        ValueError: the network did not run.
    """
    from senet.costs.site_figure import draw_sites

    costs = report.costs
    if report.run is None:
        raise ValueError("--plot runs the network, and it did not run on an image; give --input")
    title = f"{name}: {len(costs.sites)} sites, {report.placement}; SE adds {_shares(costs)}"
    draw_sites(report.run, costs, path, title)


def by(sizes: Sequence[int]) -> str:
    """Return sizes as text: 56x56."""
    return "x".join(map(str, sizes)) or "-"


def _sum(costs: "SiteCosts") -> str:
    """Return what all sites cost, and relative to the network."""
    text = f"SE adds {costs.se_params:,} parameters ({_percent(costs.se_params, costs.params)} of {costs.params:,})"
    if costs.se_macs is None:
        return f"{text}."
    if costs.macs is None:
        return f"{text} and {costs.se_macs:,} multiply-adds. --input shows the resolutions."
    share = _percent(costs.se_macs, costs.macs)
    inputs = ", ".join(map(by, costs.inputs))
    return f"{text} and {costs.se_macs:,} multiply-adds ({share} of {costs.macs:,}) on an input of {inputs}."


def _shares(costs: "SiteCosts") -> str:
    """Return what all sites cost relative to the network, for a title."""
    text = f"{_percent(costs.se_params, costs.params)} parameters"
    if costs.macs is None or costs.se_macs is None:
        return text
    return f"{text} and {_percent(costs.se_macs, costs.macs)} multiply-adds"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.2g} %"
