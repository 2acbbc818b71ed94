"""Write docs/cards/: a model card for every network of the paper, plain and with SE.

python docs/generate_cards.py

Costs are counted, errors are the paper's (`senet.paper`), commands are those of `senet paper`, and pretrained weights
are those that the installed timm, torchvision and pytorchcv list.
"""

from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from senet.costs.tables import network_cost
from senet.models import CATALOGUE, BNInceptionSpec, LibrarySpec, ResNetSpec, ShakeShakeSpec, ShuffleNetSpec
from senet.models.table import Network
from senet.paper import TITLES, Entry, entries
from senet.study.reproduction.commands import commands_of

FOLDER = Path(__file__).with_name("cards")
# Names of the same networks in other libraries. tests/documentation/test_cards.py loads each of them.
TIMM = {
    "resnet50": ("resnet50",),
    "resnet101": ("resnet101",),
    "resnet152": ("resnet152",),
    "resnext50_32x4d": ("resnext50_32x4d",),
    "resnext101_32x4d": ("resnext101_32x4d",),
    "se_resnet50": ("seresnet50", "legacy_seresnet50"),
    "se_resnet101": ("seresnet101", "legacy_seresnet101"),
    "se_resnet152": ("seresnet152", "legacy_seresnet152"),
    "se_resnext50_32x4d": ("seresnext50_32x4d", "legacy_seresnext50_32x4d"),
    "se_resnext101_32x4d": ("seresnext101_32x4d", "legacy_seresnext101_32x4d"),
    "senet154": ("senet154", "legacy_senet154"),
    "vgg16": ("vgg16_bn",),
    "inception_resnet_v2": ("inception_resnet_v2",),
    "mobilenet": ("mobilenetv1_100",),
}
TORCHVISION = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "resnext50_32x4d": "resnext50_32x4d",
}
PYTORCHCV = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x4d": "resnext101_32x4d",
    "preresnet110": "preresnet110_cifar10",
    "preresnet164": "preresnet164bn_cifar10",
    "se_resnet50": "seresnet50",
    "se_resnet101": "seresnet101",
    "se_resnet152": "seresnet152",
    "se_resnext50_32x4d": "seresnext50_32x4d",
    "se_resnext101_32x4d": "seresnext101_32x4d",
    "senet154": "senet154",
}
# Tables of trained networks; the ablations vary one of them.
_TABLES = ("2", "3", "4", "5", "6", "7", "8", "9", "release", "schedule")
_OTHER = {"release": "the authors' release", "schedule": TITLES["schedule"]}
_GROUPS = {"imagenet": "ImageNet", "cifar": "CIFAR"}
_HEAD = """\
# Model cards: {group}

Every {group} network of the paper: what it is, what it costs, the paper's errors, how to train it, and where weights
are. senet publishes no weights: those of other libraries load under their terms. [All networks](../models.md),
[weights](../weights.md), [all tables of the paper](../reproduce.md).

| network | with SE | parameters | with SE | the paper's top-1 error | with SE |
|---|---|---:|---:|---:|---:|
"""
_FOOT = "This page is written by `python docs/generate_cards.py`.\n"


def page(group: str) -> str:
    """Return the cards of a group."""
    names = [name for name, row in CATALOGUE.items() if (row.size == 32) == (group == "cifar") and _rows(name)]
    summary = "".join(_summary(name) for name in names)
    return "\n".join([_HEAD.format(group=_GROUPS[group]) + summary, *map(card, names), _FOOT])


def card(name: str) -> str:
    """Return the card of a plain network and its twin with SE."""
    row = CATALOGUE[name]
    return "\n".join([f"## {title(name)}\n", f"{description(row)}\n", _table(name), _training(name), _weights(name)])


def title(name: str) -> str:
    """Return the paper's name of a network, without SE."""
    return _rows(name)[0].label.removeprefix("SE-").partition(" + ")[0]


def description(row: Network) -> str:
    """Return the architecture in words."""
    return fill(f"{_architecture(row.spec)} Images of {row.size}x{row.size}, {row.num_classes} classes.", 119)


def sources(name: str) -> Iterator[tuple[str, str]]:
    """Yield where pretrained weights of a network are, and the value of `weights=` that loads them."""
    import timm
    from torchvision.models import get_model_weights

    for entry in entries("release"):
        found = commands_of(entry)
        if entry.network == name and found is not None:
            yield "the authors' release (Caffe)", found.lines[0].split()[2]
    for other in TIMM.get(name, ()):
        cfg = timm.get_pretrained_cfg(other)
        if cfg is not None and cfg.has_weights:
            origin = "timm, the authors' weights as converted by Cadene" if other.startswith("legacy_") else "timm"
            yield f"{origin} (`{other}.{cfg.tag}`)", f"timm:{other}"
    if name in TORCHVISION:
        default: Any = get_model_weights(TORCHVISION[name]).DEFAULT
        yield f"torchvision (`{default.name}`)", f"torchvision:{TORCHVISION[name]}"


def _rows(name: str) -> list[Entry]:
    names = (name, CATALOGUE[name].se_name)
    return [entry for entry in entries(*_TABLES) if entry.network in names]


