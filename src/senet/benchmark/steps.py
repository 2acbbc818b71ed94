"""One step of a network, in training or inference, and its memory."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.graph.saved_tensors import SavedTensors
from senet.nn.fused import set_fused
from senet.utils.arguments import argument, argument_name
from senet.utils.choices import BenchDevice, BenchMode, Dtype, check_choices
from senet.utils.cuda_graph_capture import GraphBackend
from senet.utils.cuda_graphs import CapturedStep
from senet.utils.errors import CaptureError
from senet.utils.limits import LARGEST_SIDE, MOST_BATCH, MOST_PROCESSES, check_at_most
from senet.utils.memory_errors import is_out_of_memory
from senet.utils.notices import announce
from senet.utils.sizes import SizeLike, parse_size, size_pair

__all__ = ["DTYPES", "Setting", "Step"]

# The dtype of autocast, or None without autocast.
DTYPES: dict[Dtype, torch.dtype | None] = {
    "float32": None,
    "tf32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings of all networks of a comparison.

    Attributes:
        mode: "train": forward, cross entropy, backward and the optimizer's step, in training mode; "infer": forward, in
            evaluation mode and `torch.inference_mode`.
        compile: whether each network is compiled with `torch.compile`, with its defaults.
        batch: images per step.
        size: pixels of a side of the images, or (height, width).
        dtype: "float32"; "tf32", float32 in which a GPU rounds the inputs of products and convolutions to 10 bits;
            or "bfloat16" or "float16" by autocast, with parameters in float32. Training in "float16" scales the loss
            (`torch.amp.GradScaler`).
        threads: number of intra-op threads of PyTorch; unchanged by default.
        device: "cpu" or "cuda"; "auto" is "cuda" if available.
        cuda_graph: whether each step is captured as a CUDA graph and replayed, which excludes host time.
        memory_format: of images and convolution weights.
        optimizer: of a training step. Its learning rate of 1e-6 hardly changes the weights, so the work stays the same.

    Raises:
        ValueError: a value is invalid, the device is not available, or the dtype or CUDA graph needs another device.

    Examples:
        >>> found = senet.bench("se_resnet20", batch=2, size=32, rounds=6)
        >>> found.setting.mode, found.setting.batch, found.setting.dtype
        ('train', 2, 'float32')
    """

    mode: BenchMode = "train"
    compile: bool = False
    batch: int = 16
    size: SizeLike = 224
    dtype: Dtype = "float32"
    threads: int = field(default_factory=torch.get_num_threads)
    device: BenchDevice = "auto"
    cuda_graph: bool = False
    memory_format: str = field(default="channels_last", init=False)
    optimizer: str = field(default="SGD, momentum 0.9, fused", init=False)

    def __post_init__(self) -> None:
        check_choices(self)
        object.__setattr__(self, "size", parse_size(self.size, "size"))
        for name, least in (("batch", self.batch), ("size", min(size_pair(self.size))), ("threads", self.threads)):
            if least < 1:
                raise ValueError(f"{argument_name(name)} must be 1 or more, got {getattr(self, name)}")
        most = {"batch": MOST_BATCH, "size": LARGEST_SIDE, "threads": MOST_PROCESSES}
        for name, number in (("batch", self.batch), ("size", max(size_pair(self.size))), ("threads", self.threads)):
            check_at_most(name, number, most[name])
        if self.device == "auto":
            object.__setattr__(self, "device", "cuda" if torch.cuda.is_available() else "cpu")
        elif self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device 'cuda' is not available: use {argument('device', 'cpu')}")
        if self.device != "cuda":
            if self.cuda_graph:
                raise ValueError(
                    f"CUDA graphs need a GPU, and the device is {self.device!r}: leave out {argument('cuda_graph')}"
                )
            if self.dtype == "tf32":
                raise ValueError(
                    f"dtype 'tf32' needs a GPU, and the device is {self.device!r}: use {argument('dtype', 'float32')}"
                )

    @property
    def work(self) -> str:
        """Description of a step."""
        if self.mode == "infer":
            return "forward in evaluation mode"
        return f"forward, cross entropy, backward, optimizer ({self.optimizer})"


