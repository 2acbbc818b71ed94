"""`senet gates`: record the gates of a network, diagnose them, and write a page and figures."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.image_options import DataOption, WorkersOption, open_batches, with_input_options
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file
from senet.cli.common.outputs import check_folder_option
from senet.utils.choices import Replacement

if TYPE_CHECKING:
    from senet.evaluation import InputOptions
    from senet.gates import BlockDiagnosis, Diagnosis, Gates, Thresholds

__all__ = ["gates"]

_MEANING = (
    "variation: standard deviation over images relative to the gates; eta squared: share of the variance\n"
    "between classes, median over channels; rank: effective rank of the gates, images by channels"
)
RECORDING, PAGE, DIAGNOSIS = "gates.safetensors", "gates.html", "diagnosis.json"
_RECORDING_0_1 = "gates.npz"  # of senet 0.1


@with_input_options(batch=128, classes="class_names")
def gates(
    file: FileArgument,
    data: DataOption,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The output folder.")],
    ablation: Annotated[
        bool,
        typer.Option(
            "--ablation/--no-ablation",
            help="Measure the change of error, or of AP, with the gates of one block constant at a time.",
        ),
    ] = True,
    by: Annotated[Replacement, typer.Option(help="The constants of the ablation: mean gates, or 1.")] = "mean",
    confidence: Annotated[float, typer.Option(help="Confidence of the ablation's intervals.")] = 0.95,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Set a threshold of the verdicts, such as specific=0.6; diagnosis.json lists all. Repeatable.",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Classes in figures 6 and 7. [default: four classes]")
    ] = None,
    channels: Annotated[int, typer.Option(help="Number of channels of each block in figures 6 and 7.")] = 50,
    sample: Annotated[int, typer.Option(help="Number of sampled images whose gates are stored one by one.")] = 256,
    correlation: Annotated[bool, typer.Option("--correlation", help="Record the correlation of channels.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    grad_cam: Annotated[
        bool, typer.Option("--grad-cam", help="Show Grad-CAM of a few images at each block on the page (needs captum).")
    ] = False,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    workers: WorkersOption = 2,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the recording in DIR; a complete recording is used unchanged.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Record and diagnose the gates of a network on a data set.

    Writes to DIR: gates.html, a page to explore; gates.safetensors, the recording; diagnosis.json; and the paper's
    figures 6 and 7 as PNG and PDF. SE modules of timm and torchvision are supported as well.
    """
    from senet.gates import ablate_blocks, diagnose, draw_figure6, draw_figure7, load_gates, record_gates, write_page
    from senet.gates.diagnosis.ablation import check_interval
    from senet.gates.recording.batches import label_sets
    from senet.gates.report.grad_cam import compute_grad_cam, import_grad_cam
    from senet.gates.report.selection import sample_channels
    from senet.utils.errors import NonFiniteError
    from senet.utils.files import write_json
    from senet.utils.limits import MOST_CHANNELS, check_at_most

    check_folder_option("--output", output, inputs=(data,))
    check_interval(1, confidence)
    check_at_most("channels", channels, MOST_CHANNELS)
    sample_channels(channels, channels)
    if grad_cam:
        import_grad_cam()
    thresholds, shown = _thresholds(threshold or []), None if classes is None else classes.split(",")
    folder = Path(output)
    existing = next((path for name in (RECORDING, _RECORDING_0_1) if (path := folder / name).exists()), None)
    if existing is not None and not resume:
        raise ValueError(f"{existing} already exists; resume it with --resume, or choose another folder")
    model = open_file(file, network, set_, weights_entry)
    loader = open_batches(model, data, inputs, workers)
    sets = label_sets(loader)
    _check_classes(shown, loader.data.classes if sets is None else sets.names)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if existing is not None and existing.name == _RECORDING_0_1:
        load_gates(existing).save(folder / RECORDING)
    try:
        recorded = record_gates(
            model,
            loader,
            sample=sample,
            correlation=correlation,
            seed=seed,
            output=folder / RECORDING,
            resume=resume,
            check_output=True,
            progress=progress,
        )
    except NonFiniteError:
        if new and not any(folder.iterdir()):
            folder.rmdir()
        raise
    ablations = []
    if ablation:
        ablations = ablate_blocks(model, loader, recorded, by=by, confidence=confidence, seed=seed, progress=progress)
    diagnosis = diagnose(recorded, ablations, thresholds=thresholds)
    cam = compute_grad_cam(model, loader, recorded, classes=shown, progress=progress) if grad_cam else None
    title = f"{recorded.network} on {Path(loader.data.spec).name}"
    write_page(recorded, diagnosis, folder / PAGE, title=title, grad_cam=cam)
    for number, draw in ((6, draw_figure6), (7, draw_figure7)):
        paths = [folder / f"figure{number}.{suffix}" for suffix in ("png", "pdf")]
        draw(recorded, paths, classes=shown, channels=channels, seed=seed)
    write_json(folder / DIAGNOSIS, diagnosis.to_json())
    if json:
        print_json(diagnosis.to_json())
    else:
        _show(recorded, diagnosis)
    if loader.skipped:
        note(f"skipped {len(loader.skipped)} unreadable images", style="yellow")
    note(f"page: {folder / PAGE}    figures: {folder / 'figure6.png'}, {folder / 'figure7.png'}")


