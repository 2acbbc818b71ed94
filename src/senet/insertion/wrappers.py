"""Detect wrappers such as DistributedDataParallel, which must be applied after SE is inserted."""

import gc

import torch
from torch import nn

__all__ = ["refuse_wrapped"]

# By full names, so that nothing is imported: why the order matters, and the right order.
_PARALLEL = {
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "averages the gradients of the parameters that it found when it was created",
        "DistributedDataParallel(senet.insert(model))",
    ),
    "torch.distributed._composable.replicate.DDP": (
        "averages the gradients of the parameters that it found when it was created",
        "replicate(senet.insert(model))",
    ),
    "torch.nn.parallel.data_parallel.DataParallel": (
        "prefixes the names of the network's modules",
        "DataParallel(senet.insert(model))",
    ),
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "shards the parameters that it found when it was created",
        "FullyShardedDataParallel(senet.insert(model))",
    ),
    "torch.distributed.fsdp.FSDPModule": (
        "shards the parameters that it found when it was created",
        "fully_shard(senet.insert(model))",
    ),
    "torch.optim.swa_utils.AveragedModel": (
        "averages the parameters that it found when it was created",
        "AveragedModel(senet.insert(model))",
    ),
}
_COMPILED = {
    "torch._dynamo.eval_frame.OptimizedModule": (
        "prefixes the names of the network's modules",
        "torch.compile(senet.insert(model))",
    )
}


def refuse_wrapped(model: nn.Module) -> None:
    """Check that a network is not wrapped and contains no wrapper.

    For a network compiled with `torch.compile`, give the network itself and not the compiled wrapper.

    Raises:
        ValueError: the network is wrapped; the message states the right order.
    """
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            found = (_PARALLEL if name else _PARALLEL | _COMPILED).get(f"{kind.__module__}.{kind.__qualname__}")
            if found:
                what = f"{name!r} is a {kind.__name__}, which" if name else f"{kind.__name__}"
                raise ValueError(f"{what} {found[0]}: insert SE first, then wrap, {found[1]}")
        if getattr(module, "_is_fsdp_managed_module", False):
            raise ValueError(
                "FullyShardedDataParallel holds this network and shards the parameters that it found when created: "
                "insert SE first, then wrap, FullyShardedDataParallel(senet.insert(model))"
            )
    if _in_distributed(model):
        raise ValueError(
            "a DistributedDataParallel holds this network and averages the gradients of the parameters that it found "
            "when it was created: insert SE first, then wrap, DistributedDataParallel(senet.insert(model))"
        )


def _in_distributed(model: nn.Module) -> bool:
    """Return whether a `DistributedDataParallel` somewhere holds the network, which does not know it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    kind = nn.parallel.DistributedDataParallel
    holders = [thing for thing in gc.get_objects() if issubclass(type(thing), kind)]
    return any(model is module for holder in holders for module in holder.modules())
