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
        self._tensors = list(tensors)
        self._copies = [torch.empty_like(tensor) for tensor in self._tensors]

    def save(self) -> None:
        """Take the values that the tensors have."""
        _copy(self._tensors, self._copies)

    def restore(self, cancelled: bool | Tensor) -> None:
        """Set the tensors back to the values saved last, if a flag says so.

        Args:
            cancelled: the flag, known already or a boolean () on the tensors' device; the copies are then used up.
        """
        if isinstance(cancelled, Tensor):
            _restore(self._tensors, _multiplied(self._copies, cancelled), cancelled)
        elif cancelled:
            _copy(self._copies, self._tensors)


def cancel_where(tensors: Callable[[], list[Tensor]], cancelled: Tensor, update: Callable[[], object]) -> None:
    """Make an update, and set tensors back to their values before it where a flag on the device says so.

    Args:
        tensors: all that the update changes, found before and after it: it may replace them by others of equal shapes.
        cancelled: (), boolean.
        update: called once.
    """
    before = _multiplied(tensors(), cancelled)
    update()
    _restore(tensors(), before, cancelled)


def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for (_, _, bits), (_, _, targets) in zip(_by_kind(values), _by_kind(into), strict=True):
        torch._foreach_copy_(targets, bits)


def _multiplied(tensors: Sequence[Tensor], flag: Tensor) -> list[Tensor]:
    """Bits where a flag is set, and 0 elsewhere: exact, and no NaN spreads, as it does in products of numbers."""
    found: list[Tensor] = [flag] * len(tensors)
    for kind, places, bits in _by_kind(tensors):
        for place, product in zip(places, torch._foreach_mul(bits, flag.to(kind)), strict=True):
            found[place] = product
    return found


def _restore(tensors: Sequence[Tensor], before: Sequence[Tensor], cancelled: Tensor) -> None:
    """Add up bits: `before` holds those of cancelled tensors, and tensors keep theirs elsewhere."""
    if len(tensors) != len(before):
        raise RuntimeError(f"an update made {len(tensors)} tensors of {len(before)}, and cannot be cancelled")
    for kind, places, bits in _by_kind(tensors):
        torch._foreach_mul_(bits, (~cancelled).to(kind))
        torch._foreach_add_(bits, [before[place] for place in places])


def _by_kind(tensors: Sequence[Tensor]) -> list[tuple[torch.dtype, list[int], list[Tensor]]]:
    """Views of tensors as integers, and their places, by type: foreach functions are fast for tensors of one type."""
    places: dict[torch.dtype, list[int]] = defaultdict(list)
    for place, tensor in enumerate(tensors):
        places[_INTEGERS[tensor.element_size()]].append(place)
    return [(kind, some, [tensors[place].detach().view(kind) for place in some]) for kind, some in places.items()]


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
        """What a step may change: parameters that have gradients, and all tensors of the state."""
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
        devices = {p.device for group in self._optimizer.param_groups for p in group["params"]}
        values = [value for state in self._optimizer.state.values() for value in state.values()]
        if any(not isinstance(value, Tensor | bool | None) for value in values):
            return True
        return any(tensor.device not in devices for tensor in self._tensors())
