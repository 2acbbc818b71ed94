"""Write docs/models.md: every network of the catalogue, its cost, and the paper's figures.

python docs/generate_models.py
"""

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from senet.cli.common.paper_lines import short
from senet.costs.cost import Cost
from senet.costs.tables import PaperComparison, compare_with_paper, network_cost
from senet.models import CATALOGUE
from senet.paper import TITLES, entries, fitting
from senet.utils.choices import Placement

PAGE = Path(__file__).with_name("models.md")
ABLATIONS = ("10", "13", "16")

HEAD = """\
# Networks

Every network that `senet.create_model` knows by name, plain and with SE, counted by `senet.cost` on its own forward
pass. Multiply-adds (the paper's FLOPs) are those of convolutions, linear layers and matrix products, for one image. The
two layers of SE have biases, as in the authors' release.

```sh
senet models se_resnet50                          # by stage, alongside the plain twin and the paper's figures
senet models se_resnet50 --plot cost.png          # where SE's parameters sit
senet models se_resnet50 --set network.reduction=4 --set network.bias=false
senet models --paper                              # Tables 2, 3, 10, 13, 15 and 16 alongside counted figures
senet models 'timm/se*'                           # names of timm and torchvision, for patterns with a slash
```

```python
import torch, senet

with torch.device("meta"):  # takes no memory
    model = senet.create_model("senet154")
found = senet.cost(model, (3, 224, 224))
print(found.params, found.macs, found.se_params, found.se_macs, found.saved_bytes)
for block in found.blocks:
    print(block.name, block.stage, block.channels, block.resolution, block.plain.macs, block.se.params)
```

[Model cards](cards/imagenet.md) of the paper's networks have the errors, the commands that train them, and weights.

This page is written by `python docs/generate_models.py`, its pictures by `python docs/placements.py`.
"""

PLACEMENTS = """\
## Placements

SE in a bottleneck of ResNet-50, for each value of `placement=` (paper section 6.5 and Figure 5). In other networks,
see [where SE is inserted](insertion.md).

"""
# Where SE acts, and the row of the paper's table.
PLACES: dict[Placement, tuple[str, str]] = {
    "standard": ("the end of the branch, before the sum", "standard"),
    "pre": ("the input of the branch", "PRE"),
    "post": ("the output of the unit, after the sum and ReLU", "POST"),
    "identity": ("the end of the skip, before the sum", "Identity"),
    "conv3x3": ("after the 3x3 convolution and its batch norm", "SE_3x3"),
}


def page() -> str:
    parts = [HEAD]
    parts.append(PLACEMENTS + _pictures() + "\n" + _placements())
    for title, size in (("ImageNet", None), ("CIFAR", 32)):
        names = [name for name, row in CATALOGUE.items() if (row.size == 32) == (size == 32)]
        parts.append(f"## {title}\n\n{_networks(names)}")
    notes = dict.fromkeys(f"{entry.label}: {entry.note}." for entry in entries("2", "3") if entry.note)
    if notes:
        parts.append("Where the paper's figures do not match:\n\n" + "".join(_wrapped(f"- {note}") for note in notes))
    parts.append(
        "## The paper's ablations\n\n"
        "SE-ResNet-50 with FCs without bias. Errors are the paper's, top-1/top-5 in percent.\n"
    )
    parts += [f"### Table {number}: {TITLES[number]}\n\n{_ablation(number)}" for number in ABLATIONS]
    return "\n".join(parts)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def _pictures() -> str:
    """Return the pictures of all placements, each for light and for dark pages."""
    lines = []
    for name, (where, _) in PLACES.items():
        for suffix, theme in (("", "light"), ("-dark", "dark")):
            lines.append(f"![{name}: {where}](placements/{name}{suffix}.svg#gh-{theme}-mode-only)")
    return "\n".join(lines) + "\n"


