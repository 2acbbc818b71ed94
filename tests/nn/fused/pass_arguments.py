"""Random arguments of the passes in `senet.nn.fused.reference`."""

from typing import Any

import torch

from senet.nn.fused import reference

__all__ = ["ACTIVATED_PASSES", "PASSES", "arguments_of"]

# What each pass takes: maps (N, C, ...), y g x; per-sample values, (N, C), m s A; and (C,), the others.
PASSES = {
    "stats": "y p",
    "elemt": "y p A b",
    "elemt skip": "y p A b g",
    "backward_reduce": "g y p",
    "backward_reduce relu": "g y p x",
    "backward_elemt": "g y p A b m",
    "squeeze": "y w b 0.001",
    "scale": "y s p m1 w b",
    "scale skip": "y s p m1 w b g",
    "reduce": "g y s p m1 w b",
    "reduce relu": "g y s p m1 w b x",
    "gradient": "g y p A m b w s m1 w r",
}

# The same of `senet.nn.fused.reference_activated`, without the name of an activation.
ACTIVATED_PASSES = {
    "activated_mean": "y p w b",
    "activated_scale": "y s p w b",
    "activated_elemt": "g y p w b A m k b",
    "activated_squeeze": "y w b 0.001",
    "activated_reduce": "g y s p w b",
    "activated_gradient": "g y p w b s A w b m s m1 r",
}


def arguments_of(
    keys: str, shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format
) -> list[Any]:
    """Draw what a row of `PASSES` lists, for maps of a shape (N, C, ...)."""
    wide = reference.wide(dtype)
    arguments: list[Any] = []
    for key in keys.split():
        if key in "ygx":
            arguments.append(torch.randn(shape).to(dtype).to(memory_format=memory_format))
        elif key in "msA":
            arguments.append(torch.randn(shape[:2], dtype=wide))
        else:
            arguments.append(float(key) if key[0] == "0" else torch.randn(shape[1], dtype=wide))
    return arguments
