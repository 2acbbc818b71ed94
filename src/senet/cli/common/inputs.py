"""The inputs of a network on a command line: `--input 1x3x224x224`, once for each input."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from senet.graph.example_inputs import Example

__all__ = ["InputOption", "parse_inputs"]

InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="Run the network on an input of this shape, the batch included: 1x3x224x224. Repeat it for each input of "
        "a network with several; with NAME, an input is passed by keyword. DTYPE, such as int64, is that of the "
        "weights by default; integers are zeros.",
    ),
]

_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d{1,9}(?:x\d{1,9})*)(?::(?P<dtype>\w+))?")
_MOST_ELEMENTS = 2**30


def parse_inputs(inputs: Sequence[str] | None, model: Any) -> "Example | None":
    """Return the example input that `--input` describes: normally distributed numbers, on the network's device.

    Args:
        inputs: values of the option, "[NAME=]SHAPE[:DTYPE]"; empty or None if not given.
        model: the network.

    Returns:
        A tuple of positional inputs, a dict of inputs by keyword, or None.

    Raises:
        ValueError: a value has another form, an unknown dtype or too many elements, or only some have names.
    """
    if not inputs:
        return None
    parsed = [(given, _INPUT.fullmatch(given)) for given in inputs]
    names = []
    tensors = []
    for given, parts in parsed:
        if parts is None:
            raise ValueError(f"invalid --input {given!r}: expected [NAME=]SHAPE[:DTYPE], such as 1x3x224x224")
        names.append(parts["name"])
        tensors.append(_tensor(given, [int(n) for n in parts["shape"].split("x")], parts["dtype"], model))
    if not any(names):
        return tuple(tensors)
    if not all(names):
        raise ValueError("either all --input have a NAME or none: inputs are passed by keyword or by position")
    if len(set(names)) < len(names):
        raise ValueError(f"--input names {next(n for n in names if names.count(n) > 1)!r} twice")
    return dict(zip(names, tensors, strict=True))


def _tensor(given: str, shape: list[int], dtype: str | None, model: Any) -> Any:
    import torch

    first = next((x for x in (*model.parameters(), *model.buffers()) if x.is_floating_point()), torch.empty(0))
    kind = first.dtype if dtype is None else getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"invalid --input {given!r}: {dtype!r} is no dtype of PyTorch, such as float32 or int64")
    if not 1 <= torch.Size(shape).numel() <= _MOST_ELEMENTS:
        raise ValueError(f"invalid --input {given!r}: a tensor of 1 to {_MOST_ELEMENTS:,} elements is required")
    if not kind.is_floating_point:
        return torch.zeros(shape, dtype=kind, device=first.device)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(first.device, kind)
