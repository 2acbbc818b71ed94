"""Class names: read them from a file, match them to a network's logits, and warn where their order is ambiguous."""

import warnings
from collections.abc import Sequence
from os import PathLike

from senet.utils.arguments import argument
from senet.utils.errors import DataError, DataWarning
from senet.utils.input_files import read_lines, same_name
from senet.utils.text import natural_key

__all__ = ["check_names", "ordered", "read_class_names", "warn_of_order"]


def read_class_names(path: str | PathLike[str]) -> list[str]:
    """Read a file with one class name per line, in the order of the class indices.

    Raises:
        DataError: the file cannot be read, or a line is empty; the message gives its number.
    """
    names = [same_name(name) for name in read_lines(path, "class list", error=DataError)]
    if "" in names:
        raise DataError(
            f"line {names.index('') + 1} of {path} is empty; give one class name per line, in the order of the "
            f"class indices"
        )
    return names


def ordered(names: Sequence[str]) -> list[str]:
    """Sort class names in natural order, 2 before 10; equal ones, such as "1" and "01", are sorted as text."""
    return sorted(sorted(names), key=natural_key)


def check_names(names: Sequence[str], own: Sequence[str] | None, count: int) -> list[str]:
    """Check class names that replace those of a network.

    Args:
        names: class names, in the order of the logits.
        own: class names of the network; None if it has none.
        count: number of logits.

    Returns:
        The names in Unicode form NFC.

    Raises:
        TypeError: `names` is a string instead of a list.
        ValueError: the number of names differs from the number of logits, or the network has the same names in another
            order.
    """
    if isinstance(names, str):
        raise TypeError(f"classes must be a list of names, got {names!r}; put it in a list")
    names = [same_name(str(name)) for name in names]
    if len(names) != count:
        raise ValueError(f"{len(names)} class names are given, and the network has {count} classes; give one for each")
    if own is not None and list(own) != names and sorted(own) == sorted(names):
        place = next(index for index, pair in enumerate(zip(own, names, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"the network has its class names in another order: its class {place} is {own[place]!r}, and "
            f"{names[place]!r} in the names that are given; leave out {argument('classes')}"
        )
    return names


def warn_of_order(classes: Sequence[str], spec: str) -> None:
    """Warn (`DataWarning`) that a network without class names may have been trained with another order of the classes.

    Libraries sort class folders either naturally (timm, senet) or as text (torchvision's ImageFolder). Nothing is
    ambiguous if both orders are equal, or if the data define another order.
    """
    natural, textual = ordered(classes), sorted(classes)
    if natural == textual or list(classes) not in (natural, textual):
        return
    place = next(index for index, pair in enumerate(zip(natural, textual, strict=True)) if pair[0] != pair[1])
    orders = [
        f"{', '.join(names[: place + 2])}, ... (the order of {whose})"
        for names, whose in ((natural, "senet and timm"), (textual, "torchvision's ImageFolder"))
    ]
    assumed, other = orders if list(classes) == natural else reversed(orders)
    warnings.warn(
        f"the network has no class names, and the classes of {spec} have two orders: {assumed}, which is assumed, and "
        f"{other}. A network that was trained in the second gives wrong results here: name its classes with "
        f"{argument('classes')}",
        DataWarning,
        stacklevel=3,
    )
