"""`senet fold`: fold gates that are nearly constant into adjacent layers, within a budget of error."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.image_options import DataOption, WorkersOption, open_batches, with_input_options
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file
from senet.cli.common.outputs import MODEL, check_file_option

if TYPE_CHECKING:
    from senet.evaluation import InputOptions
    from senet.gates.folding.fold_plan import FoldPlan, FoldStep

__all__ = ["fold"]


@with_input_options(batch=128)
def fold(
    file: FileArgument,
    data: DataOption,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="The model file to write, usually .safetensors."),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(help="Budget in percentage points of error or AP, for the upper bound of the measured change."),
    ] = 0.2,
    confidence: Annotated[float, typer.Option(help="Confidence of the one-sided upper bound.")] = 0.95,
    gates: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A recording of senet gates whose means are folded. [default: record now]"),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only consider these SE modules, by name or glob pattern.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan without writing a file.")] = False,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency/--no-latency",
            help="Measure the latency before and after, interleaved. Of a detector, the backbone is measured.",
        ),
    ] = True,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    workers: WorkersOption = 2,
    json: JsonOption = False,
) -> None:
    """Replace gates by their means where the error, or AP, hardly changes, and fold them into adjacent layers.

    Blocks are removed one by one, lowest upper bound first, and the others are measured again after each. OUT is a
    normal model file. If no block can be folded, it holds the unchanged network.
    """
    from senet.gates import fold_gates, load_gates, plan_fold, record_gates
    from senet.gates.folding.greedy_selection import check_budget
    from senet.gates.recording.provenance import digest_of_weights
    from senet.graph.se_modules import find_se
    from senet.model_file import save
    from senet.tasks import task_of
    from senet.utils.errors import GatesError

    if output is None and not dry_run:
        raise ValueError("missing -o OUT, the model file to write; or use --dry-run to see the plan only")
    check_file_option("--output", output, not_suffixes=MODEL, inputs=(file, gates))
    check_budget(max_drop, confidence)
    model = open_file(file, network, set_, weights_entry)
    if blocks is not None:
        _matching(blocks, [unit.name for unit in find_se(model)])  # before recording starts
    loader = open_batches(model, data, inputs, workers)
    if gates is not None:
        recorded = load_gates(gates)
        if recorded.state.get("identity", {}).get("weights") != digest_of_weights(model):
            raise GatesError(f"{gates} was recorded with other weights than those of {file}; record this network")
    else:
        recorded = record_gates(model, loader, sample=0, thumbnail=None, progress=progress)
    candidates = None if blocks is None else _matching(blocks, [block.name for block in recorded.blocks])
    plan = plan_fold(
        model, loader, recorded, max_drop=max_drop, confidence=confidence, blocks=candidates, progress=progress
    )
    answer: dict[str, Any] = plan.as_dict() | {"output": None if dry_run else output}
    folded = fold_gates(model, recorded, blocks=plan.blocks) if plan.steps else model
    # Without a folded block, the plan has the error already.
    task = task_of(model)
    after = plan.error
    if plan.steps:
        after = task.values(task.evaluate(folded, loader, progress=progress))[task.judged[0].key]
    if not dry_run:
        save(folded, str(output))
    answer["error_after"] = after
    ratio = None
    if latency and plan.steps:
        # The time of a detector's head depends on the boxes that it finds.
        ratio = _latency(task.trunk(folded), task.trunk(model))
        answer["latency"] = ratio
    if json:
        print_json(answer)
    else:
        _show(plan, after, ratio)
    if loader.skipped:
        note(f"skipped {len(loader.skipped)} unreadable images", style="yellow")
    if not dry_run:
        note(f"wrote {output}" if plan.steps else f"wrote {output}: the unchanged network")


def _matching(patterns: str, names: list[str]) -> list[str]:
    """Return the SE modules that match patterns, in the network's order.

    Raises:
        ValueError: a pattern matches none; the message names the closest one.
    """
    from fnmatch import fnmatchcase

    from senet.utils.errors import unknown_name

    selected = set()
    for pattern in patterns.split(","):
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(unknown_name("SE module in --blocks", pattern, names))
        selected |= matching
    return [name for name in names if name in selected]


def _latency(folded: Any, model: Any) -> dict[str, Any]:
    """Measure the latency of one image after folding, relative to before."""
    import senet

    found = senet.bench(folded, model, mode="infer", batch=1, seconds=10, progress=progress)
    return {
        "ratio": found.ratio,
        "interval": list(found.interval),
        "milliseconds": [1000 * side.seconds for side in (found.against, found.model)],
        "conclusive": found.conclusive,
    }


def _show(plan: "FoldPlan", error: float, ratio: dict[str, Any] | None) -> None:
    rows: list[list[object]] = []
    params, macs = plan.params, plan.macs
    for step in plan.steps:
        change = step.error
        rows.append(
            [
                step.label,
                step.name,
                _outcome(step),
                f"{change.value:+.2f}",
                f"{change.high:+.2f}",
                step.params,
                step.macs,
            ]
        )
    for kept in plan.kept:
        change_of = ["-", "-"] if kept.error is None else [f"{kept.error.value:+.2f}", f"{kept.error.high:+.2f}"]
        rows.append([kept.label, kept.name, kept.reason, *change_of, "", ""])
    columns = [
        "block",
        "SE module",
        "result",
        f"{plan.judged.points if plan.better == 'higher' else 'error'}, points",
        "at most",
        "parameters saved",
        "multiply-adds saved",
    ]
    table("", columns, rows, text=3)
    stdout.print(f"\n{plan.summary}", soft_wrap=True)
    result: list[list[object]] = [
        [f"{plan.metric} %", f"{plan.error:.2f}", f"{error:.2f}", f"{error - plan.error:+.2f}"],
        ["parameters", params, params - plan.saved_params, _percent(plan.saved_params, params)],
        ["multiply-adds", macs, macs - plan.saved_macs, _percent(plan.saved_macs, macs)],
    ]
    if ratio is not None:
        before, after = ratio["milliseconds"]
        low, high = ratio["interval"]
        spread = f"x {ratio['ratio']:.3f} ({low:.3f} to {high:.3f})"
        result.append(["ms an image, batch 1", f"{before:.3g}", f"{after:.3g}", spread])
    stdout.print()
    table("", ["", "before", "after", "change"], result)
    if plan.steps:
        what = plan.metric if plan.better == "higher" else "errors"
        stdout.print(
            f"\n{what} on the same {plan.images:,} images that selected the blocks; 'at most' is the upper bound at "
            f"{plan.confidence:.0%} confidence",
            soft_wrap=True,
        )


def _outcome(step: "FoldStep") -> str:
    """Describe a folded block, and why it needed no bound."""
    if step.certain:
        return "folded, constant by its weights"
    return "folded, the same for every image" if step.unchanged else "folded"


def _percent(saved: int, whole: int) -> str:
    return f"-{100 * saved / whole:.2g} %" if saved else "0 %"
