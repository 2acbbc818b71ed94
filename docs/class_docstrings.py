"""Show docstrings that are completed at import, where griffe, which builds the API page, only parses the source."""

import importlib
import inspect
from typing import Any

import griffe


class ClassDocstrings(griffe.Extension):
    """Take the docstrings of some classes from the imported class.

    Args:
        classes: their full names.
    """

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes

    def on_class(self, *, cls: griffe.Class, **options: Any) -> None:
        """Replace the docstring of a class, if it is one of them."""
        if cls.path in self.classes and cls.docstring is not None:
            module, _, name = cls.path.rpartition(".")
            cls.docstring.value = inspect.cleandoc(getattr(importlib.import_module(module), name).__doc__)
