"""Batch norm utilities for networks with SE: synchronize, freeze, update statistics.

The utilities of PyTorch and timm search for batch norms by type, and skip `SEBatchNorm`. Where they replace a batch
norm, they drop SE that is attached to it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.held_statistics import hold_statistics, holds_statistics
from senet.nn.inserted_se import find_inserted_se
from senet.nn.recalibration import attach, detach
from senet.utils.errors import NonFiniteError
from senet.utils.modes import evaluating

__all__ = ["batch_norms", "convert_sync_batchnorm", "freeze_batch_norm", "update_bn"]


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the batch norms of a network, with and without SE."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm | SEBatchNorm)]


def convert_sync_batchnorm(model: nn.Module, process_group: Any = None) -> nn.Module:
    """Synchronize every batch norm, with or without SE: compute statistics over all processes.

    Args:
        model: changed in place, unless it is a batch norm itself.
        process_group: a `torch.distributed` group; default: all processes.

    Returns:
        The model, or its replacement. Plain batch norms become `torch.nn.SyncBatchNorm` (timm's with activation become
        timm's synchronized class), which require a GPU; `SEBatchNorm` is synchronized on any device. SE attached to a
        batch norm, as after `insert(model, "pre", at=...)`, moves to its replacement. Statistics that
        `freeze_except_se` holds stay held.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> model = senet.convert_sync_batchnorm(model)
        >>> type(model.bn1).__name__
        'SyncBatchNorm'
    """
    from timm.layers import convert_sync_batchnorm as convert

    held = [name for name, module in model.named_modules(remove_duplicate=False) if holds_statistics(module)]
    for module in model.modules():
        if isinstance(module, SEBatchNorm):
            module.synchronize(process_group)
    after = _with_se(model, lambda: convert(model, process_group))
    for name in held:
        hold_statistics(after.get_submodule(name))
    return after


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """Freeze the statistics, weight and bias of every batch norm, with or without SE, also in training.

    SE's excitations still learn.

    Args:
        model: changed in place, unless it is a batch norm itself.

    Returns:
        The model, or its replacement. Plain batch norms of maps with two spatial axes become timm's
        `FrozenBatchNorm2d`; an `SEBatchNorm` is frozen. SE attached to a batch norm moves to its replacement.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> model = senet.freeze_batch_norm(model).train()
        >>> before = model.bn1.running_mean.clone()
        >>> _ = model(torch.randn(4, 3, 32, 32))
        >>> torch.equal(model.bn1.running_mean, before)
        True
    """
    from timm.layers import freeze_batch_norm_2d

    for module in model.modules():
        if isinstance(module, SEBatchNorm):
            module.freeze()
    return _with_se(model, lambda: freeze_batch_norm_2d(model))


def _with_se(model: nn.Module, replace: Callable[[], nn.Module]) -> nn.Module:
    """Run a function that may replace modules of a model, and move attached SE to the replacements."""
    places = list(model.named_modules(remove_duplicate=False))
    taken = []
    for one in find_inserted_se(model):
        if one.child:
            module = model.get_submodule(one.name)
            taken.append((one, [name for name, other in places if other is module]))
            detach(module, one.child)
    after = model
    try:
        after = replace()
    finally:
        for one, names in taken:
            for module in {after.get_submodule(name): None for name in names}:
                attach(module, one.child, one.se, one.how)
    return after


@torch.no_grad()
def update_bn(loader: Iterable[Any], model: nn.Module, device: torch.device | str | None = None) -> None:
    """Recompute the running statistics of every batch norm, with or without SE, as means over batches.

    Use it for averaged weights, as `torch.optim.swa_utils.update_bn`.

    Args:
        loader: batches of inputs (N, C, *spatial), or tuples that start with them.
        model: changed in place; its modes are restored.
        device: device for the inputs.

    Raises:
        NonFiniteError: a mean or variance becomes NaN or infinite. After any error, the statistics are restored.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> loader = [torch.randn(4, 3, 32, 32) for _ in range(2)]
        >>> senet.update_bn(loader, model)
        >>> int(model.bn1.num_batches_tracked)
        2
    """
    norms = [bn for bn in batch_norms(model) if bn.running_mean is not None and not getattr(bn, "frozen", False)]
    momenta = [bn.momentum for bn in norms]
    before = [(buffer, buffer.clone()) for bn in norms for buffer in bn.buffers(recurse=False)]
    for bn in norms:
        bn.reset_running_stats()
        bn.momentum = None  # an average of all batches
    try:
        with evaluating(model):  # whose end restores each module's mode
            model.train()
            for batch in loader:
                images = batch[0] if isinstance(batch, list | tuple) else batch
                model(images if device is None else images.to(device))
        for name, module in model.named_modules():
            if module in norms and not (module.running_mean.isfinite() & module.running_var.isfinite()).all():
                raise NonFiniteError(
                    f"the running statistics of {name!r} are not finite: check the weights and images for NaN; the old "
                    f"statistics were restored"
                )
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise
    finally:
        for bn, momentum in zip(norms, momenta, strict=True):
            bn.momentum = momentum
