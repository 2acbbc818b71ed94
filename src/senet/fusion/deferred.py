"""A recalibrated map that is not computed yet, since a sum and a ReLU may follow, with which it is one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["Deferred"]

# By whether they change their first argument.
_SUMS = {"add": False, "__add__": False, "__radd__": False, "add_": True, "__iadd__": True}
# Further special methods of a tensor, which Python looks up on the class.
_BINARY = ("sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_SPECIAL = [
    *(f"__{prefix}{name}__" for name in _BINARY for prefix in ("", "r", "i")),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__neg__", "__pos__", "__abs__", "__invert__"),
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__repr__", "__format__", "__array__"),
    *("__len__", "__iter__", "__reversed__", "__contains__", "__getitem__", "__setitem__"),
    *("__deepcopy__", "__reduce_ex__"),
]


class Deferred:
    """Stands for a map between a batch norm and a ReLU in the forward of a residual unit.

    The sum with a skip is noted, and computed together with the ReLU. Any other use computes the map: as an argument of
    a function of PyTorch, as an operand, or by reading an attribute.

    Args:
        compute: returns the map; with a skip, the ReLU of their sum. It is called once, as it updates statistics.
        y: the input of the batch norm, whose shape, dtype and device the map has.
    """

    def __init__(self, compute: Callable[[Tensor | None], Tensor], y: Tensor) -> None:
        self._compute, self._y = compute, y
        self._map: Deferred = self  # without a skip
        self._skip: Tensor | None = None
        self._skip_version = 0
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
        skip = self._checked(self._skip)
        self._map._spent = True
        out = self._compute(skip)
        if in_place:
            self._known = out
        return out

    def value(self) -> Tensor:
        """Return the map, or the sum.

        Raises:
            RuntimeError: the map was computed with a sum and a ReLU before, or the skip changed since the sum.
        """
        if self._known is None and self._skip is not None:
            self._known = self._map.value() + self._checked(self._skip)
        elif self._known is None:
            if self._spent:
                raise RuntimeError(
                    "senet.fuse computed a map together with the sum and the ReLU after it, and it is used once more: "
                    "call senet.unfuse(model)"
                )
            self._known = self._compute(None)
        return self._known

    def _checked(self, skip: Tensor) -> Tensor:
        """Return the skip, which has to be as it was at the sum."""
        if _version(skip) != self._skip_version:
            raise RuntimeError(
                "senet.fuse computes a sum together with the ReLU after it, and a map of the sum was changed in place "
                "before the ReLU: call senet.unfuse(model)"
            )
        return skip

    def _sums_later(self, other: Any) -> bool:
        """Return whether `other` is a tensor of the same shape, dtype and device, and no sum is noted yet."""
        y = self._y
        fits = type(other) is Tensor and (other.shape, other.dtype, other.device) == (y.shape, y.dtype, y.device)
        return fits and self._skip is None and self._known is None

    def __add__(self, other: Any) -> Any:
        """Return the sum; it is not computed yet if `other` is a tensor of the same shape, dtype and device."""
        if not self._sums_later(other):
            return self.value() + other
        total = Deferred(self._compute, self._y)
        total._map, total._skip, total._skip_version = self, other, _version(other)
        return total

    __radd__ = __add__

    def __iadd__(self, other: Any) -> Any:
        """Become the sum, also for other names of this object."""
        if not self._sums_later(other):
            total = self.value()
            total += other
            return total
        self._map, self._skip = Deferred(self._compute, self._y), other
        self._skip_version = _version(other)
        return self

    __hash__ = object.__hash__

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
                other = other.value() if isinstance(other, cls) else other
                return one.__iadd__(other) if in_place else one + other
            if not in_place:
                return other + one
        args, kwargs = _computed((args, kwargs or {}))
        return function(*args, **kwargs)


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _computed(tree: Any) -> Any:
    """Return arguments with maps in place of objects that stand for them."""
    return tree_map(lambda leaf: leaf.value() if isinstance(leaf, Deferred) else leaf, tree)


def _special(name: str) -> Callable[..., Any]:
    """Return a special method that calls that of the map."""

    def method(self: Deferred, *args: Any) -> Any:
        return getattr(self.value(), name)(*_computed(args))

    method.__name__ = name
    return method


for _name in _SPECIAL:
    if hasattr(Tensor, _name):
        setattr(Deferred, _name, _special(_name))
