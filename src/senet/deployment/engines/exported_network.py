"""`load_exported`: an exported file as a module that takes and returns PyTorch's tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.deployment.engines.engine import Engine, Port
from senet.deployment.engines.onnx_engine import OnnxEngine
from senet.deployment.engines.openvino_engine import OpenVinoEngine
from senet.deployment.engines.torch_engine import TorchEngine
from senet.utils.choices import ExportFormat
from senet.utils.errors import ModelFileError
from senet.utils.input_files import reading
from senet.utils.limits import MOST_PROCESSES, check_at_most
from senet.utils.option_types import check_integer, check_path

__all__ = ["ExportedDetector", "ExportedNetwork", "is_exported", "load_exported"]


class _Opens(Protocol):
    def __call__(self, path: Path, threads: int | None = None, batch: int | None = None) -> Engine: ...


_ENGINES: dict[str, _Opens] = {".onnx": OnnxEngine, ".xml": OpenVinoEngine, ".pt2": TorchEngine}
# Names of the outputs of torchvision's detectors.
_DETECTIONS = {"boxes", "labels", "scores"}
# The largest distance of a pixel in floating point from a whole number.
_ROUNDING = 0.01


def is_exported(path: str | PathLike[str]) -> bool:
    """Return whether a name has the suffix of an exported file: .onnx, .xml or .pt2."""
    return Path(path).suffix.lower() in _ENGINES


def load_exported(
    path: str | PathLike[str], *, threads: int | None = None, batch: int | None = None
) -> "ExportedNetwork":
    """Open an exported network, to run it in its engine on the CPU.

    Args:
        path: a file of `senet.export`, or another one: .onnx (ONNX Runtime), .xml with its .bin (OpenVINO) or .pt2
            (torch.export).
        threads: number of threads; by default one per core, or those of PyTorch for .pt2.
        batch: fixes the batch of a file that accepts any, which lets the engine plan for it. Others are split or
            padded.

    Returns:
        A module in evaluation mode. `senet.evaluate` and `senet.predict` take it if the file has metadata of senet.

    Raises:
        ModelFileError: the file is missing or damaged, has another suffix, or the engine does not run it.
        ImportError: the engine is not installed.
        TypeError: `path` is no path, or `threads` or `batch` no integer.
        ValueError: `threads` or `batch` is below 1.

    Examples:
        >>> _ = senet.export(senet.create_model("se_resnet20", num_classes=2).eval(), "model.onnx", dynamic=["batch"])
        >>> network = senet.load_exported("model.onnx")
        >>> senet.evaluate(network, "photos").images
        8
    """
    check_path("path", path)
    for name, number in (("threads", threads), ("batch", batch)):
        if number is None:
            continue
        check_integer(name, number)
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, got {number}")
    check_at_most("threads", threads, MOST_PROCESSES)
    path = Path(path)
    if not is_exported(path):
        raise ModelFileError(f"{path} is no exported network: expected a file {', '.join(_ENGINES)}")
    if not path.is_file():
        raise ModelFileError(f"no file at {path}")
    with reading(path, "exported network", error=ModelFileError):
        engine = _ENGINES[path.suffix.lower()](path, threads, batch)
    kind = ExportedDetector if {port.name for port in engine.outputs} == _DETECTIONS else ExportedNetwork
    return kind(engine, path, threads, batch)


class ExportedNetwork(nn.Module):
    """An exported network: an inference-only module without parameters, which runs in its engine on the CPU.

    A file with a fixed batch B takes any number of samples: they run in chunks of B, and the last one is padded.

    Args:
        engine: the opened file.
        path: of the file.
        threads: see `load_exported`.
        batch: see `load_exported`.

    Attributes:
        path: of the file.
        format: "onnx", "openvino" or "torch".
        precision: "fp32", "fp16", "bf16" or "int8"; None if senet did not write the file.
        classes: class names in the order of the logits; None if the file has none.
        preprocessing: how images enter the network; None if the file does not state it.
        takes_pixels: the graph normalizes; its input is 8-bit pixels (N, H, W, C).
        inputs, outputs: names, shapes and dtypes.
        num_classes: number of logits; 0 if the network has several outputs, or one of another shape than (N, K).
        pretrained_cfg: preprocessing and classes in timm's form, for `senet.evaluate`; None without `preprocessing`.

    Examples:
        >>> _ = senet.export(senet.create_model("se_resnet20", num_classes=2).eval(), "model.onnx")
        >>> network = senet.load_exported("model.onnx")
        >>> network(torch.randn(3, 3, 32, 32)).shape  # a batch of one, three times
        torch.Size([3, 2])
    """

    def __init__(self, engine: Engine, path: Path, threads: int | None, batch: int | None) -> None:
        super().__init__()
        self.training = False
        self._engine, self._options = engine, (threads, batch)
        self.path = path
        self.format: ExportFormat = engine.format
        self.inputs, self.outputs = engine.inputs, engine.outputs
        metadata = engine.metadata
        self.precision = None if metadata is None else metadata.precision
        self.classes = None if metadata is None else metadata.classes
        self.preprocessing: Preprocessing | None = None if metadata is None else metadata.preprocessing
        self._task = {} if metadata is None else dict(metadata.task)
        self.takes_pixels = metadata is not None and metadata.takes_pixels
        logits = engine.outputs[0].shape if len(engine.outputs) == 1 else ()
        self.num_classes = (logits[1] or 0) if len(logits) == 2 else 0
        self.pretrained_cfg = self._cfg()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Run the network.

        Args:
            *inputs: tensors in the order of `inputs`; floating-point ones get the file's dtype. A network with
                preprocessing takes 8-bit pixels (N, H, W, C), or the same numbers in floating point as (N, C, H, W).
            **named: inputs by name.

        Returns:
            The output on the CPU, or a tuple of several.

        Raises:
            ValueError: the number of inputs, or a shape, does not fit.
            TypeError: an input is no tensor, or of another kind of dtype.
        """
        values = self._ordered(inputs, named)
        if self.takes_pixels and len(values) == 1 and values[0].is_floating_point():
            values = [_pixels(values[0])]
        values = [_converted(value, port, self.path) for value, port in zip(values, self.inputs, strict=True)]
        outputs = self._run(values)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Reject training mode.

        Raises:
            ValueError: `mode` is true.
        """
        if mode:
            raise ValueError(f"{self.path} is an exported network, for inference only: train the network it is from")
        return self

    def extra_repr(self) -> str:
        """Return the file and the inputs."""
        return ", ".join([str(self.path), *(f"{port.name}={port.text}" for port in self.inputs)])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, *self._options)

    def _cfg(self) -> dict[str, Any] | None:
        if self.preprocessing is None:
            return None
        cfg = self.preprocessing.as_cfg()
        if self.takes_pixels:  # the graph normalizes
            channels = len(self.preprocessing.mean)
            cfg |= {"mean": (0.0,) * channels, "std": (1 / 255,) * channels}
        return cfg | {
            "num_classes": self.num_classes,
            "label_names": None if self.classes is None else list(self.classes),
            **self._task,
        }

    def _ordered(self, inputs: Sequence[Any], named: dict[str, Any]) -> list[Any]:
        """Return the inputs in the order of the file."""
        names = [port.name for port in self.inputs]
        rest = names[len(inputs) :]
        if len(inputs) > len(names) or set(named) != set(rest):
            given = f"{len(inputs)} by position" + (f" and {', '.join(sorted(named))}" if named else "")
            raise ValueError(f"{self.path} takes {len(names)} input(s) ({', '.join(names)}), got {given}")
        return [*inputs, *(named[name] for name in rest)]

    def _run(self, values: list[Tensor]) -> list[Tensor]:
        firsts = {value.shape[0] for value in values if value.ndim}
        fixed = {port.shape[0] for port in self.inputs if port.shape}
        if len(firsts) != 1 or len(fixed) != 1 or None in fixed or firsts == fixed:
            return self._engine.run(values)
        (count,), (batch,) = firsts, fixed
        assert batch is not None
        unbatched = [port for port in self.outputs if not port.shape or port.shape[0] != batch]
        if unbatched or not count:
            raise ValueError(
                f"{self.path} takes batches of {batch}, got {count}"
                + (f"; its output {unbatched[0].name} cannot be split" if unbatched else "")
            )
        chunks = [
            self._engine.run([_chunk(value, start, batch) for value in values]) for start in range(0, count, batch)
        ]
        return [torch.cat(parts)[:count] for parts in zip(*chunks, strict=True)]


class ExportedDetector(ExportedNetwork):
    """An exported detector, called as those of torchvision: a list of images in, a dict of boxes for each out."""

    def __init__(self, engine: Engine, path: Path, threads: int | None, batch: int | None) -> None:
        super().__init__(engine, path, threads, batch)
        self.transform = _InFile()
        self.num_classes = len(self.classes or ())
        self.pretrained_cfg = self._cfg()

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:  # type: ignore[override]
        """Find objects in images.

        Args:
            images: (C, H, W) each, of any size, 0 to 1.

        Returns:
            "boxes" (n, 4), "labels" (n,), of which 0 is the background, and "scores" (n,) of each.
        """
        names = [port.name for port in self.outputs]
        found = (self._engine.run([_converted(image, self.inputs[0], self.path)]) for image in images)
        return [dict(zip(names, outputs, strict=True)) for outputs in found]


class _InFile:
    """The transform of an exported detector: the file itself resizes images that do not have its size."""

    @contextmanager
    def keeping_size(self) -> Iterator[None]:
        """Do nothing: a loader has resized the images to the size of the file."""
        yield


def _reopen(path: Path, threads: int | None, batch: int | None) -> ExportedNetwork:
    """Open a file again, for copies and pickles."""
    return load_exported(path, threads=threads, batch=batch)


def _chunk(value: Tensor, start: int, batch: int) -> Tensor:
    """Return `batch` samples from `start` on; the last one is repeated where there are fewer."""
    part = value[start : start + batch]
    missing = batch - len(part)
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part.contiguous()


def _pixels(images: Tensor) -> Tensor:
    """Convert pixels (N, C, H, W) in floating point to 8 bits (N, H, W, C).

    Raises:
        ValueError: the numbers are no pixels, such as normalized images.
    """
    rounded = images.round()
    whole = float((images - rounded).abs().max()) <= _ROUNDING
    if not whole or float(rounded.min()) < 0 or float(rounded.max()) > 255:
        raise ValueError(
            "the exported network normalizes images itself: give pixels of 0 to 255, without other mean and std"
        )
    return rounded.to(torch.uint8).permute(0, 2, 3, 1)


def _converted(value: Any, port: Port, path: Path) -> Tensor:
    """Return an input as the file takes it: contiguous, on the CPU, of its dtype; the batch may differ."""
    if not isinstance(value, Tensor):
        raise TypeError(f"the input {port.name} of {path} must be a tensor, got {type(value).__name__}")
    given = tuple(value.shape)
    fits = len(given) == len(port.shape) and all(
        axis == 0 or length is None or length == given[axis] for axis, length in enumerate(port.shape)
    )
    if not fits:
        raise ValueError(f"the input {port.name} of {path} has the shape {port.text}, got {given}")
    if value.dtype != port.dtype and not (value.is_floating_point() and port.dtype.is_floating_point):
        raise TypeError(
            f"the input {port.name} of {path} is {port.text}, got {str(value.dtype).removeprefix('torch.')}"
        )
    return value.detach().to("cpu", port.dtype).contiguous()
