"""The run of a network that a search for sites records, once."""

from functools import cached_property

from torch import nn

from senet.graph.example_inputs import Example
from senet.graph.example_runs import search_run
from senet.graph.operations import Trace
from senet.graph.shapes import Maps
from senet.insertion.traced import Effects
from senet.insertion.unit_checks import is_trusted
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError

__all__ = ["NetworkRuns"]


class NetworkRuns:
    """A run of a network, recorded when it is needed first, as a detector takes seconds.

    Args:
        model: the network.
        example: an input of it, or None.
    """

    def __init__(self, model: nn.Module, example: Example | None) -> None:
        self.model, self.example = model, example
        self._whole: Trace | ValueError | None = None

    @property
    def whole(self) -> Trace:
        """The run on the example, or on an image, see `search_run`.

        Raises:
            ValueError: the network does not run on it.
        """
        if self._whole is None:
            try:
                self._whole = search_run(self.model, self.example)
            except ValueError as error:
                self._whole = error
        if isinstance(self._whole, ValueError):
            raise self._whole
        return self._whole

    @property
    def has_run(self) -> bool:
        """Whether `whole` is recorded."""
        return isinstance(self._whole, Trace)

    @cached_property
    def effects(self) -> Effects:
        """What in `whole` has an effect on its outputs."""
        return Effects(self.whole)

    @cached_property
    def maps(self) -> Maps:
        """The maps of `whole`.

        Raises:
            ValueError: the network does not run.
        """
        try:
            return Maps(self.whole)
        except MissingExampleError as error:
            raise MissingExampleError(f"{error}; give {argument('example')}, an input of the network") from error

    def ran(self, name: str) -> bool:
        """Return whether a module, or one in it, is called in `whole`."""
        return name in self._called

    @cached_property
    def _called(self) -> set[str]:
        found = {""}
        for name in {call.name for call in self.whole.calls}:
            while name and name not in found:
                found.add(name)
                name = name.rpartition(".")[0]
        return found

    def run_unless_known(self) -> bool:
        """Record `whole` if it may show that a module does not run, or runs several times; return whether it is there.

        Networks of known libraries run each of their modules once.
        """
        modules = [module for _, module in self.model.named_modules(remove_duplicate=False)]
        if len(modules) == len(set(modules)) and all(map(is_trusted, set(modules))) and self.example is None:
            return self.has_run
        try:
            return self.whole is not None
        except MissingExampleError:
            return False
