"""Freeze a network except its SE, and undo it."""

from torch import nn

from senet.insertion.network_checks import check_module
from senet.insertion.wrappers import refuse_wrapped
from senet.nn.held_statistics import hold_statistics, norms_with_statistics, release_statistics
from senet.nn.inserted_se import se_parameters

__all__ = ["freeze_except_se", "unfreeze"]

# Attribute of a frozen network: the names of the parameters that required gradients before.
_RECORD = "_frozen_by_senet"


def freeze_except_se(model: nn.Module) -> nn.Module:
    """Freeze a network in place, except the SE that `insert` added: only SE's parameters get gradients.

    Norms with running statistics stay in evaluation, also after `model.train()`, so the plain network keeps computing
    the function that it was trained for. All other modules (dropout, stochastic depth) follow `train()` and `eval()`.
    Call it before creating the optimizer and before wrapping (DistributedDataParallel, ...). `unfreeze` undoes it.

    Args:
        model: a network with SE. Parameters of SE that are frozen stay so.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a network.
        ValueError: the network has no inserted SE, or is wrapped. The network is then unchanged.

    Examples:
        >>> model = senet.insert(senet.create_model("resnet20"))
        >>> model = senet.freeze_except_se(model)
        >>> {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad}
        {'se'}
    """
    check_module(model)
    refuse_wrapped(model, "freeze", "senet.freeze_except_se")
    trained = {id(parameter) for parameter in se_parameters(model)}
    if not trained:
        raise ValueError("the network has no SE that senet inserted; call senet.insert(model) first")
    frozen = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in trained}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    model.__dict__[_RECORD] = (*model.__dict__.get(_RECORD, ()), *frozen)
    for norm in norms_with_statistics(model):
        hold_statistics(norm)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Undo `freeze_except_se`: parameters that it froze require gradients again, and norms follow `train()`.

    Call `model.train()` and create a new optimizer afterwards. A network that is not frozen is unchanged.

    Args:
        model: the network that was given to `freeze_except_se`, or a copy of it.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a network.

    Examples:
        >>> model = senet.freeze_except_se(senet.insert(senet.create_model("resnet20")))
        >>> model = senet.unfreeze(model).train()
        >>> all(p.requires_grad for p in model.parameters())
        True
    """
    check_module(model)
    parameters = dict(model.named_parameters())
    for name in model.__dict__.pop(_RECORD, ()):
        if name in parameters:
            parameters[name].requires_grad_(True)
    for norm in norms_with_statistics(model):
        release_statistics(norm)
    return model
