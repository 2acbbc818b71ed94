"""The charts of docs/performance.md and docs/fine-tuning.md, drawn from the tables of the pages."""

from pathlib import Path

from measured_tables import Ratio, headings, read_ratios
from ratio_chart import Panel, draw_ratios

__all__ = ["draw_cpu", "draw_fine_tuning", "draw_gpu"]

_KINDS = ("train, eager", "train, compiled", "evaluation, eager")
_GPU_TABLE = "Training step: time, to the plain twin"
_GPU_NETWORKS = (
    "se_resnet50",
    "timm/resnet50 + senet.insert",
    "timm/seresnet50",
    "resnet50, units fused",
    "resnet50, SE by addcmul (NVIDIA)",
)


def draw_cpu(page: Path, folder: Path | None = None) -> None:
    """Draw what `benchmarks/training.py` wrote: a panel for each network and size."""
    panels = []
    for heading in headings(page):
        rows = read_ratios(page, heading)
        chosen = [(name, _columns(ratios, _KINDS)) for name, ratios in rows.items()]
        shown = [(name, ratios) for name, ratios in chosen if any(ratio != Ratio(1, 1, 1) for ratio in ratios.values())]
        if shown and next(iter(rows)).rpartition("/")[2] == heading.partition(",")[0]:
            panels.append(Panel(f"{heading}; 1 is {next(iter(rows))}", shown))
    draw_ratios(panels, _chart(page, folder), "time of a step, relative; lines: quartiles over rounds")


def draw_gpu(page: Path, folder: Path | None = None) -> None:
    """Draw what `benchmarks/gpu.py` wrote: a row for each precision or mode, and batch; nothing without its table."""
    if _GPU_TABLE not in headings(page):  # no training steps were measured, and the page shows no chart
        return
    table = read_ratios(page, _GPU_TABLE)
    cases = dict.fromkeys(case for ratios in table.values() for case in ratios)
    rows = [
        (case, {name: table[name][case] for name in _GPU_NETWORKS if case in table.get(name, {})}) for case in cases
    ]
    panel = Panel("ResNet-50, 224x224: precision or mode, and batch", [row for row in rows if row[1]])
    if panel.rows:  # a smoke test has other networks
        label = "time of a training step, relative to the plain network; lines: quartiles"
        draw_ratios([panel], _chart(page, folder, "-gpu"), label)


def draw_fine_tuning(page: Path, folder: Path | None = None) -> None:
    """Draw what `benchmarks/finetune.py` wrote: the difference of each arm from the plain network."""
    panels = []
    for heading in headings(page):
        rows = read_ratios(page, heading)
        chosen = [
            (name, {"without SE" if name.startswith("plain") else "with SE": ratios["difference"]})
            for name, ratios in rows.items()
            if "difference" in ratios
        ]
        if chosen:
            panels.append(Panel(heading.replace("`", ""), chosen))
    label = "difference of the validation error from the plain network (points), 95 % intervals over seeds"
    if panels:
        draw_ratios(panels, _chart(page, folder), label, at=0)


def _chart(page: Path, folder: Path | None, suffix: str = "") -> Path:
    """Return the path of a chart: next to its page unless a folder is given."""
    return (folder or page.parent) / f"{page.stem}{suffix}.png"


def _columns(ratios: dict[str, Ratio], columns: tuple[str, ...]) -> dict[str, Ratio]:
    return {column: ratios[column] for column in columns if column in ratios}
