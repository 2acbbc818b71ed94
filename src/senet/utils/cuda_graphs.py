"""CUDA graphs: record a training or inference step once, and launch it as a whole.

Unless the batch is large, the host needs longer to launch the few hundred kernels of a step than the GPU to run them.
A CUDA graph launches them all at once. It replays addresses and numbers, not Python, and owns no memory at those
addresses except its own pool. `CapturedStep` owns everything that a graph needs.

In short::

    the first calls of a shape: step(inputs), on a side stream     # real steps; they prepare what capture cannot
    the next: static = empty_like(inputs); capture step(static)    # records and runs nothing
    this and all later: static.copy_(inputs); replay; return the static outputs

Rules for a step that is captured (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs):

- Values that differ between calls are tensors on the device: an input, or a tensor that the caller fills before the
  call, such as a learning rate. A Python number is recorded once and never read again.
- It does not wait for the device (`.item()`, `float(tensor)`, `if tensor`) and copies nothing from pageable memory.
- It clears gradients with `zero_grad(set_to_none=True)` before its backward pass, so that they are allocated in the
  graph's pool.
- It enters autocast itself. Autocast keeps the casts of weights until its outermost block ends; with a block around
  the capture, the graph would hold casts made before it and never see an update of the weights.
- Random numbers come from PyTorch's default generator. A graph reads its seed and offset from the device; every replay
  first writes the generator's current values there, and advances the generator as the step itself would. So
  `torch.manual_seed` before a call also applies to a replay, with the numbers of the step without a graph. The step
  itself must not seed the generator.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.utils.cuda_graph_capture import CudaGraphs, Graph, GraphBackend
from senet.utils.errors import CaptureError, first_line
from senet.utils.notices import announce

__all__ = ["CapturedStep"]


class _Capture(NamedTuple):
    """The graph for one input shape, with the tensors that it reads and writes."""

    graph: Graph
    inputs: tuple[Tensor, ...]
    outputs: Any
    memory: list[Tensor]  # kept alive: the tensors at the recorded addresses


class CapturedStep:
    """Capture a step in a CUDA graph for each input shape, and replay it.

    This object owns graphs, networks, optimizer, static inputs and outputs. A graph itself owns no parameters, buffers
    or optimizer state; a replay after these are freed would access memory of other tensors. Keeping this object alive
    is enough. All replays must run on one stream, or be ordered by the caller.

    The first `warmup` calls with an input shape are real steps outside of a graph: they create the optimizer's state,
    compile and load kernels, and choose algorithms. Capturing runs nothing, so nothing has to be undone. A sequence of
    calls therefore gives the results of these steps without a graph, bitwise if the kernels are deterministic.

    When the recorded state changes (training mode, frozen parameters, hyperparameters that are Python numbers, tensors
    replaced by `optimizer.load_state_dict` or `model.to`), all graphs are released, and captured again after another
    warm-up. Added or removed modules are not detected: call `reset` after such a change.

    Args:
        step: takes tensors on the device and returns tensors in any structure. Its rules are in this module's
            documentation.
        networks: all modules that the step runs or changes, including averaged ones.
        optimizer: the optimizer that the step uses, if any: fused, capturable, or without state on the host.
        warmup: calls per shape before the capture, at least 1.
        max_shapes: most captured shapes. Further shapes run without a graph, which is announced once.
        max_captures: most captures in total. A state that changes more often raises an error.
        backend: records the graphs; default: CUDA graphs on the device of the networks' parameters.

    Raises:
        ValueError: `warmup` is below 1, or there is neither a network with parameters nor a backend.
        CaptureError: the device is not a CUDA device.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        *,
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer | None = None,
        warmup: int = 3,
        max_shapes: int = 4,
        max_captures: int = 16,
        backend: GraphBackend | None = None,
    ) -> None:
        if warmup < 1:
            raise ValueError(f"warmup must be 1 or more, got {warmup}: a step has to run before it can be captured")
        self._step, self.networks, self.optimizer = step, tuple(networks), optimizer
        self.warmup, self.max_shapes, self.max_captures = warmup, max_shapes, max_captures
        self._backend = backend or _cuda_graphs(self.networks)
        self.captures = 0
        self.reset()

    def __call__(self, *inputs: Tensor) -> Any:
        """Run one step.

        Args:
            inputs: tensors on the device or on the host; pinned memory is copied asynchronously.

        Returns:
            The step's result. After a replay it consists of the graph's static tensors, which the next call overwrites.

        Raises:
            CaptureError: the step cannot be captured. Networks, optimizer and random generator are unchanged, the step
                was not run, and all graphs are released: run the step without this object.
        """
        if self._captured and self._state() != self._captured_state:
            self.reset()
        shape = tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in inputs)
        capture = self._captured.get(shape)
        if capture is None:
            if not self._warmed_up(shape):
                return self._backend.warm_up(lambda: self._step(*(self._to_device(tensor) for tensor in inputs)))
            capture = self._captured[shape] = self._capture(inputs)
        for static, given in zip(capture.inputs, inputs, strict=True):
            if static is not given:
                static.copy_(given, non_blocking=True)
        capture.graph.replay()
        return capture.outputs

    def is_captured(self, *inputs: Tensor) -> bool:
        """Return whether the next call with inputs of these shapes is a replay."""
        return tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in inputs) in self._captured

    def reset(self) -> None:
        """Release all graphs and their memory. The next calls warm up and capture again."""
        for capture in getattr(self, "_captured", {}).values():
            capture.graph.reset()
        self._captured: dict[Any, _Capture] = {}
        self._captured_state: Any = None
        self._warm: dict[Any, int] = {}
        self._modules = [module for network in self.networks for module in network.modules()]

    def _warmed_up(self, shape: Any) -> bool:
        """Return whether a shape can be captured now; count the calls until then."""
        if shape not in self._warm and len(self._warm) >= self.max_shapes:
            if len(self._warm) == self.max_shapes:
                self._warm[None] = 0  # announced
                line = f"CUDA graphs: more than {self.max_shapes} input shapes; further shapes run without a graph"
                announce(line, slower=True)
            return False
        self._warm[shape] = self._warm.get(shape, 0) + 1
        return self._warm[shape] > self.warmup

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._backend.device, non_blocking=True)

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Capture:
        if self.captures >= self.max_captures:
            self.reset()
            raise CaptureError(f"its state changed so often that it was captured {self.captures} times")
        self._check()
        # Copies, also of inputs on the device: later calls must not overwrite the caller's tensors.
        static = tuple(torch.empty_like(tensor, device=self._backend.device).copy_(tensor) for tensor in inputs)
        parameters = [parameter for network in self.networks for parameter in network.parameters()]
        gradients = [parameter.grad for parameter in parameters]
        before = self._state()
        failure: list[Exception] = []

        def recorded() -> Any:
            try:
                outputs = self._step(*static)
                self._check_host_state(before)
            except Exception as error:
                failure.append(error)  # ending a failed capture raises another error, with less information
                raise
            return outputs

        try:
            share = next((capture.graph for capture in self._captured.values()), None)
            graph, outputs = self._backend.capture(recorded, share)
        except BaseException as error:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.reset()
            if not isinstance(error, Exception):
                raise
            cause = failure[0] if failure else error
            raise (cause if isinstance(cause, CaptureError) else CaptureError(first_line(cause))) from error
        self.captures += 1
        self._captured_state = before
        memory = [*self._tensors(), *(parameter.grad for parameter in parameters if parameter.grad is not None)]
        return _Capture(graph, static, outputs, memory)

    def _check(self) -> None:
        """Raise for states that would be recorded wrongly without an error."""
        device = self._backend.device
        if torch.is_autocast_enabled(device.type):
            raise CaptureError("autocast was entered around it; enter autocast inside the step")
        if any(tensor.device != device for tensor in self._tensors() if tensor.numel()):
            where = next(str(tensor.device) for tensor in self._tensors() if tensor.device != device and tensor.numel())
            remedy = "make the optimizer with fused=True or capturable=True, and move the network's buffers"
            raise CaptureError(f"it changes tensors on {where}, and the graph is on {device}: {remedy}")

    def _check_host_state(self, before: Any) -> None:
        """Raise for an optimizer that counts steps in Python: the graph would repeat one number."""
        if self._state() != before:
            name = type(self.optimizer).__name__ if self.optimizer is not None else "the network"
            raise CaptureError(f"{name} changes numbers in Python or replaces tensors at every step")

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that outlive a step, except gradients."""
        tensors: list[Tensor] = []
        for module in self._modules:
            tensors += [parameter for parameter in module._parameters.values() if parameter is not None]
            tensors += [buffer for buffer in module._buffers.values() if buffer is not None]
        if self.optimizer is not None:
            for entries in (*self.optimizer.param_groups, *self.optimizer.state.values()):
                tensors += [value for value in entries.values() if isinstance(value, Tensor)]
        return tensors

    def _state(self) -> Any:
        """Return the state that a graph records: addresses, modes and numbers. Cheap, since each replay calls it."""
        numbers: list[Any] = [torch.is_grad_enabled()]
        if self.optimizer is not None:
            for entries in (*self.optimizer.param_groups, *self.optimizer.state.values()):
                numbers += [v for k, v in entries.items() if k != "params" and not isinstance(v, Tensor)]
        return (
            numbers,
            [module.training for module in self._modules],
            [(tensor.data_ptr(), tensor.requires_grad) for tensor in self._tensors()],
        )


def _cuda_graphs(networks: Sequence[nn.Module]) -> CudaGraphs:
    parameter = next((parameter for network in networks for parameter in network.parameters()), None)
    if parameter is None:
        raise ValueError("the networks have no parameters, so the device is unknown: give backend=")
    if parameter.device.type != "cuda":
        raise CaptureError(f"it runs on {parameter.device}, and CUDA graphs need a CUDA device")
    return CudaGraphs(parameter.device)
