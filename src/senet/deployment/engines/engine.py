"""What all engines have in common: inputs with shapes and types, and one function that runs the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from senet.deployment.metadata import Metadata
from senet.utils.choices import ExportFormat
from senet.utils.extras import optional_import

__all__ = ["Engine", "Port", "import_engine"]


@dataclass(frozen=True)
class Port:
    """An input or output of an exported network.

    Attributes:
        name: in the file.
        shape: lengths of the axes; None where the file accepts any, or the length is not known before a run.
        dtype: of the tensor.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype

    @property
    def text(self) -> str:
        """Shape and dtype, for messages: "(any, 3, 224, 224) float32"."""
        lengths = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"({lengths}{',' if len(self.shape) == 1 else ''}) {str(self.dtype).removeprefix('torch.')}"


class Engine(Protocol):
    """An exported network in an engine, ready to run on the CPU.

    Attributes:
        format: of the file.
        metadata: what the file states about the network; None if senet did not write it.
        inputs: in the order of `run`.
        outputs: in the order of the results of `run`.
    """

    format: ExportFormat
    metadata: Metadata | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network on contiguous CPU tensors that match `inputs`, and return its outputs."""
        ...


def import_engine(name: str, path: object) -> Any:
    """Import the library of an engine.

    Args:
        name: of the module.
        path: the file that needs it, for the message.

    Raises:
        ImportError: it cannot be imported; the message has the command that installs it.
    """
    with optional_import("deploy", f"{path} requires {name}", ImportError):
        return import_module(name)
