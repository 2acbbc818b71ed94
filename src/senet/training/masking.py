"""Updates that a flag on the device cancels, so that no step waits to learn whether it was finite."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["MaskedOptimizer", "Saved", "cancel_where"]

# Of each size in bytes, the integers that hold its bits.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Saved:
    """Copies of tensors, to set them back to.

    Args:
        tensors: which stay where they are in memory.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        some = list(tensors)
        self._bits, self._copies = _Bits(some), _Bits([torch.empty_like(tensor) for tensor in some])

    def save(self) -> None:
        """Take the values that the tensors have."""
        self._copies.copy_(self._bits)

    def restore(self, cancelled: bool | Tensor) -> None:
        """Set the tensors back to the values saved last, if a flag says so.

        Args:
            cancelled: the flag, known already or a boolean () on the tensors' device.
        """
        if isinstance(cancelled, Tensor):
            self._bits.select_(self._copies.where(cancelled), cancelled)
        elif cancelled:
            self._bits.copy_(self._copies)


def cancel_where(tensors: Callable[[], list[Tensor]], cancelled: Tensor, update: Callable[[], object]) -> None:
    """Make an update, and set tensors back to their values before it where a flag on the device says so.

    Args:
        tensors: all that the update changes, found before and after it: it may replace them by others of equal shapes.
        cancelled: (), boolean.
        update: called once.
    """
    before = _Bits(tensors()).where(cancelled)
    update()
    _Bits(tensors()).select_(before, cancelled)


class _Bits:
    """The bits of tensors, as integers of their size: their products with 0 and 1 are exact, and spread no NaN.

    They are grouped by type, as PyTorch's foreach functions are fast for tensors of one type alone.

    Args:
        tensors: whose memory is viewed.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            kind = _INTEGERS[tensor.element_size()]
            self._groups[kind].append(tensor.detach().view(kind))

    def copy_(self, other: "_Bits") -> None:
        """Take the bits of others."""
        for kind, bits in self._groups.items():
            torch._foreach_copy_(bits, other._groups[kind])

    def where(self, flag: Tensor) -> dict[torch.dtype, list[Tensor]]:
        """New tensors of the bits where a flag is set, and of 0 elsewhere."""
        return {kind: list(torch._foreach_mul(bits, flag.to(kind))) for kind, bits in self._groups.items()}

    def select_(self, others: dict[torch.dtype, list[Tensor]], flag: Tensor) -> None:
        """Take the bits of others where a flag is set, by which they were selected; and keep these elsewhere."""
        if {kind: len(bits) for kind, bits in others.items()} != {k: len(bits) for k, bits in self._groups.items()}:
            raise RuntimeError("an update changed how many tensors there are, and cannot be cancelled")
        for kind, bits in self._groups.items():
            torch._foreach_mul_(bits, (~flag).to(kind))
            torch._foreach_add_(bits, others[kind])


class MaskedOptimizer:
    """Steps of an optimizer that a flag on the device can cancel.

    PyTorch's fused optimizers take the flag themselves, as they take that of a gradient scaler. Of any other, the
    parameters and the state are set back. Neither is possible before a parameter's first step, which makes its state;
    nor where an optimizer counts its steps in Python or on the CPU.

    Args:
        optimizer: any of PyTorch's or timm's.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer: Any = optimizer
        self._seen: set[int] = set()  # parameters that have made a step
        self._counts = False  # whether it counts on the host

    def can_mask(self, counts_matter: bool) -> bool:
        """Whether `step` may be given a flag on the device.

        Args:
            counts_matter: steps follow a cancelled one, and are to be as if it had not been.
        """
        if self._counts and counts_matter:
            return False
        return all(id(p) in self._seen for p in self._trained())

    def step(self, cancelled: bool | Tensor) -> None:
        """Step, unless a flag says otherwise.

        Args:
            cancelled: the flag, known already or a boolean () on the device of the parameters: see `can_mask`.
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
        """What a step may change on the parameters' devices: parameters that have gradients, and the state.

        A flag cannot set back what an optimizer keeps on the host, such as a count of steps: see `can_mask`.
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
        """Numbers of the optimizer itself and of its groups, among which may be counts of steps."""
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
        """Whether the state holds anything but flags, and tensors on the parameters' device."""
        devices = self._devices()
        values = [value for state in self._optimizer.state.values() for value in state.values()]
        if any(not isinstance(value, Tensor | bool | None) for value in values):
            return True
        return any(tensor.device not in devices for tensor in self._all_tensors())

    def _devices(self) -> set[torch.device]:
        return {p.device for group in self._optimizer.param_groups for p in group["params"]}
