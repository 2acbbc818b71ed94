"""Show objects as they are after import, where griffe, which builds the API pages, only parses the source."""

import importlib
import inspect
from typing import Any

import griffe


class ImportedObjects(griffe.Extension):
    """Take docstrings that are completed at import from the imported class, and functions instead of their modules.

    Args:
        classes: full names of the classes.
    """

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes

    def on_class(self, *, cls: griffe.Class, **options: Any) -> None:
        """Replace the docstring of a class, if it is one of them."""
        if cls.path in self.classes and cls.docstring is not None:
            module, _, name = cls.path.rpartition(".")
            cls.docstring.value = inspect.cleandoc(getattr(importlib.import_module(module), name).__doc__)

    def on_package(self, *, pkg: griffe.Module, **options: Any) -> None:
        """Let a public name mean the function where its module has the same name: `senet.insertion.insert`."""
        for name, member in list(pkg.members.items()):
            ours = isinstance(member, griffe.Alias) and member.target_path.startswith(f"{pkg.path}.")
            if ours and member.is_module and name in member.members:
                pkg.members[name] = griffe.Alias(name, member.members[name], parent=pkg)
