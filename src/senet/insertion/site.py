"""What a search for sites finds: sites, and modules that are none, with the reason."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from senet.nn.recalibration import Attachment

__all__ = ["Excluded", "Finding", "Rule", "Site", "module_order", "patterns_of"]


# How a site was found, see `Site`.
Rule = Literal["table", "at", "residual", "dense", "concat", "parallel", "sibling", "block"]


@dataclass(frozen=True)
class Site:
    """A site for SE.

    Attributes:
        name: the module at which SE acts, as in `named_modules`.
        channels: C of the map there.
        stage: number of the stage as in the paper, where the first stage of blocks is 2; None if unknown.
        how: "batch_norm": an `SEBatchNorm` replaces the batch norm; "input" or "output": SE acts on that side of the
            module; "skip": SE is a module in the empty slot of an identity skip.
        placement: placement of the site.
        unit: the residual unit or block, as in `named_modules`; outside of units the module itself.
        rule: how the site was found. "table": a block of `senet.insertion.families`; "at": named by the user. In a
            recorded run: "residual": a branch is added to a skip; "dense": new maps are concatenated with old ones;
            "concat": several branches are concatenated; "parallel": several branches are added; "sibling": no skip, but
            the class or the place of units that have one; "block": nothing joins.
        spatial: spatial size of the map in the run that found it; None if the network was not run.

    Examples:
        >>> model = senet.create_model("resnet20")
        >>> site = senet.find_sites(model)[0]
        >>> site.name, site.channels, site.stage, site.how
        ('layer1.0.bn2', 16, 2, 'batch_norm')
    """

    name: str
    channels: int
    stage: int | None
    how: Attachment
    placement: str
    unit: str
    rule: Rule = "table"
    spatial: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Excluded:
    """A module with convolutions that gets no SE.

    Attributes:
        name: the module, as in `named_modules`.
        reason: its kind, and why it has no site, such as "stem: no layer comes before it".
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """The result of a search.

    Attributes:
        sites: in the order of the network's modules.
        excluded: modules without a site, in the same order; empty if the network was not run.
        without_module: names of residual units that have no module at the placement, such as an identity skip.
        attention: name of the attention for which no units were found; empty if units were found, or none has any.
        repeated: name of the module that holds all units, and is called several times; empty if there is none.
    """

    sites: list[Site] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    without_module: list[str] = field(default_factory=list)
    attention: str = ""
    repeated: str = ""


def module_order(model: nn.Module) -> dict[str, int]:
    """Return the place of each module among the network's, by name: sites and excluded modules are in this order."""
    return {name: number for number, (name, _) in enumerate(model.named_modules())}


def patterns_of(at: str | Iterable[str] | None) -> list[str]:
    """Return the names and globs of `at`; none for None.

    Raises:
        TypeError: it is not text, or texts.
    """
    patterns = [at] if isinstance(at, str) else list(at) if isinstance(at, Iterable) else [] if at is None else [at]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"at must be names or globs such as 'layer3.*', got {at!r}")
    return patterns