class Step:
    """A step of one network, run by a call. No gradients remain afterwards.

    On a GPU, a call returns when the work is queued, as in training; the caller waits for the device.

    Args:
        name: name of the network.
        model: the network; it is modified.
        images: (N, C, H, W), float32.
        setting: settings of the step.
        fused: backend of its batch norms, see `senet.set_fused`, set before each forward pass; by default that of the
            process.

    Raises:
        ValueError: the network does not accept the images, does not return (N, classes), or has no parameter to train.
    """

    def __init__(self, name: str, model: nn.Module, images: Tensor, setting: Setting, fused: str | None = None) -> None:
        self.name, self.setting, self._fused = name, setting, fused
        self.images = images.to(setting.device, memory_format=torch.channels_last)
        model.to(device=setting.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model.train(setting.mode == "train")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._network: Any = model
        self._step: Callable[[], Any] = self._run
        outputs = self._try()
        if setting.mode == "train":
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            if not trained:
                raise ValueError(f"{name} has no parameter to train; use {argument('mode', 'infer')}")
            self._labels = torch.arange(len(images), device=setting.device) % outputs.shape[1]
            self._optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9, fused=True)
            # The default of 65,536 overflows at first. PyTorch's fused SGD leaves momentum uninitialized if its first
            # step is skipped because of an overflow.
            self._scaler = torch.amp.GradScaler(setting.device, init_scale=128.0, enabled=setting.dtype == "float16")
        if setting.compile:
            announce("compiling a network with torch.compile: the warm-up takes longer, up to minutes")
            self._network = torch.compile(model)

    def __call__(self) -> None:
        """Run a step, or replay it after `capture`."""
        self._step()

    def wait(self) -> None:
        """Wait until the device has finished all steps."""
        if self.setting.device == "cuda":
            torch.cuda.synchronize()

    def capture(self, backend: GraphBackend | None = None) -> None:
        """Capture the step in a CUDA graph, which later calls replay.

        Args:
            backend: records the step; CUDA graphs by default.

        Raises:
            CaptureError: the network runs an operation that a graph cannot record.
        """
        optimizer = self._optimizer if self.setting.mode == "train" else None
        step = CapturedStep(self._run, networks=(self.model,), optimizer=optimizer, backend=backend)
        try:
            while not step.is_captured():
                step()
        except CaptureError as error:
            raise CaptureError(f"{error.reason}, in {self.name}; leave cuda_graph out") from error
        self._step = step

    def _run(self) -> None:
        if self.setting.mode == "infer":
            with torch.inference_mode():
                self._forward()
        else:
            self._backward(self._loss())

    def saved_bytes(self) -> int | None:
        """Return the activation memory in bytes that one forward pass saves for backward; None in inference.

        Each storage counts once. Parameters, buffers, and tensors freed during the forward pass do not count.
        Memory that a custom function keeps outside of autograd is not seen.
        """
        if self.setting.mode == "infer":
            return None
        saved = SavedTensors()
        with saved.watching():
            loss = self._loss()
        found = saved.nbytes((*self.model.parameters(), *self.model.buffers()))
        self._backward(loss)
        return found

    def peak_bytes(self) -> int:
        """Return the peak memory of a step in addition to parameters, momentum and images.

        On a CPU PyTorch's profiler measures it, which sees tensors, but not memory of libraries such as oneDNN. A
        captured step is measured without its graph.
        """
        if self.setting.device == "cuda":
            self.wait()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self._run()
            self.wait()
            return torch.cuda.max_memory_allocated() - before
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it logs that it finds no GPU
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            self()
        with TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            profile.export_chrome_trace(str(trace))
            events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
        changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
        now = peak = 0
        for _, change in sorted(changes, key=lambda one: one[0]):
            now += change
            peak = max(peak, now)
        return peak

    def _forward(self) -> Tensor:
        if self._fused is not None:
            set_fused(self._fused)
        dtype = DTYPES[self.setting.dtype]
        with torch.autocast(self.setting.device, dtype, enabled=dtype is not None):
            return self._network(self.images)  # type: ignore[no-any-return]

    def _loss(self) -> Tensor:
        return F.cross_entropy(self._forward().float(), self._labels)

    def _backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()

    def _try(self) -> Tensor:
        """Run a forward pass before timing, to detect invalid inputs and outputs."""
        setting, shape = self.setting, tuple(self.images.shape)
        try:
            with torch.no_grad():
                outputs = self._forward()
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            verb = "train on" if setting.mode == "train" else "take"
            raise ValueError(
                f"{self.name} cannot {verb} images of the shape {shape}: {error}; give another batch or size"
            ) from error
        if setting.mode == "train" and not (isinstance(outputs, Tensor) and outputs.ndim == 2):
            what = f"the shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            infer = argument("mode", "infer")
            raise ValueError(f"training needs outputs (N, classes), and {self.name} returns {what}; use {infer}")
        return outputs
