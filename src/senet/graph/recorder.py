"""Record one run of a network: its operations, the modules that were at work, and which value each of them read.

The recorder keeps numbers and shapes of values and not the tensors, so that a run takes no more memory than usual.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from senet.graph.example_inputs import Example, describe, split_example
from senet.utils.errors import first_line
from senet.utils.memory_errors import is_out_of_memory
from senet.utils.modes import evaluating

__all__ = ["Call", "Operation", "Recording", "Value", "record", "record_on_meta"]


@dataclass(frozen=True)
class Value:
    """A tensor of the run, by number: an operation in place gives a new one.

    Attributes:
        number: as the index of `Recording.shapes`.
        shape: of the tensor.
    """

    number: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One of PyTorch's own operations (ATen).

    Attributes:
        name: of the operation without its overload, and without the mark of an operation in place: "add".
        args, kwargs: its arguments, a `Value` in place of each tensor.
        outputs: the tensors that it gave.
        call: index of the innermost module call that it ran in; None outside the network.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    call: int | None

    @property
    def inputs(self) -> list[Value]:
        """The tensors that it read."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Value)]


@dataclass
class Call:
    """A call of a module.

    Attributes:
        name: of the module, as in `named_modules`; its first one where it has several.
        module: that was called.
        parent: index of the call that it ran in; None for the network itself.
        args: its positional arguments, a `Value` in place of each tensor.
        output: what it gave, likewise.
    """

    name: str
    module: nn.Module
    parent: int | None
    args: tuple[Any, ...]
    output: Any = None

    @property
    def taken(self) -> Value | None:
        """The first positional argument, if it is a tensor."""
        return self.args[0] if self.args and isinstance(self.args[0], Value) else None

    @property
    def given(self) -> Value | None:
        """The output, if it is a tensor."""
        return self.output if isinstance(self.output, Value) else None


@dataclass
class Recording:
    """What one run of a network did.

    Attributes:
        operations: in their order.
        calls: of modules, in the order in which they began.
        inputs: the tensors of the example.
        parameters: parameters and buffers that were read, by the number of their value: their full names.
    """

    operations: list[Operation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    parameters: dict[int, str] = field(default_factory=dict)

    def calls_of(self, name: str) -> list[Call]:
        """The calls of a module, by its name."""
        return [call for call in self.calls if call.name == name]

    def modules_at(self, call: int | None) -> list[Call]:
        """A call and those that it ran in, innermost first."""
        found = []
        while call is not None:
            found.append(self.calls[call])
            call = self.calls[call].parent
        return found


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording()
        self._values: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._count = 0
        self._stack: list[int] = []
        self._names = {module: name for name, module in model.named_modules()}
        for name, tensor in tensors.items():
            self.recording.parameters.setdefault(self.value(tensor).number, name)

    def value(self, tensor: Tensor, *, new: bool = False) -> Value:
        """The value that a tensor has now."""
        found = None if new else self._values.get(tensor)  # type: ignore[no-untyped-call]
        if found is None:
            found = Value(self._count, tuple(tensor.shape))
            self._count += 1
            self._values[tensor] = found
        return found

    def replaced(self, tree: Any) -> Any:
        """Arguments or outputs with values in place of tensors."""
        return tree_map(lambda leaf: self.value(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read, options = self.replaced(args), self.replaced(kwargs)
        out = func(*args, **kwargs)
        outputs = tuple(self.value(x, new=True) for x in tree_leaves(out) if isinstance(x, Tensor))
        name = func._overloadpacket.__name__.removesuffix("_")
        at_work = self._stack[-1] if self._stack else None
        self.recording.operations.append(Operation(name, read, options, outputs, at_work))
        return out

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Note which modules are called, by hooks that are gone when this ends."""

        def enter(module: nn.Module, args: Any) -> None:
            parent = self._stack[-1] if self._stack else None
            self._stack.append(len(self.recording.calls))
            self.recording.calls.append(Call(self._names[module], module, parent, tuple(self.replaced(args))))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self.recording.calls[self._stack.pop()].output = self.replaced(output)

        handles = []
        try:
            for module in self._names:
                # The first and the last hook: what other hooks do is part of the module.
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()


def record(model: nn.Module, example: Example) -> Recording:
    """Run a network on an example, in evaluation and without gradients, and record it.

    Args:
        model: the network; its modes and tensors are as before when this ends.
        example: its input, see `split_example`.

    Raises:
        TypeError: the example is not an input.
        ValueError: the network does not run on it; the message is the network's.
    """
    args, kwargs = split_example(example)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    try:
        return _run(model, tensors, args, kwargs, lambda: model(*args, **kwargs))
    except Exception as error:  # whatever a network's own code raises
        if is_out_of_memory(error):
            raise
        own = next((x for x in tensors.values() if x.is_floating_point()), None)
        has = "" if own is None else f"; its weights are {str(own.dtype).removeprefix('torch.')} on {own.device}"
        raise ValueError(
            f"{type(model).__name__} does not run on example ({describe(example)}): {first_line(error)}{has}; give "
            f"example= as the network takes it: a tensor, a tuple of inputs or a dict of inputs by keyword"
        ) from error


def record_on_meta(model: nn.Module, *args: Any) -> Recording:
    """Record a run without values: weights and inputs are on the meta device, and nothing is computed.

    Args:
        model: a network, or a module of one.
        args: its inputs, on the meta device.

    Raises:
        Exception: whatever the network's code raises where it does not take these inputs, or looks at values.
    """
    # Each module once, and by hand rather than by functional_call's own look for tied weights: that one would swap the
    # tensors of a module with two names twice, and put the stand-in back in place of the first.
    held = {
        f"{prefix}.{name}".removeprefix("."): tensor
        for prefix, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }
    stand_ins = {id(tensor): tensor.detach().to("meta") for tensor in held.values()}
    tensors = {name: stand_ins[id(tensor)] for name, tensor in held.items()}
    return _run(model, tensors, args, {}, lambda: functional_call(model, tensors, args, tie_weights=False))


def _run(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run: Callable[[], object],
) -> Recording:
    recorder = _Recorder(model, tensors)
    recorder.recording.inputs = [recorder.value(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    with evaluating(model), torch.no_grad(), recorder.watching(model), recorder:
        run()
    return recorder.recording
