"""Insert SE into a network at its sites, and remove it. Plain state dict keys are unchanged."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from senet.graph.example_inputs import Example
from senet.insertion.fusing_methods import unwrap_fusing_methods
from senet.insertion.network_checks import check_module, check_network
from senet.insertion.optimizer_groups import add_parameters, check_optimizer
from senet.insertion.placing import check_places, place, reference_tensor, replace_module, skip_slot
from senet.insertion.site import patterns_of
from senet.insertion.sites import find_sites
from senet.insertion.windows import site_windows
from senet.insertion.wrappers import refuse_wrapped
from senet.nn.attention import ATTENTIONS
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.initialization import IDENTITY_STARTS, expected_squeeze
from senet.nn.inserted_se import InsertedSE, find_inserted_se
from senet.nn.recalibration import detach
from senet.utils.arguments import argument
from senet.utils.choices import Attention, Gate, Initialization, Placement, Squeeze, check_choice
from senet.utils.errors import unknown_name
from senet.utils.keywords import check_keywords
from senet.utils.renamed import RENAMED_OPTIONS

__all__ = ["insert", "remove"]


@check_keywords(**RENAMED_OPTIONS)
@torch.inference_mode(False)  # which would make parameters that cannot learn
def insert(
    model: nn.Module,
    placement: Placement = "standard",
    *,
    reduction: float = 16,
    attention: Attention = "se",
    squeeze: Squeeze = "avg",
    gate: Gate | None = None,
    bias: bool | None = None,
    stages: int | Collection[int] | None = None,
    at: str | Iterable[str] | None = None,
    init: Initialization = "identity",
    window: int | Sequence[int] | None = None,
    example: Example | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> nn.Module:
    """Insert SE into a network, in place. Plain checkpoints still load, with only `...se.*` missing.

    A batch norm at the end of a site is replaced by an `SEBatchNorm`. Any other module at a site gets a child named
    after the placement, and a subclass of its class that applies the child. New modules have the device, dtype and mode
    of their site. An existing optimizer lacks the new parameters: pass it as `optimizer`. Wrap the network afterwards
    (DistributedDataParallel, ...).

    Args:
        model: a convolutional network without SE, or any network with `at`; see `find_sites`.
        placement: "standard", "pre", "post", "identity" or "conv3x3" (paper section 6.5), see `find_sites`.
        reduction: the ratio r of each `SqueezeExcitation`; only 16, the default, for an attention other than "se".
        attention: "se", "eca" (ECA-Net) or "ese" (effective SE), see `SqueezeExcitation`.
        squeeze: "avg", "max" or "none".
        gate: "sigmoid", "tanh", "relu" or "hard_sigmoid". Default: that of the attention.
        bias: whether the layers of each block have biases. Default: as the attention has them.
        stages: only sites in these stages; the first stage of blocks is 2. Default: all.
        at: only sites, units or modules with these names or globs, see `find_sites`.
        example: an input of the network (a tensor, or a tuple or dict of inputs), required if channels or stages are
            unknown without it; see `find_sites`.
        init: "identity" keeps the network's function, bitwise in evaluation, and still learns: the last layer is zero,
            the gate is exactly 1, and a hidden unit of the first layer is active. "paper" is the paper's
            initialization, which roughly halves the maps.
        window: size of training images, such as 224 or (256, 512): in evaluation on larger images, SE squeezes over
            windows that have the size of its map in training, see `senet.set_window`. The size is measured in a run on
            `example`, resized to it, or on an image. Default: over the whole map.
        optimizer: the network's existing optimizer. It gets the new parameters as parameter groups, with the learning
            rate, weight decay and other options of the neighbouring parameters. Create schedulers afterwards.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a network, `optimizer` not an optimizer, or another argument of the wrong type.
        ValueError: the network is wrapped, see `senet.insertion.wrappers`; the optimizer lacks this network's
            parameters; a site already has SE; an unknown `init`; init="identity" with the gate "tanh", or with "relu"
            without bias; a window of a network that does not run on one image; or an error of `find_sites` or
            `SqueezeExcitation`. The network is then unchanged.

    Examples:
        >>> model = senet.create_model("resnet20")
        >>> x = torch.randn(2, 3, 32, 32)
        >>> before = model.eval()(x)
        >>> model = senet.insert(model, reduction=8)
        >>> torch.equal(model(x), before)  # an identity until it is trained
        True
    """
    check_network(model)
    refuse_wrapped(model)
    if optimizer is not None:
        check_optimizer(optimizer, model)
    check_choice("attention", attention, Attention)
    kind = ATTENTIONS[attention]
    gate, bias = kind.gate if gate is None else gate, kind.bias if bias is None else bias
    gain = _gain(init, gate, bias)
    sites = find_sites(model, placement, stages=stages, at=at, example=example)
    # Check and build everything before the first change.
    check_places(model, [(site.name, site.how, site.placement, site.channels) for site in sites])
    blocks = []
    options: dict[str, Any] = {"attention": attention, "squeeze": squeeze, "gate": gate, "bias": bias, "gain": gain}
    windows = [None] * len(sites) if window is None else site_windows(model, sites, window, example)
    for site, lengths in zip(sites, windows, strict=True):
        reference = reference_tensor(model, site.unit)
        with torch.device(reference.device):
            se = SqueezeExcitation(site.channels, reduction, window=lengths, **options)
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
    """Remove SE from a network, in place: inserted SE and every `SEBatchNorm`. Plain keys and tensors are unchanged.

    An optimizer keeps SE's parameters; without gradients, it does not change them. SE that a network has of its own, as
    timm's `efficientnet_b0` and `seresnet50` have, stays: `senet.fold_gates` folds its gates where they are constants.

    Args:
        model: the network.
        at: only SE whose site (`InsertedSE.name`) or module (in `named_modules`) matches one of these names or globs
            (`layer3.*`). Default: all.

    Returns:
        The same model, with `torch.nn.BatchNorm*d` where `SEBatchNorm` was.

    Raises:
        TypeError: `model` is not a network, or `at` not text.
        ValueError: a pattern in `at` matches nothing. The network is then unchanged.

    Examples:
        >>> model = senet.create_model("resnet20")
        >>> keys = list(model.state_dict())
        >>> model = senet.remove(senet.insert(model))
        >>> list(model.state_dict()) == keys
        True
    """
    check_module(model)
    for insertion in find_inserted_se(model) if at is None else _picked(model, at):
        module = model.get_submodule(insertion.name)
        if isinstance(module, SEBatchNorm):
            replace_module(model, module, module.to_batch_norm())
        elif insertion.how == "skip":
            unit, slot = skip_slot(model, insertion.name)
            delattr(unit, slot)  # so that None is an attribute again, not an entry of the modules
            setattr(unit, slot, None)
        else:
            detach(module, insertion.child)
    unwrap_fusing_methods(model)
    return model


def _picked(model: nn.Module, at: str | Iterable[str]) -> list[InsertedSE]:
    """Return inserted SE that matches the patterns, in the network's order."""
    patterns = patterns_of(at)
    found = {i: (i.name, i.se_name) for i in find_inserted_se(model)}
    picked = set()
    for pattern in patterns:
        matching = {i for i, names in found.items() if any(fnmatchcase(name, pattern) for name in names)}
        if not matching:
            raise ValueError(unknown_name(f"SE in {argument('at')}", pattern, [module for _, module in found.values()]))
        picked |= matching
    return [insertion for insertion in found if insertion in picked]


def _gain(init: str, gate: str, bias: bool) -> float:
    """Return the gain for an initialization, and check that the gate supports it."""
    check_choice("init", init, Initialization)
    if init == "paper" or gate not in ("tanh", *IDENTITY_STARTS):
        return 1.0
    if gate == "tanh" or (gate == "relu" and not bias):
        what = "gate 'tanh'" if gate == "tanh" else "gate 'relu' without bias"
        raise ValueError(
            f"{what} has no identity initialization; use {argument('init', 'paper')}, "
            f"{argument('gate', 'sigmoid')}, or a bias with 'relu'"
        )
    return IDENTITY_STARTS[gate][0]