def _placements() -> str:
    """Return the cost of each placement in SE-ResNet-50, and the paper's figures."""
    lines = {line.entry.label: line for line in compare_with_paper(entries("14", "15"))}
    header = ["`placement=`", "place of SE", "the paper's name", "parameters", "multiply-adds", "top-1/top-5 error %"]
    rows = []
    for name, (where, label) in PLACES.items():
        entry, cost = lines[label].entry, lines[label].cost
        assert cost is not None
        error = f"{entry.top1:.2f}/{entry.top5:.2f}"
        rows.append([f"`{name}`", where, label, f"{cost.params:,}", _macs(cost.macs), error])
    note = (
        "Parameters and multiply-adds are counted, of SE-ResNet-50 with r = 16 and FCs without bias. Errors are the "
        "paper's (Tables 14 and 15); without SE they are 23.30/6.55. The paper gives 25.8 M parameters for SE_3x3, "
        "which is the count with batch norm's running statistics, and 3.86 G multiply-adds."
    )
    return f"{_table(header, rows, text=3)}\n{_wrapped(note)}"


def _networks(names: Iterable[str]) -> str:
    """Return a table with two lines in each row, the plain network and the one with SE, which fits on the page.

    Columns of the paper's figures are left out where the paper has none.
    """
    header = ["plain, with SE", "image", "parameters", "more", "multiply-adds"]
    header += ["multiply-adds in the paper", "parameters in the paper"]
    rows = []
    for name in names:
        row = CATALOGUE[name]
        cost = network_cost(row.se_name)
        cells = [f"`{name}`<br>`{row.se_name}`", _by(cost), f"{cost.plain.params:,}<br>{cost.params:,}"]
        cells.append(f"{100 * cost.se.params / cost.plain.params:.1f} %")
        cells.append(f"{_macs(cost.plain.macs)}<br>{_macs(cost.macs)}")
        rows.append([*cells, *(_paper(name, row.se_name, what) for what in ("macs", "params"))])
    used = [index for index in range(len(header)) if any(row[index] for row in rows)]
    return _table([header[index] for index in used], [[row[index] for index in used] for row in rows], text=2)


def _paper(plain: str, with_se: str, what: str) -> str:
    """Return the paper's figures of a network without SE and with it."""
    figures = []
    for name in (plain, with_se):
        there = [entry for entry in fitting(name, {}, ("2", "3")) if getattr(entry, what) is not None]
        digit = getattr(there[0], f"{what}_digit") if there else 0
        figures.append(short(getattr(there[0], what), digit) if there else "-")
    return "" if figures == ["-", "-"] else "<br>".join(figures)


def _ablation(number: str) -> str:
    lines = list(compare_with_paper(entries(number)))
    with_macs = any(line.entry.macs for line in lines)
    header = ["", "options", "error", "parameters", "counted"]
    header += ["multiply-adds", "counted"] if with_macs else []
    rows = []
    for line in lines:
        entry = line.entry
        options = ", ".join(f"`{key}={value!r}`" for key, value in entry.options.items())
        cells = [entry.label, options or f"`{entry.network}`", f"{entry.top1:.2f}/{entry.top5:.2f}"]
        cells += ["" if entry.params is None else short(entry.params, entry.params_digit), _counted(line)]
        if with_macs:
            cells.append("" if entry.macs is None else short(entry.macs, entry.macs_digit))
            cells.append("" if line.cost is None else _macs(line.cost.macs))
        rows.append(cells)
    notes = dict.fromkeys(f"{line.entry.label}: {line.entry.note}." for line in lines if line.entry.note)
    return _table(header, rows, text=2) + "".join(f"\n{_wrapped(note)}" for note in notes)


def _wrapped(text: str) -> str:
    """Return a paragraph or an item of a list in lines of less than 120 characters."""
    indent = "  " if text.startswith("- ") else ""
    return fill(text, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) + "\n"


def _counted(line: PaperComparison) -> str:
    return "" if line.cost is None else f"{line.cost.params:,}"


def _by(cost: Cost) -> str:
    return "x".join(map(str, cost.input_size[1:]))


def _macs(count: int) -> str:
    return f"{count / 1e9:.3f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _table(header: list[str], rows: list[list[str]], text: int) -> str:
    rule = ["---" if index < text else "---:" for index in range(len(header))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [header, rule, *rows])


if __name__ == "__main__":
    main()
