"""Detect wrappers such as DistributedDataParallel, which must be applied last."""

import gc

import torch
from torch import nn

__all__ = ["refuse_wrapped"]

# By full names, so that nothing is imported: why the order matters, and the right order.
_PARALLEL = {
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "averages the gradients of the parameters that it found when it was created",
        "DistributedDataParallel({call}(model))",
    ),
    "torch.distributed._composable.replicate.DDP": (
        "averages the gradients of the parameters that it found when it was created",
        "replicate({call}(model))",
    ),
    "torch.nn.parallel.data_parallel.DataParallel": (
        "prefixes the names of the network's modules",
        "DataParallel({call}(model))",
    ),
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "shards the parameters that it found when it was created",
        "FullyShardedDataParallel({call}(model))",
    ),
    "torch.distributed.fsdp.FSDPModule": (
        "shards the parameters that it found when it was created",
        "fully_shard({call}(model))",
    ),
    "torch.optim.swa_utils.AveragedModel": (
        "averages the parameters that it found when it was created",
        "AveragedModel({call}(model))",
    ),
}
_COMPILED = {
    "torch._dynamo.eval_frame.OptimizedModule": (
        "prefixes the names of the network's modules",
        "torch.compile({call}(model))",
    )
}


def refuse_wrapped(model: nn.Module, action: str = "insert SE", call: str = "senet.insert") -> None:
    """Check that a network is not wrapped and contains no wrapper.

    For a network compiled with `torch.compile`, give the network itself and not the compiled wrapper.

    Args:
        model: the network.
        action: what must be done before wrapping, for the message.
        call: the function that does it.

    Raises:
        ValueError: the network is wrapped; the message states the right order.
    """
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            found = (_PARALLEL if name else _PARALLEL | _COMPILED).get(f"{kind.__module__}.{kind.__qualname__}")
            if found:
                what = f"{name!r} is a {kind.__name__}, which" if name else f"{kind.__name__}"
                raise ValueError(f"{what} {found[0]}: {action} first, then wrap, {found[1].format(call=call)}")
        if getattr(module, "_is_fsdp_managed_module", False):
            raise ValueError(
                "FullyShardedDataParallel holds this network and shards the parameters that it found when created: "
                f"{action} first, then wrap, FullyShardedDataParallel({call}(model))"
            )
    if _in_distributed(model):
        raise ValueError(
            "a DistributedDataParallel holds this network and averages the gradients of the parameters that it found "
            f"when it was created: {action} first, then wrap, DistributedDataParallel({call}(model))"
        )


def _in_distributed(model: nn.Module) -> bool:
    """Return whether a `DistributedDataParallel` somewhere holds the network, which does not know it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    kind = nn.parallel.DistributedDataParallel
    # Not by `issubclass`, which takes five times longer.
    holders = [thing for thing in gc.get_objects() if kind in type(thing).__mro__]
    return any(model is module for holder in holders for module in holder.modules())
