"""Put SE into a network at sites, and take it out again: every plain key stays."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from senet.graph.example_inputs import Example
from senet.insertion.optimizer_groups import add_parameters, check_optimizer
from senet.insertion.self_fusing import guard, unguard
from senet.insertion.sites import Site, find_sites
from senet.insertion.wrappers import refuse_wrapped
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.initialization import IDENTITY_STARTS, expected_squeeze
from senet.nn.insertions import Insertion, insertions
from senet.nn.recalibration import Recalibrate, attach, detach, refuse_target
from senet.utils.choices import Gate, Initialization, Placement, Squeeze, check_choice
from senet.utils.errors import unknown_name
from senet.utils.renamed import RENAMED_OPTIONS, renamed

__all__ = ["insert", "place", "remove"]


@renamed(**RENAMED_OPTIONS)
def insert(
    model: nn.Module,
    placement: Placement = "standard",
    *,
    reduction: float = 16,
    squeeze: Squeeze = "avg",
    gate: Gate = "sigmoid",
    bias: bool = True,
    stages: int | Collection[int] | None = None,
    at: str | Iterable[str] | None = None,
    init: Initialization = "identity",
    example: Example | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> nn.Module:
    """Put SE into a network, in place; a plain checkpoint still loads, with nothing but `...se.*` missing.

    Where a batch norm ends the site, an `SEBatchNorm` takes its place; anywhere else the module there gets a child
    named after the placement, and a subclass of its class, which applies it. New modules stand on the device, in the
    dtype and in the mode of the site. An optimizer created before does not have the new parameters: give it as
    `optimizer`. Wrap the network afterwards (DistributedDataParallel, ...).

    Args:
        model: the network; of a family that `find_sites` knows, or any with `at`; without SE of its own.
        placement: "standard", "pre", "post", "identity" or "conv3x3" (paper section 6.5), see `find_sites`.
        reduction: the ratio r of each `SqueezeExcitation`.
        squeeze: "avg", "max" or "none".
        gate: "sigmoid", "tanh", "relu" or "hard_sigmoid".
        bias: whether the two layers of each block have biases.
        stages: only sites of these stages, the first stage of blocks being 2; all unless given.
        at: only sites, units or modules of these names or globs, see `find_sites`.
        example: an input of the network (a tensor, or a tuple or dict of inputs), where channels or stages are not
            known without; see `find_sites`.
        init: "identity" leaves the network's function as it is, bit for bit in evaluation, and still learns: the
            last layer is zero, the gate starts at exactly 1, and the first layer is such that a hidden unit opens.
            "paper" is the paper's, which about halves what it acts on.
        optimizer: one that trains the network already; gets the new parameters as a parameter group, with the learning
            rate, weight decay and other options of the parameters around them. Create schedulers afterwards.

    Returns:
        The same model.

    Raises:
        TypeError: `optimizer` is none.
        ValueError: the network is wrapped, see `senet.insertion.wrappers`; an optimizer without this network's
            parameters; whatever `find_sites` and `SqueezeExcitation` refuse; SE is at a site already; an unknown
            `init`; init="identity" with the gate "tanh", or with "relu" and no bias. The network is then untouched.
    """
    refuse_wrapped(model)
    if optimizer is not None:
        check_optimizer(optimizer, model)
    gain = _gain(init, gate, bias)
    sites = find_sites(model, placement, stages=stages, at=at, example=example)
    # Everything is checked and built before anything changes.
    _refuse_occupied(model, sites)
    blocks = []
    for site in sites:
        reference = _reference(model, site.unit)
        with torch.device(reference.device):
            se = SqueezeExcitation(site.channels, reduction, squeeze=squeeze, gate=gate, bias=bias, gain=gain)
        if init == "identity":
            ends = site.how in ("batch_norm", "output")
            se.initialize_as_identity(expected_squeeze(model.get_submodule(site.name), squeeze) if ends else None)
        blocks.append(se.to(reference.dtype))
    for site, se in zip(sites, blocks, strict=True):
        place(model, site.name, site.how, site.placement, se)
    if optimizer is not None:
        add_parameters(optimizer, model, [(site.unit, se) for site, se in zip(sites, blocks, strict=True)])
    return model


def remove(model: nn.Module, *, at: str | Iterable[str] | None = None) -> nn.Module:
    """Take SE out again, in place: what `insert` put in, and any `SEBatchNorm`; the plain keys and tensors stay.

    An optimizer keeps the parameters of SE, which then have no gradient, and leaves them as they are.

    Args:
        model: the network.
        at: only SE whose site, as in `Insertion.name`, or whose module, as in `named_modules`, is one of these names
            or matches it as a glob (`layer3.*`); all unless given.

    Returns:
        The same model, with `torch.nn.BatchNorm*d` where `SEBatchNorm` was.

    Raises:
        TypeError: `at` is not text.
        ValueError: a pattern of `at` matches nothing. The network is then untouched.
    """
    for insertion in insertions(model) if at is None else _picked(model, at):
        module = model.get_submodule(insertion.name)
        if isinstance(module, SEBatchNorm):
            _replace(model, module, module.to_batch_norm())
        elif insertion.how == "skip":
            unit, slot = _slot(model, insertion.name)
            delattr(unit, slot)  # None is then what it was: an attribute, and no module's name
            setattr(unit, slot, None)
        else:
            detach(module, insertion.child)
    unguard(model)
    return model


def _picked(model: nn.Module, at: str | Iterable[str]) -> list[Insertion]:
    """The insertions that patterns pick, in the network's order."""
    patterns = [at] if isinstance(at, str) else list(at)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"at must be names or globs such as 'layer3.*', got {at!r}")
    found = {i: (i.name, ".".join(part for part in (i.name, i.child, "se") if part)) for i in insertions(model)}
    picked = set()
    for pattern in patterns:
        matching = {i for i, names in found.items() if any(fnmatchcase(name, pattern) for name in names)}
        if not matching:
            raise ValueError(unknown_name("SE in at=", pattern, [module for _, module in found.values()]))
        picked |= matching
    return [insertion for insertion in found if insertion in picked]