def _thresholds(settings: list[str]) -> "Thresholds":
    """Return the thresholds with settings KEY=VALUE applied.

    Raises:
        ValueError: a setting without "=", an unknown key (the message names the closest one), or an invalid value.
    """
    from senet.gates import Thresholds
    from senet.utils.errors import unknown_name

    known = [field.name for field in fields(Thresholds)]
    values: dict[str, float] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"invalid --threshold {setting!r}: expected KEY=VALUE, such as specific=0.6")
        if key not in known:
            raise ValueError(unknown_name("threshold", key, known))
        try:
            values[key] = float(text)
        except ValueError as error:
            raise ValueError(f"the threshold {key} must be a number, got {text!r}") from error
    return Thresholds(**values)  # type: ignore[arg-type]


def _check_classes(shown: list[str] | None, known: list[str]) -> None:
    """Check the names of classes before recording starts."""
    from senet.utils.errors import unknown_name

    for name in shown or []:
        if name not in known:
            raise ValueError(unknown_name("class in --classes", name, known))


def _show(recorded: "Gates", diagnosis: "Diagnosis") -> None:
    measured = any(block.ablations for block in diagnosis.blocks)
    columns = ["block", "SE module", "verdict", "channels", "mean gate", "variation", "eta squared", "rank"]
    points = next((one.judged.points for block in diagnosis.blocks for one in block.ablations), "")
    columns += [f"ablation, points of {points.removesuffix(' error')}", "at most"] if measured else []
    table("", columns, [_row(block, measured) for block in diagnosis.blocks], text=3)
    stdout.print(f"\n{recorded.images:,} images of {len(recorded.classes)} classes. {_MEANING}\n")
    for advice in diagnosis.advice:
        stdout.print(f"- {advice}", soft_wrap=True)
    stdout.print("The page shows the reasons of the verdicts and advice on each block.")


def _row(block: "BlockDiagnosis", measured: bool) -> list[object]:
    figures = block.figures
    row: list[object] = [block.label, block.name, ", ".join(block.verdicts), figures["channels"]]
    row += [
        _number(figures["mean"], ".3f"),
        _number(figures["variation"], ".1%"),
        _number(figures["eta_squared_median"], ".2f"),
        _number(figures["rank"], ".1f"),
    ]
    if measured:
        top1 = block.ablations[0].top1 if block.ablations else None
        row.append("-" if top1 is None else f"{top1.value:+.2f} ({top1.low:+.2f} to {top1.high:+.2f})")
        row.append("-" if top1 is None else f"{block.ablations[0].bound:+.2f}")
    return row


def _number(value: Any, spec: str) -> str:
    return "-" if value is None else format(value, spec)
