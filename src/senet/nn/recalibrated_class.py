"""The class of a module with SE attached: a subclass of its class, whose `forward` calls the children that hold SE."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from senet.nn.epsilon import Epsilon, read_epsilon, write_epsilon
from senet.nn.symbolic import emit_call
from senet.utils.errors import not_scriptable

__all__ = ["OWN", "Spec", "base_class", "method_of", "resubclass", "set_class", "spec_of"]

# Class attribute of the subclasses of `senet.fusion`, which are outermost.
_ROLE = "_senet_role"
# Instance attribute that stores a module's own `forward` while SE is attached.
OWN = "_forward_without_se"


@dataclass(frozen=True)
class Spec:
    """What a class applies around its base. Another spec is another class, which Dynamo guards.

    Attributes:
        inputs, outputs: children that recalibrate the first argument, or the output, in this order.
        method: the method that is wrapped: the base's "forward", another method of the base that a tool assigned to
            `forward`, or `OWN`.
        folds: whether the module has statistics that tools fold into a convolution.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    method: str = "forward"
    folds: bool = False


def base_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module without SE: `type(module)` where none is attached and `senet.fuse` changed none."""
    cls = type(module)
    if _ROLE in vars(cls):
        cls = cls.__bases__[0]
    if spec_of(module) is None:
        return cls
    if "_senet_spec" in vars(cls):
        return cls.__bases__[0]
    # Another tool subclassed it again, as parametrizations do: return that class without SE.
    return resubclass(cls, {base: base.__bases__[0] for base in cls.__bases__ if "_senet_spec" in vars(base)})


def spec_of(module: nn.Module) -> Spec | None:
    """Return what the class of a module applies; None where no SE is attached."""
    return getattr(type(module), "_senet_spec", None)


def set_class(module: nn.Module, base: type[nn.Module], spec: Spec | None) -> None:
    """Set the class of a module to `base` with the children of a spec, or to `base` itself."""
    module.__dict__.pop("_eps", None)
    if spec is None:
        module.__class__ = base
        return
    if base.__name__.startswith("Parametrized") and hasattr(module, "parametrizations"):
        # The parametrized class must stay outermost: remove_parametrizations restores its base.
        inner = base.__bases__[0]
        module.__class__ = resubclass(base, {inner: _class(inner, spec)})
    else:
        module.__class__ = _class(base, spec)
    if spec.folds:
        write_epsilon(module, module.__dict__["eps"])


def resubclass(cls: type, bases: dict[type, type]) -> type[nn.Module]:
    """Return a copy of a class with other bases in place of some."""
    own = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, tuple(bases.get(base, base) for base in cls.__bases__), own)


def method_of(module: nn.Module, base: type, function: Any) -> str | None:
    """Return the name of a bound method of `module` if it is a method of `base`; None for any other function."""
    if getattr(function, "__self__", None) is not module:
        return None
    name = getattr(function, "__name__", "")
    return name if getattr(base, name, None) is function.__func__ else None


_classes: dict[tuple[type, Spec], type[nn.Module]] = {}


def _class(base: type, spec: Spec) -> type[nn.Module]:
    """Return the subclass of `base` that applies children to input and output, cached by base and spec."""
    if (base, spec) not in _classes:
        _classes[base, spec] = _make_class(base, spec)
    return _classes[base, spec]


def _make_class(base: Any, spec: Spec) -> type[nn.Module]:

    def refuse_init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} cannot be constructed directly: build a {base.__name__} and call senet.insert"
        )

    def reduce(self: nn.Module, protocol: Any) -> Any:
        made, own = base.__reduce_ex__(self, protocol), type(self)
        if (own is not cls and not (_ROLE in vars(own) and own.__bases__[0] is cls)) or isinstance(made, str):
            return made
        make, args, *state = made
        return (_restore, (spec, make, tuple(base if arg in (cls, own) else arg for arg in args)), *state)

    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        if name == "forward":
            _set_forward(self, value)
            return
        if name == "bias":
            _refuse_folding(self, spec, value)
        base.__setattr__(self, name, value)

    def register_parameter(self: nn.Module, name: str, value: Any) -> None:
        if name == "bias":
            _refuse_folding(self, spec, value)
        base.register_parameter(self, name, value)

    def refuse_script(self: nn.Module) -> NoReturn:
        raise not_scriptable(self)

    members = {
        "__module__": __name__,
        "__doc__": f"{base.__name__} with SE, see `senet.nn.recalibration`.",
        "__init__": refuse_init,
        "__reduce_ex__": reduce,
        "__setattr__": set_attribute,
        "register_parameter": register_parameter,
        "__prepare_scriptable__": refuse_script,
        "_senet_spec": spec,
        "forward": _forward(base, spec),
    }
    if spec.folds:
        members["eps"] = property(_eps, _set_eps)
    cls: type[nn.Module] = type(f"Recalibrated{base.__name__}", (base,), members)
    return cls


def _restore(spec: Spec, make: Callable[..., nn.Module], args: tuple[Any, ...]) -> nn.Module:
    """Rebuild a module from a copy or a pickle, first as its base class, which may define its own copying."""
    module = make(*args)
    module.__class__ = _class(type(module), spec)
    return module


def _forward(base: type[nn.Module], spec: Spec) -> Callable[..., Any]:
    """Return the `forward` of a class with SE."""
    inputs, outputs, method, folds = spec.inputs, spec.outputs, spec.method, spec.folds
    # Modules of PyTorch are leaves of a symbolic trace, as several cannot be traced; other modules are traced through.
    leaf = base.__module__.startswith(("torch.nn.", "torch.ao.nn."))

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if leaf:
            call = emit_call(self, args, kwargs)
            if call is not None:
                return call
        for name in inputs:
            if not args:
                raise ValueError(
                    f"SE acts on the input of this {base.__name__}, which was called with keywords only; "
                    f"pass the map as the first argument"
                )
            args = (_recalibrated(self, name, args[0]), *args[1:])
        if folds and not torch.compiler.is_compiling():
            with _inside:
                output = _call(self, base, method, args, kwargs)
        else:
            output = _call(self, base, method, args, kwargs)
        for name in outputs:
            output = _recalibrated(self, name, output)
        return output

    # FX and torch.export read the names of arguments. TorchScript would read the base's source, and is refused.
    return wraps(getattr(base, "forward" if method == OWN else method))(forward)


def _call(self: nn.Module, base: type, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if method == OWN:
        return self.__dict__[OWN](*args, **kwargs)
    return getattr(base, method)(self, *args, **kwargs)


def _recalibrated(module: nn.Module, name: str, x: Any) -> Any:
    child = module._modules.get(name)
    if child is None:
        spec = spec_of(module)
        if spec is None or name not in spec.inputs + spec.outputs:
            return x  # SE was removed, and a wrapper of the former forward is still in place
        raise AttributeError(
            f"the child {name!r} of this {base_class(module).__name__}, which holds SE, was deleted; remove SE with "
            f"senet.remove(model)"
        )
    if not isinstance(x, Tensor | Proxy):
        which = "input" if getattr(child, "how", "") == "input" else "output"
        raise TypeError(
            f"SE acts on the {which} of this {base_class(module).__name__}, which is a {type(x).__name__} and not a "
            f"tensor; name a module inside it, whose {which} is a map (N, C, *spatial), with at="
        )
    return child(x)


def _set_forward(module: nn.Module, function: Any) -> None:
    """Handle `module.forward = function`: wrap another method with SE, and accept a wrapper that calls SE."""
    spec: Any = spec_of(module)
    method = method_of(module, base_class(module), function)
    if getattr(function, "__func__", None) is type(module).forward:
        module.__dict__.pop("forward", None)
    elif method is not None:  # as detectors assign forward_fuse
        module.__dict__.pop("forward", None)
        set_class(module, base_class(module), replace(spec, method=method))
    elif _reaches(function, type(module).forward, module):
        module.__dict__["forward"] = function
    else:
        raise TypeError(
            f"this {base_class(module).__name__} has SE in its forward, which {function!r} would replace without a "
            f"call; call senet.remove(model) first, and insert SE afterwards"
        )


def _refuse_folding(module: nn.Module, spec: Spec, bias: Any) -> None:
    """Refuse a bias for a layer without one: a batch norm folded into it would precede SE instead of follow it."""
    if spec.outputs and bias is not None and module._parameters.get("bias", bias) is None:
        raise ValueError(
            f"SE acts on the output of this {base_class(module).__name__} without bias, and a batch norm folded into "
            f"it would precede SE: insert SE at that batch norm, or call senet.remove first"
        )


def _reaches(function: Any, wanted: Any, module: nn.Module) -> bool:
    """Return whether a function references another one, as wrappers do: in its closure, attributes or the module's."""
    stack, seen = [function], set[int]()
    while stack and len(seen) < 1000:
        value = stack.pop()
        if value is wanted:
            return True
        if id(value) in seen or isinstance(value, type | Tensor | str):
            continue
        if isinstance(value, nn.Module) and value is not module:
            continue
        seen.add(id(value))
        for name in ("__func__", "__wrapped__", "__self__", "func"):
            stack.append(getattr(value, name, None))
        for cell in getattr(value, "__closure__", None) or ():
            stack.append(cell.cell_contents)
        stack.extend(value if isinstance(value, tuple | list) else (getattr(value, "args", None),))
        stack.extend(getattr(value, "__defaults__", None) or ())
        stack.extend(getattr(value, "__dict__", {}).values())
    return False


class _Inside(threading.local):
    """Within a forward, in its thread, `eps` is a number; elsewhere it is an `Epsilon`, which refuses folding."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1


_inside = _Inside()


def _eps(module: nn.Module) -> Any:
    if torch.compiler.is_compiling() or _inside.depth:
        return read_epsilon(module)
    return Epsilon(read_epsilon(module))


def _set_eps(module: nn.Module, value: Any) -> None:
    write_epsilon(module, value)
