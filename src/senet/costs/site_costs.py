"""What SE costs at each site, before it is inserted: parameters and multiply-adds, and those of the network."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from senet.graph.counts import count
from senet.graph.example_inputs import Example, declared_size, example_image
from senet.graph.example_runs import run_network
from senet.graph.operations import Trace
from senet.graph.recorder import trace
from senet.graph.shapes import Maps
from senet.insertion.site import Site
from senet.nn.block import SqueezeExcitation
from senet.nn.recalibration import Side
from senet.utils.choices import Attention, Gate, Squeeze
from senet.utils.errors import MissingExampleError

__all__ = ["SiteCost", "SiteCosts", "cost_of_sites", "example_run"]

# Sides of the image for a network that declares no size, by the number of spatial axes.
_SIDES = {1: 1024, 2: 224, 3: 64}


@dataclass(frozen=True)
class SiteCost:
    """The cost of SE at a site.

    Attributes:
        site: the site.
        resolution: spatial axes of the map; None if the network did not run.
        hidden: units between SE's two layers; None for attention with one layer.
        params: parameters of SE.
        macs: multiply-adds of SE for one input; None if they depend on an unknown resolution.
    """

    site: Site
    resolution: tuple[int, ...] | None
    hidden: int | None
    params: int
    macs: int | None


@dataclass(frozen=True)
class SiteCosts:
    """The costs of SE at some sites of a network.

    Attributes:
        sites: in the order of the sites.
        inputs: shapes of the network's inputs; empty if it did not run.
        params: parameters of the network, without SE.
        macs: multiply-adds of the network for one input, without SE; None if it did not run.
    """

    sites: tuple[SiteCost, ...]
    inputs: tuple[tuple[int, ...], ...]
    params: int
    macs: int | None

    @property
    def se_params(self) -> int:
        """Parameters of SE at all sites."""
        return sum(cost.params for cost in self.sites)

    @property
    def se_macs(self) -> int | None:
        """Multiply-adds of SE at all sites, for one input; None if those of a site are unknown."""
        macs = [cost.macs for cost in self.sites]
        return None if None in macs else sum(n for n in macs if n is not None)


def example_run(model: nn.Module, example: Example | None = None) -> Trace | None:
    """Record a run of a network for the costs at its sites, with values only where its code reads them.

    Args:
        model: the network.
        example: its input; by default a random image of the size that it declares, or 224 pixels wide.

    Returns:
        The run; None if there is no example, and the network does not run on such an image.

    Raises:
        ValueError: the network does not run on the example.
    """
    image = example_image(model, sides=None if declared_size(model) else _SIDES)
    try:
        # With gradients: in inference, some modules fuse their parts into operations that have no formula.
        return run_network(model, example, images=[image], prefer_shapes=True, gradients=True, functional=True)
    except MissingExampleError:
        return None


def cost_of_sites(
    model: nn.Module,
    sites: Iterable[Site],
    run: Trace | None,
    *,
    reduction: float = 16,
    attention: Attention = "se",
    squeeze: Squeeze = "avg",
    gate: Gate | None = None,
    bias: bool | None = None,
) -> SiteCosts:
    """Count what SE would cost at each site, and what the network costs without it.

    Args:
        model: the network.
        sites: from `find_sites`.
        run: from `example_run`.
        reduction, attention, squeeze, gate, bias: as for `senet.insert`.
    """
    maps = None if run is None else Maps(run)
    counted: dict[tuple[int, tuple[int, ...] | None], tuple[int | None, int, int | None]] = {}
    costs = []
    for site in sites:
        resolution = None if maps is None else _resolution(maps, site)
        key = site.channels, resolution
        if key not in counted:
            with torch.device("meta"):
                se = SqueezeExcitation(
                    site.channels, reduction, attention=attention, squeeze=squeeze, gate=gate, bias=bias
                )
            counted[key] = _count(se, resolution)
        costs.append(SiteCost(site, resolution, *counted[key]))
    if run is None:
        return SiteCosts(tuple(costs), (), _parameters(model), None)
    images = max(1, run.inputs[0].shape[0]) if run.inputs and run.inputs[0].shape else 1
    macs = sum(count(operation).macs for operation in run.operations) // images
    return SiteCosts(tuple(costs), tuple(value.shape for value in run.inputs), _parameters(model), macs)


def _resolution(maps: Maps, site: Site) -> tuple[int, ...] | None:
    side: Side = "input" if site.how == "input" else "output"
    found = maps.at(site.unit if site.how == "skip" else site.name, side)
    return None if found is None or len(found.shape) < 3 else found.shape[2:]


def _count(se: SqueezeExcitation, resolution: tuple[int, ...] | None) -> tuple[int | None, int, int | None]:
    """Return hidden units, parameters and multiply-adds of a block on a map."""
    if resolution is None and se.squeeze == "none":
        return se.hidden_channels, _parameters(se), None
    spatial = resolution or (1,)
    run = trace(se, torch.empty((1, se.channels, *spatial), device="meta"), gradients=True)
    return se.hidden_channels, _parameters(se), sum(count(operation).macs for operation in run.operations)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
