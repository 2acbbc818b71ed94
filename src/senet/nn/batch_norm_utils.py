"""What tools for batch norms do, for networks with SE in them.

PyTorch's and timm's look for batch norms by type, and leave an `SEBatchNorm` as it is; and where they put another
module in a batch norm's place, SE that hangs in it is lost.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.insertions import insertions
from senet.nn.recalibration import attach, detach
from senet.utils.errors import NonFiniteError
from senet.utils.modes import evaluating

__all__ = ["batch_norms", "convert_sync_batchnorm", "freeze_batch_norm", "update_bn"]


def batch_norms(model: nn.Module) -> list[Any]:
    """The batch norms of a network, those with SE among them."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm | SEBatchNorm)]


def convert_sync_batchnorm(model: nn.Module, process_group: Any = None) -> nn.Module:
    """Make every batch norm, with SE or without, take its statistics over all processes.

    Args:
        model: changed in place, but for a batch norm that is the model itself.
        process_group: of `torch.distributed`; all processes unless given.

    Returns:
        The model, or what stands for it: `torch.nn.SyncBatchNorm` for plain batch norms, and timm's with an activation
        for timm's, which need a GPU; and an `SEBatchNorm` that is synchronised, which does not. SE that hangs in a
        batch norm, as after `insert(model, "pre", at=...)`, hangs in what stands for it.
    """
    from timm.layers import convert_sync_batchnorm as convert

    for module in model.modules():
        if isinstance(module, SEBatchNorm):
            module.synchronise(process_group)
    return _with_se(model, lambda: convert(model, process_group))


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """Make every batch norm, with SE or without, keep its statistics, weight and bias, in training too.

    The excitations of SE go on learning.

    Args:
        model: changed in place, but for a batch norm that is the model itself.

    Returns:
        The model, or what stands for it: timm's `FrozenBatchNorm2d` for plain batch norms of maps with two spatial
        axes; an `SEBatchNorm` stays one. SE that hangs in a batch norm hangs in what stands for it.
    """
    from timm.layers import freeze_batch_norm_2d

    for module in model.modules():
        if isinstance(module, SEBatchNorm):
            module.freeze()
    return _with_se(model, lambda: freeze_batch_norm_2d(model))


def _with_se(model: nn.Module, replace: Callable[[], nn.Module]) -> nn.Module:
    """What a tool makes of a model, with the SE that is attached to modules which it may replace."""
    places = list(model.named_modules(remove_duplicate=False))
    taken = []
    for one in insertions(model):
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
    """Take the running statistics of every batch norm, with SE or without, anew: means over batches of images.

    As `torch.optim.swa_utils.update_bn`, for weights that were averaged.

    Args:
        loader: batches of inputs (N, C, *spatial), or tuples that begin with them.
        model: in place; its modes are as before afterwards.
        device: that inputs are moved to.

    Raises:
        NonFiniteError: a mean or variance becomes NaN or infinite. After this and any other error of the loader or the
            network, the statistics are as before.
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
                    f"the running statistics of {name!r} are not finite: look for NaN in the weights and images; the "
                    f"statistics are as before"
                )
    except BaseException:
        for buffer, value in before:
            buffer.copy_(value)
        raise
    finally:
        for bn, momentum in zip(norms, momenta, strict=True):
            bn.momentum = momentum
