"""Annotations that cannot be used: what is wrong with each."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from senet.utils.errors import DataError, DataWarning

__all__ = ["AnnotationFault", "check_faults", "warn_of_faults"]

_EXAMPLES = 10


@dataclass(frozen=True)
class AnnotationFault:
    """An image or an annotation of an annotation file that cannot be used.

    Attributes:
        kind: what is left out: "image" with its annotations, or a single "annotation".
        id: its id in the file; None if it has none.
        file: the image's file if it is known, otherwise the annotation file.
        reason: what is wrong, and the fix.
    """

    kind: Literal["image", "annotation"]
    id: int | None
    file: str
    reason: str

    def __str__(self) -> str:
        """Return one line with everything."""
        return f"{self.kind} {'without id' if self.id is None else self.id} ({self.file}): {self.reason}"


def check_faults(faults: Sequence[AnnotationFault], spec: str, skip: bool) -> None:
    """Check that annotations have no faults, or warn (`DataWarning`) that they are left out.

    Args:
        faults: those that were found.
        spec: spec of the data.
        skip: they are left out.

    Raises:
        DataError: there are some, and `skip` is False; the message has the first ten.
    """
    if faults and not skip:
        raise DataError(
            f"{_listed(faults, spec)}; correct them, or leave them out with --skip-bad; senet train --check lists all"
        )
    warn_of_faults(faults, spec)


def warn_of_faults(faults: Sequence[AnnotationFault], spec: str) -> None:
    """Warn (`DataWarning`) about annotations that are left out, if there are any."""
    if faults:
        kinds = [fault.kind for fault in faults]
        images, annotations = kinds.count("image"), kinds.count("annotation")
        warnings.warn(
            f"{spec}: left out {images} images and {annotations} annotations with faults; the first: {faults[0]}",
            DataWarning,
            stacklevel=3,
        )


def _listed(faults: Sequence[AnnotationFault], spec: str) -> str:
    more = len(faults) - _EXAMPLES
    listed = "; ".join([*map(str, faults[:_EXAMPLES]), *([f"and {more} more"] if more > 0 else [])])
    return f"{spec} has {len(faults)} {'fault' if len(faults) == 1 else 'faults'} in its annotations: {listed}"
