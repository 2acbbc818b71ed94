"""Run files of `torch.export.save` on the CPU."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves, tree_unflatten

from senet.deployment.engines.engine import Port
from senet.deployment.metadata import read_torch
from senet.utils.choices import ExportFormat

__all__ = ["TorchEngine"]


class TorchEngine:
    """A program of torch.export.

    Args:
        path: of the file.
        threads: number of threads of PyTorch during a run; None leaves PyTorch's own.
        batch: not used: PyTorch's kernels are chosen for each run.
    """

    format: ExportFormat = "torch"

    def __init__(self, path: Path, threads: int | None = None, batch: int | None = None) -> None:
        if not is_zipfile(path):  # PyTorch would log a traceback, and then raise an error of another format
            raise ValueError("it is not a ZIP archive")
        entries = {"senet.model": ""}
        with _tensors_only():
            try:
                program = torch.export.load(path, extra_files=entries)
            except UnpicklingError as error:
                raise ValueError("it has objects other than tensors, which could run code") from error
        self.metadata = read_torch(entries, path)
        self._module = program.module()
        self._threads = threads
        nodes = {node.name: node for node in program.graph.nodes}
        signature = program.graph_signature
        # Inputs that are no tensors are constants of the program.
        self._arguments = [nodes.get(value, value) for value in signature.user_inputs]
        self._structure = program.call_spec.in_spec
        self.inputs = tuple(_port(node) for node in self._arguments if isinstance(node, Node))
        self.outputs = tuple(_port(nodes[name]) for name in signature.user_outputs if isinstance(name, str))
        names = None if self.metadata is None else self.metadata.outputs
        if names is not None and len(names) == len(self.outputs):  # the program names its operations
            self.outputs = tuple(replace(port, name=name) for port, name in zip(self.outputs, names, strict=True))

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network, see `Engine.run`."""
        before = torch.get_num_threads()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            with torch.no_grad():
                args, kwargs = self._structured(inputs)
                return [leaf for leaf in tree_leaves(self._module(*args, **kwargs)) if isinstance(leaf, Tensor)]
        finally:
            torch.set_num_threads(before)

    def _structured(self, inputs: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of the program, which may be nested."""
        values = iter(inputs)
        leaves = [next(values) if isinstance(node, Node) else node for node in self._arguments]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return args, kwargs


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Let `torch.load` read tensors and no other objects, which could run code.

    `torch.export.load` has no such argument, and reads weights that say so with weights_only=False.
    """
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _port(node: Any) -> Port:
    value = node.meta["val"]
    lengths = tuple(length if isinstance(length, int) else None for length in value.shape)
    return Port(node.name, lengths, value.dtype)
