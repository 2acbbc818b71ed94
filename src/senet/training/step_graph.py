"""A training step in a CUDA graph, or without one if it cannot be captured."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from senet.utils.cuda_graph_capture import GraphBackend
from senet.utils.cuda_graphs import CapturedStep
from senet.utils.errors import CaptureError
from senet.utils.notices import announce

__all__ = ["GraphedStep"]


class GraphedStep:
    """A step that is captured once for each shape of its inputs and then replayed, see `CapturedStep`.

    A step that cannot be captured runs without a graph from then on, which is announced in one line with the reason.
    The results are equal.

    Args:
        step: from tensors on the device to a tensor; see `senet.utils.cuda_graphs` for its rules.
        networks, optimizer: what it changes.
        obstacle: why the step cannot be captured, in a few words; "" if it may be.
        undo: restores Python state that a failed capture has left incomplete.
        backend: records the step.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        *,
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        obstacle: str,
        undo: Callable[[], object],
        backend: GraphBackend | None,
    ) -> None:
        self._step, self._undo = step, undo
        self._captured: CapturedStep | None = None
        if obstacle:
            self.give_up(obstacle)
        else:
            self._captured = CapturedStep(step, networks=networks, optimizer=optimizer, backend=backend)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the step; later steps do not overwrite the tensor that it returns."""
        if self._captured is not None:
            try:
                return self._captured(*inputs).clone()  # type: ignore[no-any-return]
            except CaptureError as error:
                self._undo()
                self.give_up(error.reason)
        return self._step(*inputs)

    def release(self) -> None:
        """Release the graphs and their memory; later steps warm up and are captured anew."""
        if self._captured is not None:
            self._captured.reset()

    def give_up(self, reason: str) -> None:
        """Run all further steps without a graph, and announce why, once."""
        self.release()
        self._captured = None
        announce(f"cuda_graph: steps run without a CUDA graph: {reason}", slower=True)
