"""Wrappers that know a network's parameters from when they were made: SE goes into the network before."""

import gc

import torch
from torch import nn

__all__ = ["refuse_wrapped"]

# By their full names, so that nothing is imported; what each does with parameters that come later, and the order.
_PARALLEL = {
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "averages the gradients of the parameters that it found when it was made",
        "DistributedDataParallel(senet.insert(model))",
    ),
    "torch.distributed._composable.replicate.DDP": (
        "averages the gradients of the parameters that it found when it was made",
        "replicate(senet.insert(model))",
    ),
    "torch.nn.parallel.data_parallel.DataParallel": (
        "prefixes the names of the network's modules",
        "DataParallel(senet.insert(model))",
    ),
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "shards the parameters that it found when it was made",
        "FullyShardedDataParallel(senet.insert(model))",
    ),
    "torch.distributed.fsdp.FSDPModule": (
        "shards the parameters that it found when it was made",
        "fully_shard(senet.insert(model))",
    ),
    "torch.optim.swa_utils.AveragedModel": (
        "averages the parameters that it found when it was made",
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
    """Refuse a network that is wrapped already, or that holds such a wrapper.

    A network that `torch.compile` compiled can take SE, which acts there too: it is the network that is to be given,
    not the compiled wrapper.

    Raises:
        ValueError: it is; the message has the order.
    """
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            found = (_PARALLEL if name else _PARALLEL | _COMPILED).get(f"{kind.__module__}.{kind.__qualname__}")
            if found:
                what = f"{name!r} is a {kind.__name__}, which" if name else f"{kind.__name__}"
                raise ValueError(f"{what} {found[0]}: insert SE first, then wrap, {found[1]}")
        if getattr(module, "_is_fsdp_managed_module", False):
            raise ValueError(
                "FullyShardedDataParallel holds this network and shards the parameters that it found when it was made: "
                "insert SE first, then wrap, FullyShardedDataParallel(senet.insert(model))"
            )
    if _in_distributed(model):
        raise ValueError(
            "a DistributedDataParallel holds this network and averages the gradients of the parameters that it found "
            "when it was made: insert SE first, then wrap, DistributedDataParallel(senet.insert(model))"
        )


def _in_distributed(model: nn.Module) -> bool:
    """Whether a `DistributedDataParallel` somewhere holds the network, which does not know it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    kind = nn.parallel.DistributedDataParallel
    holders = [thing for thing in gc.get_objects() if issubclass(type(thing), kind)]
    return any(model is module for holder in holders for module in holder.modules())
