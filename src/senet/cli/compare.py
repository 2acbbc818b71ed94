"""`senet compare`: plot the curves of several runs, with intervals over seeds."""

from typing import Annotated, Any

import typer

from senet.cli.common.console import JsonOption, note, print_json, stdout, table
from senet.cli.common.outputs import check_file_option

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
    several = any(len(arm.runs) > 1 for arm in arms)
    curves = [(f"{arm.label}, {_seeds(arm)}", arm.curve("top1_error"), arm.curve("loss")) for arm in arms]
    caption = "lines: means over seeds; bands: 95 % t intervals of the means; thin: single seeds" if several else ""
    validation = arms[0].runs[0].validation
    draw_comparison(curves, output, f"Validation on {validation}", caption)
    if json:
        print_json({"output": output, "validation": validation, "arms": [_describe(arm) for arm in arms]})
    else:
        columns = ["arm", "seeds", "epochs", "parameters", "last epoch, error %", "best epoch, error %", "s an epoch"]
        rows = [
            [a.label, len(a.runs), a.epochs, a.runs[0].parameters, _text(a.last), _text(a.best), f"{a.seconds:.3g}"]
            for a in arms
        ]
        table("", columns, rows)
        what = "± 95 % t interval of the mean over seeds; " if several else ""
        stdout.print(f"\n{what}the best epoch is selected on the error shown, which is therefore biased low")
    for arm in arms:
        planned = arm.runs[0].settings["epochs"]
        if arm.epochs < planned:
            short = min(arm.runs, key=lambda run: len(run.epochs))
            note(f"{arm.label}: {arm.epochs} of {planned} epochs, the number in {short.path}", style="yellow")
    note(f"drew {output}")


def _seeds(arm: Any) -> str:
    return "1 seed" if len(arm.runs) == 1 else f"{len(arm.runs)} seeds"


def _text(found: Any) -> str:
    return f"{found.mean:.2f}" + ("" if found.half != found.half else f" ± {found.half:.2f}")  # NaN: one seed


def _describe(arm: Any) -> dict[str, Any]:
    return {
        "arm": arm.label,
        "runs": [str(run.path) for run in arm.runs],
        "seeds": [run.settings["seed"] for run in arm.runs],
        "epochs": arm.epochs,
        "parameters": arm.runs[0].parameters,
        "last_epoch": {"top1_error": float(arm.last.mean), "interval": float(arm.last.half)},
        "best_epoch": {"top1_error": float(arm.best.mean), "interval": float(arm.best.half)},
        "seconds_per_epoch": arm.seconds,
    }
