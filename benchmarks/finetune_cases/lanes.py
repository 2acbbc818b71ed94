"""Fine-tune many small networks at once on one GPU: each lane replays the steps of its run on a stream of its own.

A step of a small network launches hundreds of kernels that use a fraction of a GPU. In a CUDA graph the host is no
longer the limit, and graphs on several streams fill the GPU::

    for each lane:                          # one Python thread
        take the next run; copy its initial weights, crops and learning rates to the device
        while the queue of its stream is short: replay steps and evaluations
        at the end of the run: read the errors

A step reads its crops and learning rates from tables at the position that the step before has advanced, so that
nothing is copied between steps. Networks with the same structure share graphs. Where a graph cannot be captured, the
same functions run without one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import senet
from finetune_cases.arms import ARMS, Arm, Job
from finetune_cases.session import GROUPS, Session
from senet.nn.batch_norm_utils import batch_norms
from senet.nn.fused import fused_by
from senet.nn.inserted_se import se_parameters
from senet.training.freezing import begin_epoch
from senet.training.optimizers import select_parameters
from senet.utils.cuda_graph_capture import CudaGraphs, Graph, GraphBackend
from senet.utils.errors import first_line
from senet.utils.notices import announce

__all__ = ["Lane", "Slot", "evaluations", "make_lanes"]

# Steps that are queued at once, and how many such parts the queue of a lane holds.
_PART, _QUEUED = 16, 2
# Images of an evaluation's batch, and the points of a training loss curve.
_EVALUATED, _POINTS = 1250, 40
# Calls before a capture, which choose algorithms and compile kernels.
_WARMUP = 3


def parameter_groups(network: nn.Module, weight_decay: float, se_decay: bool) -> list[dict[str, Any]]:
    """Return the parameters of a network in the order of `GROUPS`, with the weight decay of each group.

    Only weights are decayed, as `cifar-short` has it; those of SE unless `se_decay` is False.
    """
    se = {id(parameter) for parameter in se_parameters(network)}
    norms = {id(p) for norm in batch_norms(network) for p in norm.parameters(recurse=False)}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for parameter in network.parameters():
        kind = "weights" if parameter.ndim > 1 else "biases"
        kind = f"se {kind}" if id(parameter) in se else "norms" if id(parameter) in norms else kind
        groups[kind].append(parameter)
    decays = {"weights": weight_decay, "se weights": weight_decay if se_decay else 0.0}
    return [
        {"params": parameters, "weight_decay": decays.get(name, 0.0), "index": GROUPS.index(name)}
        for name, parameters in groups.items()
        if parameters
    ]


def evaluations(job: Job, steps: int, batch: int) -> list[int]:
    """Return the numbers of steps after which a run is evaluated."""
    if not job.curve:
        return [steps]
    epochs = range(job.images // batch, steps + 1, job.images // batch)
    return sorted({0, *(early for early in (10, 30) if early < steps), *epochs})


class Slot:
    """A network on the device, with the functions of its steps, for all runs of one structure.

    Args:
        session: data and recipe.
        job: the first run; determines the structure.
        steps: the most steps of a run.
        backend: records graphs; None runs without.
    """

    def __init__(self, session: Session, job: Job, steps: int, backend: GraphBackend | None) -> None:
        arm, self.session, self.backend = ARMS[job.arm], session, backend
        device, recipe = session.device, session.recipe
        self.network = session.initial(job.network, arm, job.seed).to(device).to(memory_format=torch.channels_last)
        dtype = torch.float64 if device.type == "cpu" else torch.float32  # as a fused optimizer reads it
        self._rates = torch.zeros(steps, len(GROUPS), dtype=dtype, device=device)
        self._now = torch.zeros(len(GROUPS), dtype=dtype, device=device)
        self._crops = torch.zeros(steps, recipe.batch, 4, dtype=torch.long, device=device)
        self._losses = torch.zeros(steps, device=device)
        self._correct = torch.zeros(32, len(session.labels), dtype=torch.bool, device=device)
        self._step, self._evaluation = (torch.zeros(1, dtype=torch.long, device=device) for _ in range(2))
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.network, recipe.weight_decay, arm.se_decay),
            lr=arm.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            fused=True,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self._now[group["index"]]
        self._recipes = {mode: replace(recipe, train_only=mode) for mode in ("all", "se")}
        self._trained = {"all": select_parameters(self.network, self._recipes["all"])}
        if arm.se != "none":
            self._trained["se"] = select_parameters(self.network, self._recipes["se"])
        self._graphs: dict[str, Graph | None] = {}
        self.without_graph = "" if backend is not None else "not asked for, or no GPU"

    def prepare(self, modes: set[str]) -> None:
        """Capture each of "all", "se" and "evaluate", after calls that have no effect on later runs."""
        for mode in sorted(modes - self._graphs.keys()):
            for _ in range(_WARMUP if self.backend is not None else 0):
                self._rewind()
                self._outside(mode)
            self._rewind()
            self._graphs[mode] = self._captured(mode) if self.backend is not None else None

    def _captured(self, mode: str) -> Graph | None:
        assert self.backend is not None
        share = next((graph for graph in self._graphs.values() if graph is not None), None)
        self._set_mode(mode)
        try:
            return self.backend.capture(self._function(mode), share)[0]
        except Exception as error:
            self.without_graph = f"{mode}: {type(error).__name__}: {first_line(error)}"
            announce(f"steps run without a CUDA graph: {self.without_graph}")
            return None

    def load(self, job: Job, rates: Tensor, crops: Tensor) -> None:
        """Begin a run: its initial weights, without momentum."""
        initial = self.session.initial(job.network, ARMS[job.arm], job.seed).state_dict()
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if not name.endswith(".gain"):  # a constant of the structure, which graphs hold as a number
                    tensor.copy_(initial[name])
            for state in self.optimizer.state.values():
                state["momentum_buffer"].zero_()
            self._rates[: len(rates)].copy_(rates)
            self._crops[: len(crops)].copy_(crops)
        self._rewind()

    def __call__(self, mode: str) -> None:
        """Queue a step ("all" or "se"), or an evaluation ("evaluate")."""
        graph = self._graphs[mode]
        if graph is None:
            self._outside(mode)
        else:
            graph.replay()

    def results(self, evaluated: int, steps: int) -> tuple[np.ndarray[Any, Any], list[float]]:
        """Return (evaluations, V) whether images were classified correctly, and losses; waits for the device."""
        return self._correct[:evaluated].cpu().numpy(), self._losses[:steps].tolist()

    def _rewind(self) -> None:
        self._step.zero_()
        self._evaluation.zero_()

    def _set_mode(self, mode: str) -> None:
        if mode == "evaluate":
            self.network.eval()
        else:
            begin_epoch(self.network, self._recipes[mode], self._trained[mode], 0)

    def _outside(self, mode: str) -> None:
        """Run a function without a graph, on the stream of captures if there is one."""
        self._set_mode(mode)
        if self.backend is None:
            self._function(mode)()
        else:
            self.backend.warm_up(self._function(mode))

    def _function(self, mode: str) -> Callable[[], None]:
        return self._evaluate if mode == "evaluate" else self._train

    def _train(self) -> None:
        session = self.session
        crops = self._crops.index_select(0, self._step)[0]
        pixels, labels = session.training.batch(crops)
        images = session.recipe.preprocessing.normalize(pixels, session.scale)
        self._now.copy_(self._rates.index_select(0, self._step)[0])
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.network(images), labels, reduction="sum") / len(labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._losses.index_copy_(0, self._step, loss.detach().view(1))
        self._step.add_(1)

    @torch.no_grad()
    def _evaluate(self) -> None:
        logits = [self.network(images) for images in torch.split(self.session.images, _EVALUATED)]
        correct = torch.cat(logits).argmax(1) == self.session.labels
        self._correct.index_copy_(0, self._evaluation, correct[None])
        self._evaluation.add_(1)


class Lane:
    """A stream with the run that it is in.

    Args:
        session: shared with the other lanes.
        steps: the most steps of a run.
        stream: of a GPU; None on a CPU.
        backend: records graphs; None runs without. A lane has one of its own: what is captured on one stream may
            share memory of libraries.
    """

    def __init__(self, session: Session, steps: int, stream: Any, backend: GraphBackend | None) -> None:
        self.session, self.steps, self.stream, self.backend = session, steps, stream, backend
        self.job: Job | None = None
        self._slots: dict[Any, Slot] = {}
        self._queued: deque[Any] = deque()

    def start(self, job: Job) -> None:
        """Begin a run."""
        session, arm = self.session, ARMS[job.arm]
        rates, crops = session.rates(job), session.crops(job)
        modes = [mode for mode, count in session.phases(job) for _ in range(count)]
        self._at = evaluations(job, len(modes), session.recipe.batch)
        self._modes = modes
        with self._on_stream():
            self._slot = self._slot_of(job, arm)
            self._slot.prepare({*modes, "evaluate"})
            self._slot.load(job, rates, crops)
        self._calls = self._sequence()
        self.job, self._complete, self._since = job, False, time.perf_counter()

    def advance(self) -> bool:
        """Queue the next steps of the run, unless the queue is full; returns whether anything was done."""
        while self._queued and self._queued[0].query():
            self._queued.popleft()
        if self._complete or len(self._queued) >= _QUEUED:
            return False
        with self._on_stream():
            calls = list(islice(self._calls, _PART))
            for mode in calls:
                self._slot(mode)
            if self.stream is not None:
                self._queued.append(self.stream.record_event())
        self._complete = len(calls) < _PART
        return True

    def result(self) -> dict[str, Any] | None:
        """Return the results of the run once it is complete; the lane is then free."""
        if self.job is None or not self._complete or self._queued:
            return None
        job, total = self.job, len(self._modes)
        with self._on_stream():
            correct, losses = self._slot.results(len(self._at), total)
        self.job = None
        parts = np.array_split(np.array(losses), min(_POINTS, total))
        return {
            "id": job.id,
            **{name: getattr(job, name) for name in ("network", "images", "epochs", "arm", "seed")},
            "steps": self._at,
            "errors": [round(100.0 * float(1 - row.mean()), 6) for row in correct],
            "losses": [float(part.mean()) if np.isfinite(part).all() else None for part in parts],
            "correct": np.packbits(correct[-1]).tobytes().hex(),
            "seconds": round(time.perf_counter() - self._since, 2),
            "without graph": self._slot.without_graph,
            "fused": fused_by(self.session.device.type),
        }

    def _sequence(self) -> Iterator[str]:
        for step, mode in enumerate([*self._modes, ""]):
            if step in self._at:
                yield "evaluate"
            if mode:
                yield mode

    def _slot_of(self, job: Job, arm: Arm) -> Slot:
        """Return the network of a structure; without fused kernels if they fail."""
        key = (job.network, arm.se, arm.reduction, arm.se_decay)
        if key not in self._slots:
            try:
                slot = Slot(self.session, job, self.steps, self.backend)
                slot.prepare({"all"})
            except RuntimeError as error:
                if arm.se == "none" or self.session.settings.fused == "off":
                    raise
                announce(f"SE runs without fused kernels: {type(error).__name__}: {first_line(error)}")
                senet.set_fused("off")
                slot = Slot(self.session, job, self.steps, self.backend)
            self._slots[key] = slot
        return self._slots[key]

    def _on_stream(self) -> Any:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def make_lanes(session: Session, steps: int, count: int) -> list[Lane]:
    """Return the lanes of a process; a CPU has one, which runs without graphs.

    Args:
        session: data and recipe.
        steps: the most steps of a run.
        count: lanes on a GPU.
    """
    if session.device.type != "cuda":
        return [Lane(session, steps, None, None)]
    torch.cuda.synchronize()  # the data are read on other streams
    backends = [CudaGraphs(session.device) if session.settings.graphs else None for _ in range(count)]
    return [Lane(session, steps, torch.cuda.Stream(session.device), backend) for backend in backends]  # type: ignore[no-untyped-call]
