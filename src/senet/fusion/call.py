"""One call of a block: its batch norm computes the recalibrated map, and the activation and SE pass it through.

The batch norm computes only its own function in evaluation, under compilers, traces and transforms of `torch.func`, for
maps that are not worth fusing, and where hooks or another `forward` would observe a map that is not computed. The
activation and SE then compute theirs. Within a call of a block SE passes exactly the tensor through that its batch norm
returned; for another one it raises an error.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.fusion.deferred import Deferred
from senet.fusion.fusion import (
    Fusion,
    excitation_of,
    kind_of,
    options_of,
    read_excitation,
    role_of,
    settings_of,
    submodule,
)
from senet.nn.batch_norm_forward import in_training, running_statistics
from senet.nn.block import SqueezeExcitation
from senet.nn.epsilon import read_epsilon
from senet.nn.fused import can_fuse_activated, excite, is_watched, normalize, normalize_activate, train_excitation

__all__ = ["Call", "in_backward"]


def in_backward() -> bool:
    """Return whether backward is running in this thread."""
    return torch._C._current_graph_task_id() != -1


class _Excitation(NamedTuple):
    """What `normalize` reads of an SE block."""

    excite: Callable[[Tensor], Tensor]
    squeeze: str = "avg"


class Call:
    """One fusion in one call of its block.

    Attributes:
        norm, activation, se: the modules.
    """

    def __init__(self, block: nn.Module, fusion: Fusion, norm: Any, activation: nn.Module | None, se: Any) -> None:
        self._block, self._fusion = block, fusion
        self.norm, self.activation, self.se = norm, activation, se
        self._made: Callable[[], Tensor | Deferred | None] | None = None
        self._version: int | None = None
        self._passed = 0  # how often the map passed through the activation
        self._with_gradients = True

    @classmethod
    def of(cls, block: nn.Module, fusion: Fusion) -> Call | None:
        """Return the call of a fusion; None if a module, the code of one or an option of the block changed since."""
        norm, se = submodule(block, fusion.norm), submodule(block, fusion.se)
        activation = None if fusion.activated_by is None else submodule(block, fusion.activated_by)
        roles = ("norm", None if fusion.attached else "se", None if fusion.activated_by is None else "activation")
        parts = (norm, se, activation)
        same = fusion.kinds == tuple(kind_of(part) for part in parts if part is not None)
        same = same and fusion.forwards.are_current and fusion.options == options_of(block)
        return cls(block, fusion, norm, activation, se) if same and (*map(role_of, parts),) == roles else None

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules that take part in it."""
        return (self.norm, self.se) if self.activation is None else (self.norm, self.se, self.activation)

    @property
    def waits(self) -> bool:
        """Whether the batch norm returned a recalibrated map that SE did not take yet."""
        return self._made is not None

    def has_made(self, x: object) -> bool:
        """Return whether a tensor is the one that the batch norm returned, unchanged since."""
        made = None if self._made is None else self._made()
        return made is not None and made is x and _version(made) == self._version

    def se_is_in(self, activation: nn.Module) -> bool:
        """Return whether the SE is a child of an activation."""
        return activation is self.activation and self._fusion.is_inside(self._fusion.activated_by)

    def take(self, x: object) -> None:
        """Let SE take the map.

        Raises:
            RuntimeError: it is another one, or did not pass through the activation once.
        """
        if not self.has_made(x):
            self.refuse()
        if self._passed != self._fusion.passes_activation:
            self.refuse(f"{self._passed} calls of the activation {self._fusion.activated_by!r} precede SE")
        self._check_gradients(x)
        self._made = None

    def pass_through(self, x: object) -> None:
        """Let the activation take the map.

        Raises:
            RuntimeError: it runs without gradients.
        """
        self._check_gradients(x)
        self._passed += 1

    def _check_gradients(self, x: Any) -> None:
        """Check that what takes the map has gradients as the batch norm has, whose gradients contain its own.

        And that nothing observes the gradient of the map, which is another one.
        """
        if type(x) is not Deferred and (x._backward_hooks or x.retains_grad):
            self.refuse("register_hook or retain_grad observes the gradient of the map before SE")
        if self._with_gradients and not torch.is_grad_enabled() and (type(x) is Deferred or x.requires_grad):
            self.refuse("a part runs without gradients, as in a reentrant checkpoint without the batch norm")
        if self._with_gradients or not torch.is_grad_enabled() or x.requires_grad:
            return
        if any(parameter.requires_grad for parameter in self.se.parameters()):
            self.refuse("the batch norm alone runs without gradients")

    def refuse(self, why: str = "something else takes or changes the output of the batch norm") -> None:
        """Raise the error for a map that does not reach SE as it has to."""
        raise RuntimeError(
            f"senet.fuse computes the SE {self._fusion.se!r} of this {type(self._block).__name__} in its batch norm "
            f"{self._fusion.norm!r}, and in this call {why}: call senet.unfuse(model)"
        )

    def normalize(self, y: Any) -> Tensor | Deferred | None:
        """Return the recalibrated map; None if each module has to compute its own function."""
        norm, fusion = self.norm, self._fusion
        if (
            type(y) not in (Tensor, nn.Parameter)
            or not in_training(norm)
            or not can_fuse_activated(y)  # first, since in a trace sizes are tensors
            or y.ndim != fusion.rank
            or y.shape[1] != norm.num_features
            or y.numel() == y.shape[1]
            or (norm.track_running_stats and norm.running_mean is None)  # which counts batches all the same
            or not self._as_found(y)
        ):
            return None
        if self.waits:
            self.refuse()
        out = Deferred(partial(self._computed, y), y) if self._defers() else self._computed(y)
        if not fusion.is_inside(fusion.norm):
            self._made, self._version = weakref.ref(out), _version(out)
            self._passed, self._with_gradients = 0, torch.is_grad_enabled()
        return out

    def _computed(self, y: Tensor, skip: Tensor | None = None) -> Tensor:
        norm, fusion = self.norm, self._fusion
        block = read_excitation(fusion, self.se, y)
        # Of (N, C) values, a linear layer takes half the time of a convolution.
        gates_of = excitation_of(fusion, self.se) if block is None else partial(excite, se=block)
        arguments = (y, norm.weight, norm.bias, running_statistics(norm), read_epsilon(norm))
        if fusion.activation is None:
            whole = None if block is None else train_excitation(*arguments, block, skip)
            if whole is not None:
                return whole
            return normalize(*arguments, _Excitation(gates_of), skip)  # type: ignore[arg-type]
        return normalize_activate(*arguments, fusion.activation, gates_of)

    def _defers(self) -> bool:
        """Return whether a sum and a ReLU follow, as far as a run showed, and nothing observes what they take.

        Checkpointing runs a function without gradients, or with hooks on saved tensors, and again in backward; the ReLU
        may be outside of the function.
        """
        hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
        if not self._fusion.sum_relu or not torch.is_grad_enabled() or hooks is not None or in_backward():
            return False
        relu, *idle = (submodule(self._block, name) for name in self._fusion.sum_relu)
        known = role_of(relu) == "activation" and all(type(module) is nn.Identity for module in idle)
        return known and not any(map(_is_observed, (relu, *idle)))

    def _as_found(self, y: Tensor) -> bool:
        """Return whether no hook or replaced `forward` observes a map that is not computed, and SE pools it whole."""
        block, fusion = self._block, self._fusion
        observers = [submodule(block, name) for name in fusion.observers]
        if any(map(_is_observed, (*self.modules, *observers))):
            return False
        if any(type(submodule(block, name)) is not nn.Identity for name in fusion.idle):
            return False
        own = isinstance(self.se, SqueezeExcitation)
        activation = None if fusion.attached else self.activation
        if fusion.settings != (None if own else settings_of(self.se), settings_of(activation)):
            return False
        return not own or (self.se.squeeze == "avg" and not self.se.slides(y))


def _version(x: Tensor | Deferred) -> int | None:
    """Return a number that another use of a map, or a change in place, changes; None if it has none."""
    if isinstance(x, Deferred):
        return int(x.is_used)
    return None if x.is_inference() else x._version


def _is_observed(module: nn.Module | None) -> bool:
    """Return whether a module has hooks, a replaced `forward` or one compiled by itself, or is missing."""
    if module is None or is_watched(module):
        return True
    return module.__dict__.get("_compiled_call_impl") is not None
