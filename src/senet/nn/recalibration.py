"""SE at modules other than batch norms: a child holds it, and the module's class applies it to input or output.

`attach` gives the module a subclass of its class, as `torch.nn.utils.parametrize` does. So SE is part of `forward` and
visible to tools: `torch.compile` guards on the class, the type tables of torch.fx and quantizers do not match, and
checkpointing calls it. `isinstance` and plain keys are unchanged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from senet.nn.block import SqueezeExcitation
from senet.nn.recalibrated_class import OWN, Spec, base_class, method_of, set_class, spec_of
from senet.nn.symbolic import emit_call

__all__ = ["Attachment", "Recalibrate", "Side", "attach", "base_class", "detach", "rebase", "refuse_target"]


Side = Literal["input", "output"]
# How SE is attached, see `senet.insertion.site.Site`.
Attachment = Literal["batch_norm", "input", "output", "skip"]


class Recalibrate(nn.Module):
    """SE at a site without a batch norm.

    Args:
        se: the block.
        how: "input" or "output" for a child that its parent's class applies; "skip" for a module on an identity skip.
    """

    qconfig: ClassVar[None] = None  # torch.ao's quantizers leave SE in floating point

    def __init__(self, se: SqueezeExcitation, how: Attachment) -> None:
        super().__init__()
        self.se = se
        self.how: Attachment = how

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *spatial)."""
        call = emit_call(self, (input,), {})
        return self.se(input) if call is None else call  # type: ignore[no-any-return]


def attach(module: nn.Module, child: str, se: SqueezeExcitation, how: Attachment) -> None:
    """Add a child to a module that recalibrates its "input" or "output".

    Args:
        module: the module at the site.
        child: name of the child; its keys are `<child>.se.*`.
        se: the block, with the channels of the map.
        how: "input" or "output".

    Raises:
        ValueError: see `refuse_target`.
    """
    refuse_target(module)
    spec = spec_of(module) or _first_spec(module)
    module.add_module(child, Recalibrate(se, how).train(module.training))
    if how == "input":
        spec = replace(spec, inputs=(*spec.inputs, child))
    else:
        spec = replace(spec, outputs=(*spec.outputs, child))
    set_class(module, base_class(module), spec)


def detach(module: nn.Module, child: str) -> nn.Module:
    """Undo `attach`, and return the child."""
    held: nn.Module = module._modules.pop(child)  # type: ignore[assignment]
    spec, base = spec_of(module), base_class(module)
    if spec is None:
        return held
    rest = replace(
        spec,
        inputs=tuple(name for name in spec.inputs if name != child),
        outputs=tuple(name for name in spec.outputs if name != child),
    )
    if rest.inputs or rest.outputs:
        set_class(module, base, rest)
        return held
    set_class(module, base, None)
    if spec.method == OWN:
        module.forward = module.__dict__.pop(OWN)
    elif spec.method != "forward":
        module.forward = getattr(module, spec.method)
    return held


def refuse_target(module: nn.Module) -> None:
    """Check that a module's forward can be wrapped.

    Raises:
        ValueError: the module is compiled by TorchScript, traced by torch.fx, or has uninitialized parameters; or its
            `forward` was replaced while SE was attached.
    """
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"this {kind} was compiled by TorchScript, which runs no Python: insert SE before torch.jit.trace"
        )
    if isinstance(getattr(module, "_orig_mod", None), nn.Module):
        raise ValueError(f"this {kind} is compiled by torch.compile: name the module '_orig_mod' in it")
    if isinstance(module, torch.fx.GraphModule):
        raise ValueError(
            f"this {kind} is a torch.fx.GraphModule, which generates its own forward: name a module inside it, or "
            f"insert SE before tracing"
        )
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        raise ValueError(f"this {kind} has no parameters yet: run the network once, then insert SE")
    if spec_of(module) is not None and "forward" in module.__dict__:
        raise ValueError(
            f"the forward of this {base_class(module).__name__} was replaced after SE was attached to it: delete the "
            f"attribute, or senet.remove and insert all SE at once"
        )


def rebase(module: nn.Module, base: type[nn.Module]) -> None:
    """Change the class of a module, and keep SE that is attached to it."""
    set_class(module, base, spec_of(module))


def _first_spec(module: nn.Module) -> Spec:
    """Return the spec for a module without SE. SE is applied around an instance's own `forward`, if any."""
    folds = hasattr(module, "eps") and getattr(module, "running_var", None) is not None
    own = module.__dict__.get("forward")
    if own is None:
        return Spec(folds=folds)
    del module.forward
    method = method_of(module, type(module), own)
    if method is None:
        module.__dict__[OWN] = own
    return Spec(method=method or OWN, folds=folds)
