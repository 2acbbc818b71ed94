"""Modules for functions that a forward calls inline, so that hooks observe or replace their results.

`torch.sigmoid(self.fc2(x))` has no module that returns the gate. A function module tracks the output of `fc2` through a
number of functions, and calls its hooks with the result of the last one.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from senet.graph.operations import Operation, Value

__all__ = ["VIEWS", "FunctionModule", "function_module"]

# They change where elements lie, and not their values.
VIEWS = frozenset(
    (
        *("view", "view_as", "reshape", "reshape_as", "_unsafe_view", "_reshape_alias", "flatten", "unflatten"),
        *("unsqueeze", "squeeze", "expand", "expand_as", "repeat", "permute", "transpose", "movedim", "t"),
        *("contiguous", "clone", "detach", "alias", "to", "_to_copy", "type_as", "float", "half", "double"),
        "__getitem__",
    )
)


class FunctionModule(nn.Module):
    """The functions between a module's output and a value. It is not a part of the network.

    Args:
        source: the module whose output is tracked.
        operations: the operations from the output to the value, without views; none for the output itself.
    """

    def __init__(self, source: nn.Module, operations: Sequence[Operation]) -> None:
        super().__init__()
        self._source = (source,)  # in a tuple, so that it is not a child
        self._operations = list(operations)
        self._inputs: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._outputs: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._handle: RemovableHandle | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the functions to an output of the source."""
        for operation in self._operations:
            function = getattr(torch.ops.aten, operation.name)
            args = [x if isinstance(arg, Value) else arg for arg in operation.args]
            x = function(*args, **operation.kwargs)
        return x

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> RemovableHandle:
        """Register a hook as of a module, called with the value. Its result, if any, replaces the value."""
        return self._register(self._outputs, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any], **options: Any) -> RemovableHandle:
        """Register a hook as of a module, called with the input of the last function, which it cannot replace."""
        return self._register(self._inputs, hook)

    def _register(self, hooks: "OrderedDict[int, Callable[..., Any]]", hook: Callable[..., Any]) -> RemovableHandle:
        if self._handle is None:
            self._handle = self._source[0].register_forward_hook(self._track)
        handle = _Handle(hooks, self)
        hooks[handle.id] = hook
        return handle

    def detach_if_unused(self) -> None:
        """Remove the hook from the source if no own hook is left."""
        if self._handle is not None and not (self._inputs or self._outputs):
            self._handle.remove()
            self._handle = None

    def _track(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return None
        if not self._operations:
            return self.call_hooks(output, output)
        trackers = [*getattr(output, "_trackers", ()), (self, len(self._operations))]
        return _Tracked.of(output, trackers)

    def call_hooks(self, value: Tensor, result: Tensor) -> Tensor:
        """Call the hooks: the last function took `value` and returned `result`."""
        for hook in list(self._inputs.values()):
            hook(self, (value,))
        for hook in list(self._outputs.values()):
            replaced = hook(self, (value,), result)
            result = result if replaced is None else replaced
        return result


class _Handle(RemovableHandle):
    """A handle of a hook. Removing the last one detaches the function module from its source."""

    def __init__(self, hooks: "OrderedDict[int, Callable[..., Any]]", owner: FunctionModule) -> None:
        super().__init__(hooks)
        self._owner = owner

    def remove(self) -> None:
        super().remove()
        self._owner.detach_if_unused()


def function_module(source: nn.Module, operations: Sequence[Operation] | None = None) -> FunctionModule:
    """Return a function module; its class is named after the module that computes the same, such as "Sigmoid".

    Args:
        source: the module whose output is tracked.
        operations: up to the value; one operation of any kind unless given.
    """
    if operations is None:
        operations = (Operation("any", (), {}, (), None),)
    name = _CLASSES.get(tuple(operation.name for operation in operations), "Function")
    return type(name, (FunctionModule,), {})(source, operations)  # type: ignore[no-any-return]


_CLASSES = {
    ("sigmoid",): "Sigmoid",
    ("hardsigmoid",): "Hardsigmoid",
    ("add", "hardtanh", "div"): "Hardsigmoid",
    ("add", "clamp", "div"): "Hardsigmoid",
    ("tanh",): "Tanh",
    ("relu",): "ReLU",
    ("silu",): "SiLU",
    ("gelu",): "GELU",
    ("hardtanh",): "ReLU6",
    ("hardswish",): "Hardswish",
    ("leaky_relu",): "LeakyReLU",
}


class _Tracked(Tensor):
    """A tensor that counts the functions left before the values of some function modules."""

    _trackers: Sequence[tuple[FunctionModule, int]]

    @staticmethod
    def of(tensor: Tensor, trackers: Sequence[tuple[FunctionModule, int]]) -> Tensor:
        found = tensor.as_subclass(_Tracked)
        found._trackers = trackers
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, cls)]
        # In x * sigmoid(x), the one that passed more functions.
        leaf = min(leaves, key=lambda x: min(steps for _, steps in x._trackers))
        with torch._C.DisableTorchFunctionSubclass():
            # An in-place function changes its input.
            taken = leaf.as_subclass(Tensor).clone() if func.__name__.endswith("_") else leaf.as_subclass(Tensor)
            out = func(*args, **kwargs)
            if not isinstance(out, Tensor):
                return out
            plain = out.as_subclass(Tensor)
            if func.__name__ in VIEWS:
                return cls.of(plain, leaf._trackers)
            left = []
            for tracker, steps in leaf._trackers:
                if steps > 1:
                    left.append((tracker, steps - 1))
                else:
                    plain = tracker.call_hooks(taken, plain)
            return cls.of(plain, left) if left else plain