def place(model: nn.Module, name: str, how: str, child: str, se: SqueezeExcitation) -> None:
    """Put one block at one site.

    Args:
        model: the network.
        name: of the module at the site, as in `Site`.
        how: as in `Site`.
        child: the child's name for the ways "input" and "output".
        se: the block; takes the mode of the module at the site.
    """
    guard(model, name)
    if how == "skip":
        unit, slot = _slot(model, name)
        setattr(unit, slot, Recalibrate(se, "skip").train(unit.training))
        return
    module = model.get_submodule(name)
    if how == "batch_norm":
        _replace(model, module, SEBatchNorm.from_batch_norm(module, se))
    else:
        attach(module, child, se, how)


def _gain(init: str, gate: str, bias: bool) -> float:
    """Gain of the gate, of a start that the gate has."""
    check_choice("init", init, Initialization)
    if init == "paper" or gate not in ("tanh", *IDENTITY_STARTS):
        return 1.0
    if gate == "tanh" or (gate == "relu" and not bias):
        what = "gate 'tanh'" if gate == "tanh" else "gate 'relu' without bias"
        raise ValueError(
            f"{what} has no start at which every gate is 1; use init='paper', gate='sigmoid', or a bias with 'relu'"
        )
    return IDENTITY_STARTS[gate][0]


def _refuse_occupied(model: nn.Module, sites: list[Site]) -> None:
    seen: dict[nn.Module, str] = {}
    for site in sites:
        if site.how == "skip":
            unit, slot = _slot(model, site.name)
            occupied = getattr(unit, slot) is not None
        else:
            module = model.get_submodule(site.name)
            if module in seen:
                raise ValueError(
                    f"{seen[module]!r} and {site.name!r} are one module: SE would act there twice; pick one with at="
                )
            seen[module] = site.name
            if site.how != "batch_norm":
                refuse_target(module)
            held = dict(module.named_children()).get(site.placement)
            occupied = isinstance(module, SEBatchNorm) or isinstance(held, Recalibrate)
            if site.how != "batch_norm" and not occupied and hasattr(module, site.placement):
                raise ValueError(
                    f"{site.name!r} ({type(module).__name__}) has an attribute of its own named {site.placement!r}, "
                    f"where SE is to hang; name a module inside it with at="
                )
        if occupied:
            raise ValueError(f"SE stands at {site.name!r} already; take it out with senet.remove(model) first")


def _slot(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The unit of an identity skip, and the attribute where a module of the skip stands."""
    parent, _, slot = name.rpartition(".")
    return model.get_submodule(parent), slot


def _reference(model: nn.Module, unit: str) -> Tensor:
    """A tensor with the device and dtype that SE in a unit is to have."""
    for module in (model.get_submodule(unit), model):
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                return tensor
    return torch.empty(0)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put new wherever the network holds old: a shared module has several places."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
