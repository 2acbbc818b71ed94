"""A step of training in a CUDA graph where that is possible, and without one where it is not."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from senet.utils.cuda_graphs import CapturedStep, GraphBackend
from senet.utils.errors import CaptureError
from senet.utils.notices import announce

__all__ = ["GraphedStep"]


class GraphedStep:
    """A step that is captured once for every shape of its inputs and replayed, see `CapturedStep`.

    Where it cannot be captured, it runs without a graph from then on, which is announced in one line with the reason.
    The results are the same.

    Args:
        step: from tensors on the device to a tensor; see `senet.utils.cuda_graphs` for its rules.
        networks, optimizer: what it changes.
        obstacle: why it is not to be captured, in a few words; "" if nothing is known that prevents it.
        undo: restores state in Python that a capture leaves half done when it fails.
        backend: what records.
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
        """Run the step; what it returns is the caller's to keep."""
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
        """Run all further steps without a graph, and announce why. Nothing is announced a second time."""
        self.release()
        self._captured = None
        announce(f"cuda_graph: steps run without a CUDA graph: {reason}")
