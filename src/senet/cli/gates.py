"""`senet gates`: record what the gates of a network do, say what that means, and draw it."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.batches import (
    BatchOption,
    CropOption,
    DataOption,
    MeanOption,
    ResizeOption,
    SkipBadOption,
    StdOption,
    WorkersOption,
    open_batches,
)
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file
from senet.cli.common.outputs import check_folder_option

if TYPE_CHECKING:
    from senet.gates import BlockDiagnosis, Diagnosis, Gates, Thresholds

__all__ = ["gates"]

_MEANING = (
    "varies: deviation over images relative to the gates; eta squared: share of the variance\n"
    "that is between classes, of the middle channel; rank: effective, of the matrix of gates, images by channels"
)
RECORDING, PAGE, DIAGNOSIS = "gates.safetensors", "gates.html", "diagnosis.json"
_RECORDING_0_1 = "gates.npz"


def gates(
    file: FileArgument,
    data: DataOption,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")],
    worth: Annotated[
        bool, typer.Option("--worth/--no-worth", help="Measure what each block is worth, one replaced at a time.")
    ] = True,
    by: Annotated[str, typer.Option(metavar="mean|one", help="What replaces a block's gates for that.")] = "mean",
    confidence: Annotated[float, typer.Option(help="Of the intervals of what a block is worth.")] = 0.95,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A threshold of the verdicts, such as specific=0.6; diagnosis.json has all of them. Repeatable.",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Classes of figures 6 and 7; four of them unless given.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Channels of each block that figures 6 and 7 draw.")] = 50,
    sample: Annotated[int, typer.Option(help="Images whose gates are kept one by one.")] = 256,
    correlation: Annotated[bool, typer.Option("--correlation", help="Keep how channels vary together, too.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is sampled.")] = 0,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    resize: ResizeOption = None,
    crop: CropOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Names of the network's classes, one a line, in the order of its logits; its own unless given.",
        ),
    ] = None,
    batch: BatchOption = 128,
    workers: WorkersOption = 2,
    skip_bad: SkipBadOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the recording in DIR, or take it as it is if it is complete.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """See what the gates of a network do on a data set.

    DIR gets gates.html, a page to look at; gates.safetensors, the recording; diagnosis.json; and the paper's figures 6
    and 7 as PNG and PDF. SE modules of timm and torchvision are recorded as senet's own are.
    """
    from senet.gates import diagnose, draw_figure6, draw_figure7, load_gates, measure_worth, record_gates, write_page
    from senet.gates.diagnosis.ablation import REPLACEMENTS, check_interval
    from senet.gates.report.selection import sample_channels
    from senet.utils.errors import NonFiniteError, unknown_name
    from senet.utils.files import write_json
    from senet.utils.limits import MOST_CHANNELS, check_at_most

    check_folder_option("--output", output, inputs=(data,))
    if by not in REPLACEMENTS:  # before anything is recorded
        raise ValueError(unknown_name("replacement of gates", by, REPLACEMENTS))
    check_interval(1, confidence)
    check_at_most("channels", channels, MOST_CHANNELS)
    sample_channels(channels, channels)
    judged_by, shown = _thresholds(threshold or []), None if classes is None else classes.split(",")
    folder = Path(output)
    existing = next((path for name in (RECORDING, _RECORDING_0_1) if (path := folder / name).exists()), None)
    if existing is not None and not resume:
        raise ValueError(f"{existing} already exists; resume it with --resume, or choose another folder")
    model = open_file(file, network, set_, weights_entry)
    loader = open_batches(
        model,
        data,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        classes=class_names,
        batch=batch,
        workers=workers,
        skip_bad=skip_bad,
    )
    _check_classes(shown, loader.data.classes)
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
    found = []
    if worth:
        found = measure_worth(model, loader, recorded, by=by, confidence=confidence, seed=seed, progress=progress)
    diagnosis = diagnose(recorded, found, thresholds=judged_by)
    write_page(recorded, diagnosis, folder / PAGE, title=f"{Path(file).name} on {Path(loader.data.spec).name}")
    for number, draw in ((6, draw_figure6), (7, draw_figure7)):
        paths = [folder / f"figure{number}.{suffix}" for suffix in ("png", "pdf")]
        draw(recorded, paths, classes=shown, channels=channels, seed=seed)
    write_json(folder / DIAGNOSIS, diagnosis.to_json())
    if json:
        print_json(diagnosis.to_json())
    else:
        _show(recorded, diagnosis)
    if loader.skipped:
        note(f"left out {len(loader.skipped)} images that cannot be read", style="yellow")
    note(f"the page: {folder / PAGE}    the paper's figures: {folder / 'figure6.png'}, {folder / 'figure7.png'}")


def _thresholds(settings: list[str]) -> "Thresholds":
    """Thresholds with settings KEY=VALUE applied.

    Raises:
        ValueError: a setting that does not read so, an unknown key (the message names the nearest one), or a value that
            cannot be.
    """
    from senet.gates import Thresholds
    from senet.utils.errors import unknown_name

    known = [field.name for field in fields(Thresholds)]
    values: dict[str, float] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--threshold {setting!r} is to read KEY=VALUE, such as specific=0.6")
        if key not in known:
            raise ValueError(unknown_name("threshold", key, known))
        try:
            values[key] = float(text)
        except ValueError as error:
            raise ValueError(f"the threshold {key} must be a number, got {text!r}") from error
    return Thresholds(**values)  # type: ignore[arg-type]


def _check_classes(shown: list[str] | None, known: list[str]) -> None:
    """Before anything is recorded, whether there are such classes."""
    from senet.utils.errors import unknown_name

    for name in shown or []:
        if name not in known:
            raise ValueError(unknown_name("class in --classes", name, known))


def _show(recorded: "Gates", diagnosis: "Diagnosis") -> None:
    measured = any(block.worth for block in diagnosis.blocks)
    columns = ["block", "SE module", "verdict", "channels", "mean gate", "varies", "eta squared", "rank"]
    columns += ["worth, points of top-1", "at most"] if measured else []
    table("", columns, [_row(block, measured) for block in diagnosis.blocks], text=3)
    stdout.print(f"\n{recorded.images:,} images of {len(recorded.classes)} classes. {_MEANING}\n")
    for advice in diagnosis.advice:
        stdout.print(f"- {advice}", soft_wrap=True)
    stdout.print("What is behind the verdicts, and advice on each block, is on the page.")


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
        worth = block.worth[0].top1 if block.worth else None
        row.append("-" if worth is None else f"{worth.value:+.2f} ({worth.low:+.2f} to {worth.high:+.2f})")
        row.append("-" if worth is None else f"{block.worth[0].bound:+.2f}")
    return row


def _number(value: Any, how: str) -> str:
    return "-" if value is None else format(value, how)
