"""What became of weights that were loaded, as a short table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

__all__ = ["ModuleReport", "WeightsReport", "report"]


@dataclass(frozen=True)
class ModuleReport:
    """What became of the tensors of one module of the network, its children included.

    Attributes:
        name: of the module; of tensors that the network does not have, what their names begin with.
        loaded, converted, missing, unexpected: how many tensors, as in `WeightsReport`.
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
    """What became of weights that were loaded; `str` gives a short table.

    Attributes:
        format: of the weights, as told by their names.
        source: the file or name that they are from.
        loaded: the network's tensors that were loaded, by the network's names.
        converted: those of them that have another name or form in the source.
        missing: the network's tensors that the weights do not have.
        unexpected: the source's tensors that the network does not have, by senet's names.
        modules: the same by module.
        covered: percentage of the network's parameters that were loaded.
        implied: what the weights say of the architecture: options of `senet.create_model`.
        assumed: what the network is and the weights do not say, so that it was assumed of theirs too: `eps` of batch
            norms, `dilation`, `activation` and the like.
        entry: the key under which the file has the weights, with dots; "" where it has them at the top.
        others: the keys of the file's other state dicts, which `entry=` takes.
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
        """A line for each module, a sum, and what is missing, unexpected, assumed, or elsewhere in the file."""
        head = ("module", "loaded", "converted", "missing", "unexpected", "parameters")
        rows = [
            (one.name, one.loaded, one.converted, one.missing, one.unexpected, f"{one.covered:.2f} %")
            for one in self.modules
        ]
        counts = (len(keys) for keys in (self.loaded, self.converted, self.missing, self.unexpected))
        rows.append(("all", *counts, f"{self.covered:.2f} %"))  # type: ignore[arg-type]
        width = max(len(row[0]) for row in rows)
        lines = [f"{self.source}: {self.format}{self._said()}"]
        for row in (head, *rows):
            lines.append(f"{row[0]:{width}}" + "".join(f"{cell:>11}" for cell in row[1:]))
        for what in ("missing", "unexpected"):
            if keys := getattr(self, what):
                lines.append(f"{what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}")
        return "\n".join([*lines, *self.notes])

    @property
    def notes(self) -> list[str]:
        """What was assumed, and which of several state dicts of the file was loaded: a sentence each."""
        notes = [f"assumed, because the weights do not say it: {_listed(self.assumed)}"] if self.assumed else []
        return [*notes, self._choice()] if self.others else notes

    def _choice(self) -> str:
        other = f"entry={self.others[0]!r} (--weights-entry {self.others[0]})"
        return f"the file has several state dicts: {self.entry!r} was loaded; {other} loads {' or '.join(self.others)}"

    def _said(self) -> str:
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
    """A `WeightsReport` of a network, counted by its children.

    Args:
        model: the network.
        source, form: of the weights.
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