def _summary(name: str) -> str:
    row = CATALOGUE[name]
    anchor = title(name).lower().replace(" ", "-").replace(",", "")
    counts = f"{network_cost(name).params:,} | {network_cost(row.se_name).params:,}"
    first = {entry.network: f"{entry.top1:.2f}" for entry in reversed(_rows(name)) if entry.top1 is not None}
    errors = f"{first.get(name, '-')} | {first.get(row.se_name, '-')}"
    return f"| [{title(name)}](#{anchor}) | `{row.se_name}` | {counts} | {errors} |\n"


def _architecture(spec: Any) -> str:
    match spec:
        case ResNetSpec():
            kind = "bottlenecks" if spec.bottleneck else "units of two 3x3 convolutions"
            order = "pre-activation " if spec.preactivation else ""
            groups = f", 3x3 convolutions in {spec.groups} groups" if spec.groups > 1 else ""
            units = ", ".join(map(str, spec.units))
            return f"Residual network: stages of {units} {order}{kind} with {_numbers(spec.channels)} channels{groups}."
        case BNInceptionSpec():
            return f"{len(spec.modules)} Inception modules with batch norm (Ioffe and Szegedy 2015)."
        case ShuffleNetSpec():
            return "Units with grouped 1x1 convolutions and a channel shuffle (Zhang et al. 2017)."
        case ShakeShakeSpec():
            return "Residual units of two branches with random weights in training (Gastaldi 2017)."
        case LibrarySpec():
            return f"The plain network is `{spec.name}`."
    raise TypeError(f"a card does not describe {type(spec).__name__}")


def _numbers(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def _table(name: str) -> str:
    row = CATALOGUE[name]
    plain, with_se = network_cost(name), network_cost(row.se_name)
    blocks = sum(len(block.sites) for block in with_se.blocks)
    lines = [
        f"| | `{name}` | `{row.se_name}` |",
        "|---|---:|---:|",
        f"| parameters | {plain.params:,} | {with_se.params:,} |",
        f"| multiply-adds | {plain.macs / 1e6:,.1f} M | {with_se.macs / 1e6:,.1f} M |",
        f"| SE blocks | - | {blocks} |",
    ]
    results: dict[str, dict[str, str]] = {}
    for entry in _rows(name):
        what = f"Table {entry.table}: {TITLES[entry.table]}" if entry.table.isdigit() else _OTHER[entry.table]
        what += f", crops of {entry.size}" if entry.table in ("8", "9") else ""
        results.setdefault(what, {})[entry.network] = _result(entry)
    lines += [f"| {what} | {by.get(name, '-')} | {by.get(row.se_name, '-')} |" for what, by in results.items()]
    rows = _rows(name)
    errors = "top-1/top-5" if any(entry.top5 is not None for entry in rows) else "top-1"
    detectors = "; of detectors, AP at 0.5 and AP" if any(entry.precision for entry in rows) else ""
    return "\n".join(lines) + f"\n\nErrors are the paper's, {errors} in percent{detectors}.\n"


def _result(entry: Entry) -> str:
    pair = entry.precision or (entry.top1, entry.top5)
    return "/".join(f"{value:.1f}" if entry.precision else f"{value:.2f}" for value in pair if value is not None)


def _training(name: str) -> str:
    """Return the command that trains the network with SE as in the paper; `--show` prints the recipe."""
    commands = []
    notes = []
    used: dict[str, None] = {}
    for entry in _rows(name):
        found = commands_of(entry)
        if found is None or not found.recipe or entry.network != CATALOGUE[name].se_name:
            continue
        commands.append(found.lines[0])
        used[found.recipe] = None
        notes += [f"The paper adds {found.limitation}."] if found.limitation else []
    unique = "\n".join(dict.fromkeys(commands))
    recipes = ", ".join(f"`{recipe}`" for recipe in used)
    text = f"Train it as in the paper ({recipes}: `senet train --recipe NAME --show` prints a recipe):"
    text = f"{fill(text, 119)}\n\n```sh\n{unique}\n```\n"
    return text + "".join(f"\n{fill(note, 119)}\n" for note in dict.fromkeys(notes))


def _weights(name: str) -> str:
    rows = []
    for network in (CATALOGUE[name].se_name, name):
        for where, value in sources(network):
            rows.append(f"| `{network}` | {where} | `{_line(network, _quoted(value))}` |")
        if network in PYTORCHCV:
            other = f"get_model({_quoted(PYTORCHCV[network])}, pretrained=True)"
            where = f"pytorchcv (`{PYTORCHCV[network]}`), `from pytorchcv.model_provider import get_model`"
            rows.append(f"| `{network}` | {where} | `{_line(network, other)}` |")
    if not rows:
        return "No library that senet reads has weights of this network.\n"
    return "\n".join(["| weights of | where | how they load |", "|---|---|---|", *rows, ""])


def _line(network: str, weights: str) -> str:
    return f"senet.create_model({_quoted(network)}, weights={weights})"


def _quoted(text: str) -> str:
    return f'"{text}"'


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for group in _GROUPS:
        (FOLDER / f"{group}.md").write_text(page(group), encoding="utf-8")


if __name__ == "__main__":
    main()
