"""Rewrite a network for inference, exactly: the same function with less work."""

from typing import Any

import torch
from torch import nn

from senet.deployment.report import DeployReport
from senet.deployment.rewriting import FORMS, rewrite
from senet.graph.example_inputs import Example
from senet.insertion.network_checks import check_module, refuse_lazy
from senet.insertion.wrappers import refuse_wrapped

__all__ = ["check_deployable", "deploy"]

# Packages of quantized modules.
_QUANTIZED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")


def deploy(model: nn.Module, example: Example | None = None) -> nn.Module:
    """Rewrite a copy of a network for inference: the same function with less work.

    Batch norms are folded into the convolutions and linear layers before them. Where SE follows a 1x1 convolution and
    a batch norm, the gates are computed from the input of the convolution, and the first layer of SE is composed with
    the convolution: mean(W h + b) = W mean(h) + b. Other SE, of any library, becomes one plain module. SE whose gates
    are constant by its weights is folded, dropout and stochastic depth are removed, and weights that convolutions
    standardize in each forward are computed once. What cannot be rewritten exactly is left unchanged.

    The network runs once on the example, without values if its code reads none, which shows the modules whose outputs
    nothing else uses; paths that its code takes for other inputs only are not seen. Values are computed in float64 and
    rounded once, and the result is compared with the original on the example: outputs, and maps in attributes.

    Args:
        model: a network in evaluation mode, with or without SE; it is not modified.
        example: an input of the network: a tensor, or a tuple or dict of inputs. An image of the declared size unless
            given.

    Returns:
        A copy for inference, of plain modules without gradients: it can be traced, exported, compiled, quantized and
        pickled. Sizes of batch and image are as free as before. Its attribute `report`, a `DeployReport`, lists what
        was done, what was left and why, multiply-adds and bytes moved; `print(model.report)`.

    Raises:
        TypeError: `model` is not a network, is compiled by TorchScript, or `example` is not an input.
        ValueError: the network is in training mode, wrapped, quantized, on the meta device, has an attribute `report`,
            does not run on the example, or the result differs from it.

    Examples:
        >>> model = senet.create_model("se_resnet20").eval()
        >>> deployed = senet.deploy(model)
        >>> x = torch.randn(2, 3, 32, 32)
        >>> torch.allclose(deployed(x), model(x), atol=1e-5)
        True
        >>> any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
        False
    """
    check_deployable(model)
    if hasattr(model, "report") and not isinstance(model.report, DeployReport):
        raise ValueError(
            f"this {type(model).__name__} has an attribute 'report' of its own, in whose place deploy puts its report; "
            f"rename it, or use senet.export, which puts none"
        )
    new, report = rewrite(model, example, FORMS["eager"])
    new.report = report  # type: ignore[assignment]
    return new


def check_deployable(model: Any) -> None:
    """Check that a network can be deployed.

    Raises:
        TypeError, ValueError: see `deploy`.
    """
    check_module(model)
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"this {kind} is compiled by TorchScript, which runs no Python: deploy the network itself")
    refuse_wrapped(model, "deploy", "senet.deploy")
    refuse_lazy(model)
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        what = f"the module {training!r} of this {kind}" if training else f"this {kind}"
        raise ValueError(f"{what} is in training mode, and a deployed network is for inference: call .eval() first")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the meta device and has no values: load weights first")
    for name, module in model.named_modules():
        floating = isinstance(module, nn.quantized.FloatFunctional)
        if type(module).__module__.startswith(_QUANTIZED) and not floating:
            raise ValueError(
                f"{name!r} ({type(module).__name__}) is quantized: deploy the float network, then quantize"
            )
