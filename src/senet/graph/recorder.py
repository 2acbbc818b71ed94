"""Trace a network: run it once on an example, and record operations, module calls and the values between them."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from senet.graph.example_inputs import Example, describe, split_example
from senet.graph.operations import PLAIN, Call, Operation, Trace, Value
from senet.graph.tensor_kinds import PreparedForward, TensorKind, prepare_forward, tensors_in
from senet.utils.arguments import argument
from senet.utils.errors import first_line
from senet.utils.memory_errors import is_out_of_memory
from senet.utils.modes import evaluating, training_mode

__all__ = ["check_not_empty", "trace", "trace_example"]

# PyTorch asks tensors without values for their device by an operation, which is none of the network's.
_DEVICE = torch.ops.prim.device.default
# What `item`, `float` and `if` read a tensor with.
_READ = torch.ops.aten._local_scalar_dense.default


def trace(
    model: nn.Module,
    example: Example,
    *,
    tensors: TensorKind = "meta",
    gradients: bool = False,
    functional: bool = False,
    dtype: torch.dtype | None = None,
    training: bool = False,
    find_stored: bool = False,
) -> Trace:
    """Run a network on an example, in evaluation unless `training`, and record the run.

    Parameters, buffers, attributes, modes and hooks of the network are the same afterwards.

    Args:
        model: a network, or a module of one.
        example: its input: a tensor, a tuple of inputs, or a dict of inputs by keyword. For a run without values,
            shapes and dtypes alone count.
        tensors: what tensors hold, see `senet.graph.tensor_kinds`.
        gradients: run with gradients, which, in a run without values, every parameter requires. It keeps modules from
            fusing what they fuse in inference alone.
        functional: record views and in-place operations as operations that return new tensors, in a run without
            values. Every value then depends on its producer alone.
        dtype: of all floating-point tensors, in a run without values; their own dtypes unless given.
        training: run in training mode, on tensors without values: running statistics do not change.
        find_stored: find what the network's code keeps after the run, in attributes or elsewhere: `Trace.stored`.

    Raises:
        TypeError: the example is not an input.
        Exception: whatever the network's code raises on this input, or where it reads values that a run does not have.
    """
    autograd = torch.enable_grad() if gradients else torch.no_grad()
    options: dict[str, Any] = {"gradients": gradients, "functional": functional, "dtype": dtype}
    # Inference mode hides operations from the recorder.
    with (
        torch.inference_mode(False),
        training_mode(model) if training else evaluating(model),
        prepare_forward(model, example, tensors, **options) as run,
        autograd,
    ):
        recorder = _Recorder(model, run, keep=tensors != "real" and not find_stored, functional=functional)
        with recorder.watching(model), recorder:
            run.forward()
        if find_stored:
            recorder.trace.stored = recorder.alive()
    return recorder.trace


def trace_example(model: nn.Module, example: Example, *, find_stored: bool = False) -> Trace:
    """Run a network on a user's example, with values and without gradients, and record the run.

    Raises:
        TypeError: the example is not an input.
        ValueError: it is empty, or the network does not run on it; the message contains the network's own error.
    """
    check_not_empty(example)
    try:
        return trace(model, example, tensors="real", find_stored=find_stored)
    except Exception as error:  # whatever a network's own code raises
        if is_out_of_memory(error):
            raise
        tensors = (*model.parameters(), *model.buffers())
        own = next((x for x in tensors if x.is_floating_point()), None)
        has = "" if own is None else f"; its weights are {str(own.dtype).removeprefix('torch.')} on {own.device}"
        raise ValueError(
            f"{type(model).__name__} does not run on example ({describe(example)}): {first_line(error)}{has}; give "
            f"{argument('example')} as the network takes it, with all its inputs"
        ) from error


def check_not_empty(example: Example) -> None:
    """Check that an example has an image, without which a network shows nothing.

    Raises:
        TypeError: the example is not an input.
        ValueError: it is an empty batch.
    """
    maps = [x for x in tree_leaves(split_example(example)) if isinstance(x, Tensor) and x.ndim >= 3]
    if maps and not maps[0].numel():
        raise ValueError(
            f"example is an empty batch ({describe(example)}), on which a network shows nothing: give "
            f"{argument('example')} with at least one image"
        )


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations where it is active, and module calls where it watches a network.

    Args:
        model: the network.
        run: of the network.
        keep: whether tensors may stay in memory until the end, as those without values may: that is faster.
        functional: whether the run is functional.
    """

    def __init__(self, model: nn.Module, run: PreparedForward, *, keep: bool, functional: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._functional = functional
        self.trace = Trace()
        self._values: Any = _Kept() if keep else WeakTensorKeyDictionary()
        self._count = 0
        self._stack: list[int] = []
        self._names = {module: name for name, module in model.named_modules()}
        for name, tensor in run.tensors.items():
            self.trace.tensors.setdefault(self.value(tensor).number, name)
        self.trace.inputs = [self.value(x) for x in run.inputs]

    def at_work(self) -> int | None:
        """Return the index of the innermost module call that is running."""
        return self._stack[-1] if self._stack else None

    def alive(self) -> set[int]:
        """Return the numbers of the values whose tensors are in memory, without the network's own and its inputs."""
        known = {*self.trace.tensors, *(value.number for value in self.trace.inputs)}
        found = {value.number for value in self._values.values()} - known
        if found:
            gc.collect()  # of cycles
        return found & {value.number for value in self._values.values()}

    def value(self, tensor: Tensor, *, new: bool = False) -> Value:
        """Return the value that a tensor has now."""
        if self._functional and torch._is_functional_tensor(tensor):
            torch._sync(tensor)  # type: ignore[attr-defined, no-untyped-call]
            tensor = torch._from_functional_tensor(tensor)
        found: Value | None = None if new else self._values.get(tensor)
        if found is None:
            found = Value(self._count, tuple(tensor.shape), tensor.dtype)
            self._count += 1
            self._values[tensor] = found
        return found

    def replaced(self, tree: Any) -> Any:
        """Return arguments or outputs with values in place of tensors."""
        kind = type(tree)
        if kind in PLAIN:  # most arguments of operations: these lines only save time
            return tree
        if kind is tuple or kind is list:
            return kind([self.replaced(leaf) for leaf in tree])
        if kind is dict:
            return {key: self.replaced(leaf) for key, leaf in tree.items()}
        if isinstance(tree, Tensor):
            return self.value(tree)
        return tree_map(lambda leaf: self.value(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _DEVICE:
            return func(*args, **kwargs)
        if func is _READ and args[0].is_meta:
            at = self.at_work()
            kind = "the network" if at is None else type(self.trace.calls[at].module).__name__
            raise RuntimeError(f"the code of {kind} reads the value of a tensor, and there are shapes only")
        read, options = self.replaced(args), self.replaced(kwargs)
        try:
            out = func(*args, **kwargs)
        except RuntimeError as error:
            # PyTorch's own operators raise NotImplementedError here; others, such as torchvision's nms, do not.
            if "data-dependent shape" not in str(error):
                raise
            raise NotImplementedError(f"the shape of the output of {func} depends on values") from error
        tensors = [out] if isinstance(out, Tensor) else tensors_in(out)
        outputs = tuple([self.value(x, new=True) for x in tensors])
        name = func._overloadpacket.__name__.removesuffix("_")
        if self._functional and not name.startswith("_to"):
            name = name.removesuffix("_copy")  # of a view
        self.trace.operations.append(Operation(name, read, options, outputs, self.at_work(), func))
        return out

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Record module calls by hooks, which are removed at the end."""
        calls = self.trace.calls

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            taken, options = self.replaced(args), self.replaced(kwargs)
            calls.append(Call(len(calls), self._names[module], module, self.at_work(), taken, options))
            self._stack.append(len(calls) - 1)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            calls[self._stack.pop()].output = self.replaced(output)

        with ExitStack() as hooks:
            for module in self._names:
                # The first and the last hook: what other hooks do is part of the module.
                hooks.enter_context(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
                hooks.enter_context(module.register_forward_hook(leave))
            yield


class _Kept:
    """The values of tensors, which stay in memory for as long as this does."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Tensor, Value]] = {}

    def get(self, tensor: Tensor) -> Value | None:
        found = self._values.get(id(tensor))
        return None if found is None else found[1]

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = (tensor, value)
