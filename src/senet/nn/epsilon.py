"""The `eps` of a batch norm that holds SE: a number to read, that refuses to be folded into a convolution."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

__all__ = ["Epsilon", "read_epsilon", "write_epsilon"]


def read_epsilon(module: Any) -> float:
    """Return the number of a batch norm's `eps`, also where `eps` is a property that gives an `Epsilon`."""
    values = module.__dict__
    return values["_eps"] if "_eps" in values else values["eps"]  # type: ignore[no-any-return]


def write_epsilon(module: Any, value: Any) -> None:
    """Set the number of a batch norm whose `eps` is a property.

    It is kept under a second name as well: while compiling, Dynamo (of PyTorch 2.11, for one) takes
    `module.__dict__["eps"]` for `module.eps`, and would follow a property that reads it without end.
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
    """What `eps` of a batch norm with SE gives to code outside its forward.

    Folding a batch norm takes `weight / sqrt(running_var + eps)`, whoever does it, and the result has no SE. So this
    number compares, prints and converts as the float that it is, and raises in an operation with a tensor.

    Args:
        value: the number.
    """

    __array_ufunc__ = None  # NumPy leaves arithmetic to the methods below

    def __init__(self, value: float) -> None:
        self.value = value

    @staticmethod
    def refuse() -> None:
        """Raise what an operation with a tensor does."""
        raise ValueError(
            "this batch norm holds SE, which folding its statistics into a convolution would drop: take SE out first "
            "with senet.remove, or fold its gates with senet.fold_gates; float(bn.eps) is the number alone"
        )

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Raise: it is an argument of an operation on tensors."""
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
