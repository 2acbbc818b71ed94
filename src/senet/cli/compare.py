"""`senet compare`: plot the curves of several runs, with intervals over seeds."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, note, print_json, stdout, table
from senet.cli.common.outputs import check_file_option

if TYPE_CHECKING:
    from senet.tasks import Metric

__all__ = ["compare"]


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="DIR...", help="Output folders of `senet train`.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.png", help="The PNG file to write.")],
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Label arms by this key only: network, data, or a recipe key such as lr or "
            "network.reduction. Repeatable.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Plot the curves of several runs on the same axes.

    Runs that differ only in their seed form one arm: a line for the mean, a band for its 95 % interval.
    """
    from senet.runs.comparison import compare as compare_runs
    from senet.utils.figures import draw_comparison

    check_file_option("--output", output, suffixes=(".png",))
    arms = compare_runs(runs, by or [])
    task, panels = arms[0].task, arms[0].task.panels
    several = any(len(arm.runs) > 1 for arm in arms)
    curves = [(f"{arm.label}, {_seeds(arm)}", [arm.curve(p.validation.key) for p in panels]) for arm in arms]
    caption = "lines: means over seeds; bands: 95 % t intervals of the means; thin: single seeds" if several else ""
    validation = arms[0].runs[0].validation
    draw_comparison(curves, output, f"Validation on {validation}", panels, caption)
    if json:
        print_json({"output": output, "validation": validation, "arms": [_describe(arm) for arm in arms]})
    else:
        of = task.decisive
        heads = [f"{which} epoch, {of.head}" for which in ("last", "best")]
        columns = ["arm", "seeds", "epochs", "parameters", *heads, "s an epoch"]
        rows = [
            [a.label, len(a.runs), a.epochs, a.runs[0].parameters, *_values(a, of), f"{a.seconds:.3g}"] for a in arms
        ]
        table("", columns, rows)
        what = "± 95 % t interval of the mean over seeds; " if several else ""
        bias = "low" if of.better == "lower" else "high"
        stdout.print(f"\n{what}the best epoch is selected on the {of.noun} shown, which is therefore biased {bias}")
    for arm in arms:
        planned = arm.runs[0].all_epochs
        if arm.epochs < planned:
            short = min(arm.runs, key=lambda run: len(run.epochs))
            note(f"{arm.label}: {arm.epochs} of {planned} epochs, the number in {short.path}", style="yellow")
    note(f"drew {output}")


def _seeds(arm: Any) -> str:
    return "1 seed" if len(arm.runs) == 1 else f"{len(arm.runs)} seeds"


def _values(arm: Any, metric: "Metric") -> list[str]:
    """Return the metric of the last and of the best epoch, with their intervals."""
    found = [arm.last, arm.best]
    halves = ["" if one.half != one.half else f" ± {metric.number(one.half)}" for one in found]  # NaN: one seed
    return [metric.number(one.mean) + half for one, half in zip(found, halves, strict=True)]


def _describe(arm: Any) -> dict[str, Any]:
    return {
        "arm": arm.label,
        "runs": [str(run.path) for run in arm.runs],
        "seeds": [run.settings["seed"] for run in arm.runs],
        "epochs": arm.epochs,
        "parameters": arm.runs[0].parameters,
        "last_epoch": {arm.task.decisive.key: float(arm.last.mean), "interval": float(arm.last.half)},
        "best_epoch": {arm.task.decisive.key: float(arm.best.mean), "interval": float(arm.best.half)},
        "seconds_per_epoch": arm.seconds,
    }
