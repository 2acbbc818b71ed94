"""Run a network on tensors that have shapes and no values, and count: operations by module, and what is saved.

PyTorch calls such tensors fake. They take no memory and little time, on any device.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

from senet.utils.modes import evaluating

__all__ = ["Count", "Saved", "count_operations", "saved_bytes"]

_aten = torch.ops.aten
# PyTorch's formulas, which count 2 for a multiply-add, and what is not among them: vectors, and attention on a CPU.
_FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    _aten.mv: lambda matrix, vector, **_: 2 * matrix.numel(),
    _aten.addmv: lambda bias, matrix, vector, **_: 2 * matrix.numel(),
    _aten.dot: lambda one, other, **_: 2 * one.numel(),
    _aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
}
# What they give is no view of anything by its declaration, and yet nothing is written.
_UNWRITTEN = (_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten._unsafe_view)


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations of a forward pass, by the modules that were at work.

    Attributes:
        operations: multiply-adds, and elements that other operations wrote, by the modules that were at work, outermost
            first.
        shapes: of the output of each module that ran, in the order in which they started; empty where it gave no
            tensor.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: dict[tuple[nn.Module, ...], list[int]] = defaultdict(lambda: [0, 0])
        self.shapes: dict[nn.Module, tuple[int, ...]] = {}
        self._at_work: list[nn.Module] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        found = self.operations[tuple(self._at_work)]
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            found[0] += formula(*args, **kwargs, out_val=out) // 2
        elif not func.is_view and func._overloadpacket not in _UNWRITTEN:
            found[1] += sum(x.numel() for x in _tensors(out) if x.is_floating_point())
        return out

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know which modules are at work, by hooks that are gone when this ends."""

        def enter(module: nn.Module, args: Any) -> None:
            self._at_work.append(module)
            self.shapes.setdefault(module, ())

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._at_work.pop()
            self.shapes[module] = next((tuple(x.shape) for x in _tensors(output)), ())

        handles = []
        try:
            for module in model.modules():
                # Around the hooks that are there: SE that hangs in one is then inside the module.
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()


def count_operations(model: nn.Module, size: tuple[int, ...]) -> Count:
    """Count the operations of a forward pass in evaluation, for one image.

    Args:
        model: the network.
        size: (C, *spatial) of the image.

    Raises:
        ValueError: the network cannot take such an image, or looks at values.
    """
    count = Count()
    with evaluating(model), count.watching(model):
        # With gradients, which keep modules from what is fused in inference alone and has no formula.
        _run(model, 1, size, count, gradients=True)
    return count


def saved_bytes(model: nn.Module, images: int, size: tuple[int, ...]) -> int:
    """Bytes that a forward pass in training keeps for the way back.

    Each storage counts once, however many operations save it; those of parameters and buffers do not count.

    Args:
        model: the network.
        images: of the batch.
        size: (C, *spatial) of an image.

    Raises:
        ValueError: the network cannot take such images, or looks at values.
    """
    saved = Saved()
    with _training(model), saved.watching():
        output, state = _run(model, images, size)
    found = saved.bytes_beside(state.values())
    del output  # which has held the graph, and so what it saved, until here
    return found


class Saved:
    """What autograd saves for the way back, for as long as a graph holds it."""

    def __init__(self) -> None:
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def watching(self) -> saved_tensors_hooks:
        """A context for the forward pass."""
        return saved_tensors_hooks(self._pack, lambda one: one.tensor)

    def bytes_beside(self, others: Iterable[Tensor]) -> int:
        """Bytes of all storages that are held, each once, but for those of other tensors, such as parameters."""
        sizes = {_storage(one.tensor): one.tensor.untyped_storage().nbytes() for one in self._held}
        kept = {_storage(tensor) for tensor in others}
        return sum(nbytes for storage, nbytes in sizes.items() if storage not in kept)

    def _pack(self, tensor: Tensor) -> "_Held":
        one = _Held(tensor.detach())  # an output that knew its origin would hold itself
        self._held.add(one)
        return one


class _Held:
    """A tensor that is saved for the way back: alive as long as the graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: Tensor) -> int:
    """What tells a storage that has no address from others that are alive."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Training mode for a while; and no average of all batches, which looks at how many there were."""
    averaging = [module for module in model.modules() if getattr(module, "momentum", 0.0) is None]
    with evaluating(model):  # whose end restores each module's mode
        model.train()
        for module in averaging:
            module.momentum = 0.1  # type: ignore[assignment]
        try:
            yield
        finally:
            for module in averaging:
                module.momentum = None  # type: ignore[assignment]


def _run(
    model: nn.Module, images: int, size: tuple[int, ...], count: Count | None = None, gradients: bool = False
) -> tuple[Any, dict[str, Tensor]]:
    """The output for so many images of a size, and what stood for parameters and buffers.

    All are said to be on a CPU, wherever they are, since batch norm with SE is not fused on the meta device.

    Args:
        model: the network.
        images: how many.
        size: of each.
        count: to count the operations of the pass.
        gradients: let every parameter ask for its gradient.
    """
    from torch._subclasses import FakeTensorMode
    from torch.func import functional_call

    def stand_in(tensor: Tensor) -> Tensor:
        asks = tensor.requires_grad or (gradients and isinstance(tensor, nn.Parameter) and tensor.is_floating_point())
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu", requires_grad=asks)

    with torch.inference_mode(False), torch.enable_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        try:
            # By hand rather than by functional_call's own look for tied weights: that one would swap the tensors of a
            # module with two names twice, and put the stand-in back in place of the first.
            held = [
                (f"{prefix}.{name}".lstrip("."), tensor)
                for prefix, module in model.named_modules()
                for name, tensor in (*module._parameters.items(), *module._buffers.items())
                if tensor is not None
            ]
            stand_ins = {id(tensor): stand_in(tensor) for _, tensor in held}
            state = {name: stand_ins[id(tensor)] for name, tensor in held}
            dtype = next((x.dtype for x in state.values() if x.is_floating_point()), torch.float32)
            x = torch.empty((images, *size), dtype=dtype, device="cpu")
            with nullcontext() if count is None else count:
                return functional_call(model, state, (x,), tie_weights=False), state
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            raise ValueError(
                f"{type(model).__name__} does not run on an input of the shape {(images, *size)} without values: "
                f"{error}; give another input_size"
            ) from error


def _tensors(output: Any) -> list[Tensor]:
    outputs = output if isinstance(output, tuple | list) else (output,)
    return [x for x in outputs if isinstance(x, Tensor)]
