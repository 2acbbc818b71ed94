"""A recalibrated map that is not computed yet, since a sum and a ReLU may follow, with which it is one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["Deferred"]

# By whether they change their first argument.
_SUMS = {"add": False, "__add__": False, "__radd__": False, "add_": True, "__iadd__": True}


class Deferred:
    """Stands for a map between a batch norm and a ReLU in the forward of a residual unit.

    The sum with a skip is noted, and computed together with the ReLU. Any other use computes the map: as an argument of
    a function of PyTorch, or by reading an attribute.

    Args:
        compute: returns the map; with a skip, the ReLU of their sum. It is called once, as it updates statistics.
        y: the input of the batch norm, whose shape, dtype and device the map has.
    """

    def __init__(self, compute: Callable[[Tensor | None], Tensor], y: Tensor) -> None:
        self._compute, self._y = compute, y
        self._map: Deferred = self  # without a skip
        self._skip: Tensor | None = None
        self._known: Tensor | None = None
        self._spent = False

    @property
    def is_used(self) -> bool:
        """Whether something else than a sum with a ReLU took the map."""
        return self._known is not None

    def relu(self, in_place: bool = False) -> Tensor:
        """Return the ReLU of the map, or of the sum; in place, this object stands for it from now on."""
        if self._skip is None or self._map._known is not None or self._map._spent:
            return self.value().relu_() if in_place else self.value().relu()
        self._map._spent = True
        out = self._compute(self._skip)
        if in_place:
            self._known = out
        return out

    def value(self) -> Tensor:
        """Return the map, or the sum.

        Raises:
            RuntimeError: the map was computed with a sum and a ReLU before.
        """
        if self._known is None and self._skip is not None:
            self._known = self._map.value() + self._skip
        elif self._known is None:
            if self._spent:
                raise RuntimeError(
                    "senet.fuse computed a map together with the sum and the ReLU after it, and it is used once more: "
                    "call senet.unfuse(model)"
                )
            self._known = self._compute(None)
        return self._known

    def __add__(self, other: Any) -> Any:
        """Return the sum, not computed yet if `other` is a map of the same kind."""
        y = self._y
        fits = type(other) is Tensor and (other.shape, other.dtype, other.device) == (y.shape, y.dtype, y.device)
        if self._skip is not None or self._known is not None or not fits:
            return self.value() + other
        total = Deferred(self._compute, y)
        total._map, total._skip = self, other
        return total

    __iadd__ = __radd__ = __add__

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the map."""
        return getattr(self.value(), name)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a sum, or call another function of PyTorch with the map."""
        in_place = _SUMS.get(getattr(function, "__name__", ""))
        if in_place is not None and len(args) == 2 and not kwargs:
            one, other = args
            if isinstance(one, cls):
                return one + (other.value() if isinstance(other, cls) else other)
            if not in_place:
                return other + one
        args, kwargs = tree_map(lambda leaf: leaf.value() if isinstance(leaf, cls) else leaf, (args, kwargs or {}))
        return function(*args, **kwargs)
