"""Report on loaded weights: what was loaded, converted, missing and unexpected."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ["ModuleReport", "WeightsReport", "report"]


@dataclass(frozen=True)
class ModuleReport:
    """Counts of loaded tensors of one top-level module of the network, including its children.

    Attributes:
        name: name of the module; for unexpected tensors, the first part of their names.
        loaded, converted, missing, unexpected: numbers of tensors, as in `WeightsReport`.
        covered: percentage of the module's parameters that were loaded.
    """

    name: str
    loaded: int
    converted: int
    missing: int
    unexpected: int
    covered: float


@dataclass(frozen=True)
class WeightsReport:
    """Report on loaded weights; `str` formats it as a short table.

    Attributes:
        format: format of the weights, identified by their names.
        source: file or name of the weights.
        loaded: names of the network's tensors that were loaded.
        converted: loaded tensors that have another name or shape in the source.
        missing: tensors of the network that the source lacks.
        unexpected: tensors of the source that the network lacks, by senet's names.
        modules: counts by module.
        covered: percentage of the network's parameters that were loaded.
        implied: the architecture that the weights imply, as options of `senet.create_model`.
        assumed: properties of the network that the weights do not specify, and which were assumed to match: `eps` of
            batch norms, `dilation`, `activation` and the like.
        entry: dotted key of the loaded state dict in the file; "" for the top level.
        others: keys of the file's other state dicts, for `entry=`.

    Examples:
        >>> source = senet.create_model("resnet20")
        >>> report = senet.load_weights(senet.create_model("resnet20"), source)
        >>> len(report.loaded), report.missing, report.covered
        (116, (), 100.0)
    """

    format: str
    source: str
    loaded: tuple[str, ...]
    converted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    modules: tuple[ModuleReport, ...]
    covered: float
    implied: Mapping[str, Any]
    assumed: Mapping[str, Any] = field(default_factory=dict)
    entry: str = ""
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Format a line for each module, the total, and missing, unexpected and assumed items."""
        head = ("module", "loaded", "converted", "missing", "unexpected", "parameters")
        rows = [
            (one.name, one.loaded, one.converted, one.missing, one.unexpected, f"{one.covered:.2f} %")
            for one in self.modules
        ]
        counts = (len(keys) for keys in (self.loaded, self.converted, self.missing, self.unexpected))
        rows.append(("all", *counts, f"{self.covered:.2f} %"))  # type: ignore[arg-type]
        width = max(len(row[0]) for row in rows)
        lines = [f"{self.source}: {self.format}{self._implied_text()}"]
        for row in (head, *rows):
            lines.append(f"{row[0]:{width}}" + "".join(f"{cell:>11}" for cell in row[1:]))
        for what in ("missing", "unexpected"):
            if keys := getattr(self, what):
                lines.append(f"{what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}")
        return "\n".join([*lines, *self.notes])

    @property
    def notes(self) -> list[str]:
        """Sentences about assumptions, and about the choice among several state dicts."""
        notes = [f"assumed, because the weights do not say it: {_listed(self.assumed)}"] if self.assumed else []
        return [*notes, self._choice()] if self.others else notes

    def _choice(self) -> str:
        other = f"entry={self.others[0]!r} (--weights-entry {self.others[0]})"
        return f"the file has several state dicts: {self.entry!r} was loaded; {other} loads {' or '.join(self.others)}"

    def _implied_text(self) -> str:
        return f", which says {_listed(self.implied)}" if self.implied else ""


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{option}={value!r}" for option, value in options.items())


def report(
    model: nn.Module,
    *,
    source: str,
    form: str,
    loaded: Iterable[str],
    converted: Iterable[str],
    missing: Iterable[str],
    unexpected: Iterable[str],
    implied: Mapping[str, Any],
    assumed: Mapping[str, Any],
    entry: str = "",
    others: tuple[str, ...] = (),
) -> WeightsReport:
    """Create the `WeightsReport` of a network, with counts for each of its children.

    Args:
        model: the network.
        source, form: source and format of the weights.
        loaded, converted, missing, unexpected, implied, assumed, entry, others: as in `WeightsReport`.
    """
    keys = {"loaded": loaded, "converted": converted, "missing": missing, "unexpected": unexpected}
    kept = {what: tuple(names) for what, names in keys.items()}
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    there = set(kept["loaded"])
    heads = dict.fromkeys(name.partition(".")[0] for name in (*model.state_dict(), *kept["unexpected"]))

    def covered(head: str | None) -> float:
        own = {name: count for name, count in parameters.items() if head is None or name.partition(".")[0] == head}
        return 100 * sum(n for name, n in own.items() if name in there) / sum(own.values()) if own else 0.0

    def count(what: str, head: str) -> int:
        return sum(name.partition(".")[0] == head for name in kept[what])

    modules = tuple(
        ModuleReport(name=head, covered=covered(head), **{what: count(what, head) for what in keys}) for head in heads
    )
    return WeightsReport(
        form,
        source,
        **kept,
        modules=modules,
        covered=covered(None),
        implied=dict(implied),
        assumed=dict(assumed),
        entry=entry,
        others=others,
    )
