"""Write `.pt2` files with `torch.export.save`."""

from pathlib import Path

import torch
from torch.export import ExportedProgram

from senet.deployment.metadata import Metadata, write_torch

__all__ = ["write_torch_program"]


def write_torch_program(program: ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Write a captured network with its metadata to one file."""
    torch.export.save(program, path, extra_files=write_torch(metadata))
