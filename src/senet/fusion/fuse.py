"""Fuse the SE of a network with what precedes it, in place, and undo it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from senet.fusion.find_fusions import Found, find_fusions
from senet.fusion.fused_class import fused_class, is_fused, unfused_class
from senet.fusion.fusion import FUSIONS, Role, role_of
from senet.fusion.report import FuseReport, FuseRow
from senet.graph.example_inputs import Example
from senet.insertion.network_checks import check_module, refuse_lazy
from senet.insertion.wrappers import refuse_wrapped

__all__ = ["fuse", "unfuse"]


def fuse(model: nn.Module, example: Example | None = None) -> nn.Module:
    """Fuse SE that a network of any library has with the batch norm and the activation before it, in place.

    In training, batch norm, activation (ReLU, ReLU6, SiLU, hard swish, or none) and SE are computed together from the
    output of the convolution, which alone is saved for backward; the function is the same. `senet.set_fused` chooses
    how, and from which size of maps. In evaluation, under `torch.compile`, `torch.export`, `torch.jit.trace` and
    `torch.func`, where hooks observe a map in between, and where a part, an option of the block or the `forward` of a
    class was replaced, each module computes its own function. A call that takes another path through the parts raises a
    RuntimeError.

    Module names, keys, parameters, buffers, hooks and modes are unchanged; the modules that take part get subclasses of
    their classes. SE in another place is left unchanged: after a sum, a concatenation or another activation, with
    dropout in between, with a map that is used elsewhere or stored, or as code in the forward of a larger module.

    The run shows one path through the code: a map that another path, taken later for an argument or a number, stores or
    returns is the recalibrated one. Call `unfuse` before, and before `torch.jit.script` and eager quantization.

    Args:
        model: the network. Wrap it afterwards (DistributedDataParallel, torch.compile, ...).
        example: an input of the network: a tensor, or a tuple or dict of inputs. It runs once, without values, which
            shows what uses each map. An image of the declared size unless given.

    Returns:
        The same model. Its attribute `fuse_report`, a `FuseReport`, lists the SE modules that are fused, and those that
        were left and why; `print(model.fuse_report)`.

    Raises:
        TypeError: `model` is not a network, or `example` is not an input.
        ValueError: the network is compiled, wrapped, on the meta device, or does not run on the example; it is
            unchanged.

    Examples:
        >>> import timm
        >>> model = senet.fuse(timm.create_model("mobilenetv3_small_050"))
        >>> print(model.fuse_report)
        9 of 9 SE modules fused
    """
    _check(model)
    before = [(module, type(module), module.__dict__.get(FUSIONS)) for module in model.modules()]
    _unfuse(model)
    try:
        found = list(find_fusions(model, example))
        _set_classes(found)
    except BaseException:
        for module, kind, fusions in before:
            module.__class__ = kind
            module.__dict__.pop(FUSIONS, None)
            if fusions is not None:
                module.__dict__[FUSIONS] = fusions
        raise
    model.__dict__["fuse_report"] = FuseReport(tuple(map(_row, found)))
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Undo `fuse`: restore the classes of all modules, in place. A network that is not fused is unchanged.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a network.

    Examples:
        >>> import timm
        >>> model = senet.fuse(timm.create_model("mobilenetv3_small_050"))
        >>> model = senet.unfuse(model)
    """
    check_module(model)
    _unfuse(model)
    model.__dict__.pop("fuse_report", None)
    return model


def _check(model: Any) -> None:
    check_module(model)
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"this {kind} was compiled by TorchScript, which runs no Python: fuse before torch.jit.trace")
    refuse_wrapped(model, "fuse SE", "senet.fuse")
    refuse_lazy(model)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f"this {kind} is on the meta device: create its weights with model.to_empty, then fuse")


def _unfuse(model: nn.Module) -> None:
    for module in model.modules() if is_fused(model) else ():
        if role_of(module) is not None:
            module.__class__ = unfused_class(module)
            module.__dict__.pop(FUSIONS, None)


def _set_classes(found: list[Found]) -> None:
    roles: dict[nn.Module, Role] = {}
    blocks: dict[nn.Module, list[Any]] = {}
    for one in found:
        if one.block is None or one.fusion is None:
            continue
        blocks.setdefault(one.block, []).append(one.fusion)
        fusion, block = one.fusion, one.block
        roles[block] = "block"
        roles[block.get_submodule(fusion.norm)] = "norm"
        if not fusion.attached:
            roles[block.get_submodule(fusion.se)] = "se"
        for name in (*fusion.sum_relu[:1], *(() if fusion.activated_by is None else (fusion.activated_by,))):
            roles[block.get_submodule(name)] = "activation"
    for module, role in roles.items():
        module.__class__ = fused_class(type(module), role)
    for block, fusions in blocks.items():
        block.__dict__[FUSIONS] = tuple(fusions)


def _row(found: Found) -> FuseRow:
    kind = unfused_class(found.unit.module).__name__
    activation = None if found.fusion is None else found.fusion.activation
    return FuseRow(found.unit.name, kind, found.norm, activation, found.reason)
