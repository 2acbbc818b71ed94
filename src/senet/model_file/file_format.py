"""The format of model files, and what all kinds of them have in common."""

from typing import Any

from senet.nn.inserted_se import InsertedSE

__all__ = ["FORMAT", "KEY", "entry_of"]

# Incremented when an older senet could misread a file. A file records the lowest format that describes it: 4 for
# detectors and other channel attention than SE, 3 for SE with windows, for SE alone and for networks that the file does
# not build, 2 for a network of another library without some of its own SE modules, 1 for all others.
FORMAT = 4
# Of the description, in the header of the safetensors file.
KEY = "senet"


def entry_of(insertion: InsertedSE) -> dict[str, Any]:
    """Return the description of SE at a site."""
    return {
        "name": insertion.name,
        "how": insertion.how,
        "child": insertion.child,
        "options": insertion.se.options,
    }
