"""Updates that a flag on the device cancels, so that the host does not wait to see whether a step was finite."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["MaskedOptimizer", "Saved", "cancel_where"]

# The integer type of each size in bytes.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Saved:
    """Copies of tensors, from which they can be restored.

    Args:
        tensors: which keep their memory.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        some = list(tensors)
        self._bits, self._copies = _Bits(some), _Bits([torch.empty_like(tensor) for tensor in some])

    def save(self) -> None:
        """Copy the current values of the tensors."""
        self._copies.copy_(self._bits)

    def restore(self, cancelled: bool | Tensor) -> None:
        """Restore the values saved last, if a flag is set.

        Args:
            cancelled: the flag: a bool, or a boolean tensor () on the tensors' device.
        """
        if isinstance(cancelled, Tensor):
            self._bits.select_(self._copies.where(cancelled), cancelled)
        elif cancelled:
            self._bits.copy_(self._copies)


def cancel_where(tensors: Callable[[], list[Tensor]], cancelled: Tensor, update: Callable[[], object]) -> None:
    """Make an update, and restore the values before it if a flag on the device is set.

    Args:
        tensors: returns all that the update changes; called before and after it, since it may replace tensors by others
            of equal shapes.
        cancelled: (), boolean.
        update: called once.
    """
    before = _Bits(tensors()).where(cancelled)
    update()
    _Bits(tensors()).select_(before, cancelled)


class _Bits:
    """The bits of tensors, as integers of equal size: products with 0 and 1 are exact, and do not propagate NaN.

    They are grouped by type, since PyTorch's foreach functions are fast only for tensors of one type.

    Args:
        tensors: whose memory is viewed.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            kind = _INTEGERS[tensor.element_size()]
            self._groups[kind].append(tensor.detach().view(kind))

    def copy_(self, other: "_Bits") -> None:
        """Copy the bits of other tensors."""
        for kind, bits in self._groups.items():
            torch._foreach_copy_(bits, other._groups[kind])

    def where(self, flag: Tensor) -> dict[torch.dtype, list[Tensor]]:
        """Return copies of the bits if a flag is set, and zeros otherwise."""
        return {kind: list(torch._foreach_mul(bits, flag.to(kind))) for kind, bits in self._groups.items()}

    def select_(self, others: dict[torch.dtype, list[Tensor]], flag: Tensor) -> None:
        """Replace the bits by others of `where` if the same flag is set, and keep them otherwise."""
        if {kind: len(bits) for kind, bits in others.items()} != {k: len(bits) for k, bits in self._groups.items()}:
            raise RuntimeError("an update changed the number of tensors, and cannot be cancelled")
        for kind, bits in self._groups.items():
            torch._foreach_mul_(bits, (~flag).to(kind))
            torch._foreach_add_(bits, others[kind])


class MaskedOptimizer:
    """Steps of an optimizer that a flag on the device can cancel.

    PyTorch's fused optimizers accept the flag, as they accept the flag of a gradient scaler. For other optimizers, the
    parameters and the state are restored. Neither is possible before a parameter's first step, which makes its state,
    nor if an optimizer counts its steps in Python or on the CPU.

    Args:
        optimizer: any of PyTorch's or timm's.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer: Any = optimizer
        self._seen: set[int] = set()  # parameters that have made a step
        self._counts = False  # whether it counts on the host

    def can_mask(self, counts_matter: bool) -> bool:
        """Return whether `step` accepts a flag on the device.

        Args:
            counts_matter: training continues after a cancelled step, as if that step had not been made.
        """
        if self._counts and counts_matter:
            return False
        return all(id(p) in self._seen for p in self._trained())

    def step(self, cancelled: bool | Tensor) -> None:
        """Make a step, unless a flag is set.

        Args:
            cancelled: the flag: a bool; or, see `can_mask`, a boolean tensor () on the parameters' device.
        """
        if not isinstance(cancelled, Tensor):
            if not cancelled:
                self._plain_step()
        elif getattr(self._optimizer, "_step_supports_amp_scaling", False):
            self._optimizer.grad_scale, self._optimizer.found_inf = None, cancelled.float()
            try:
                self._optimizer.step()
            finally:
                del self._optimizer.grad_scale, self._optimizer.found_inf
        else:
            cancel_where(self._tensors, cancelled, self._optimizer.step)

    def _plain_step(self) -> None:
        trained = {id(p) for p in self._trained()}
        if trained <= self._seen:
            self._optimizer.step()
            return
        before = self._numbers()
        self._optimizer.step()
        self._seen |= trained
        self._counts = self._counts or self._numbers() != before or self._has_host_state()

    def _trained(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]

    def _tensors(self) -> list[Tensor]:
        """Return what a step may change on the parameters' devices: parameters with gradients, and the state.

        A flag cannot restore what an optimizer keeps on the host, such as a number of steps: see `can_mask`.
        """
        devices = self._devices()
        return [tensor for tensor in self._all_tensors() if tensor.device in devices]

    def _all_tensors(self) -> list[Tensor]:
        groups = self._optimizer.param_groups
        parameters = [p for p in self._trained() if p.grad is not None]
        values = [value for state in self._optimizer.state.values() for value in state.values()]
        values += [value for group in groups for key, value in group.items() if key not in ("params", "lr")]
        return parameters + [value for value in values if isinstance(value, Tensor)]

    def _numbers(self) -> list[Any]:
        """Return the numbers of the optimizer and of its groups, among which may be numbers of steps."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self._optimizer.param_groups]
        return [
            {
                key: value
                for key, value in values.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            for values in (vars(self._optimizer), *groups)
        ]

    def _has_host_state(self) -> bool:
        """Return whether the state has anything but flags, and tensors on the parameters' devices."""
        devices = self._devices()
        values = [value for state in self._optimizer.state.values() for value in state.values()]
        if any(not isinstance(value, Tensor | bool | None) for value in values):
            return True
        return any(tensor.device not in devices for tensor in self._all_tensors())

    def _devices(self) -> set[torch.device]:
        return {p.device for group in self._optimizer.param_groups for p in group["params"]}
