"""The `eps` of a batch norm with SE: a number that raises when it is folded into a convolution."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

__all__ = ["Epsilon", "read_epsilon", "write_epsilon"]


def read_epsilon(module: Any) -> float:
    """Return a batch norm's `eps` as a float, also if `eps` is a property that returns an `Epsilon`."""
    values = module.__dict__
    return values["_eps"] if "_eps" in values else values["eps"]  # type: ignore[no-any-return]


def write_epsilon(module: Any, value: Any) -> None:
    """Set `eps` of a batch norm whose `eps` is a property.

    The value is stored under a second name too: Dynamo (for example of PyTorch 2.11) treats `module.__dict__["eps"]` as
    `module.eps`, so a property that reads it would recurse endlessly.
    """
    module.__dict__["eps"] = module.__dict__["_eps"] = float(value)


def _arithmetic(name: str) -> Callable[[Epsilon, Any], Any]:
    def method(self: Epsilon, other: Any) -> Any:
        if isinstance(other, Epsilon):
            other = other.value
        if not isinstance(other, int | float):
            self.refuse()
        pair = (other, self.value) if name.startswith("r") else (self.value, other)
        return getattr(operator, name.removeprefix("r") if name.startswith("r") else name)(*pair)

    return method


class Epsilon:
    """Value of `eps` of a batch norm with SE, outside its forward.

    Any folding of a batch norm computes `weight / sqrt(running_var + eps)`, and would drop SE. So this number behaves
    as a float, but raises in operations with tensors.

    Args:
        value: the number.
    """

    __array_ufunc__ = None  # NumPy uses the methods below

    def __init__(self, value: float) -> None:
        self.value = value

    @staticmethod
    def refuse() -> None:
        """Raise the error for operations with tensors."""
        raise ValueError(
            "this batch norm holds SE, which folding its statistics into a convolution would drop: remove SE first "
            "with senet.remove, or fold its gates with senet.fold_gates; float(bn.eps) returns the number"
        )

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Raise, since this number is an argument of a tensor operation."""
        cls.refuse()

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __abs__(self) -> float:
        return abs(self.value)

    def __neg__(self) -> float:
        return -self.value

    def __reduce__(self) -> tuple[Any, ...]:
        return (float, (self.value,))

    def __eq__(self, other: object) -> Any:
        return self.value == (other.value if isinstance(other, Epsilon) else other)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    for _method in (_name, f"r{_name}"):
        setattr(Epsilon, f"__{_method}__", _arithmetic(_method))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Epsilon, f"__{_name}__", _arithmetic(_name))
Real.register(Epsilon)
