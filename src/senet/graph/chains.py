"""Find chains of module calls whose intermediate values nothing else uses, in one run of a network."""

from collections.abc import Callable

from torch import nn
from torch.utils._pytree import tree_leaves

from senet.graph.operations import Call, Operation, Trace, Value
from senet.nn.fused.block_inspection import has_hooks

__all__ = ["Chains", "Unusable", "drops_nothing"]

# Modules that return their input in evaluation, whatever its size, where they have the forward of these classes.
_PASSING = (nn.Identity, nn.Sequential)
_DROPS = ("DropPath", "DropBlock2d", "DropBlock3d", "StochasticDepth")
_LIBRARIES = ("timm.", "torchvision.")


def drops_nothing(module: nn.Module) -> bool:
    """Return whether a module is dropout or stochastic depth, which return their input in evaluation.

    A subclass with a forward of its own may do something else there, as Monte Carlo dropout does.
    """
    owner = _forward_of(module)
    if issubclass(owner, nn.modules.dropout._DropoutNd):
        return owner.__module__ == nn.Dropout.__module__
    return owner.__module__.startswith(_LIBRARIES) and owner.__name__ in _DROPS


def _forward_of(module: nn.Module) -> type:
    """Return the class whose forward a module runs."""
    if "forward" in vars(module):
        return object
    return next(cls for cls in type(module).__mro__ if "forward" in vars(cls))


class Unusable(Exception):  # noqa: N818
    """A module is left unchanged; the message is the reason."""


class Chains:
    """The calls of a run, by the values that they take.

    Args:
        run: of the whole network.
    """

    def __init__(self, run: Trace) -> None:
        self.run = run
        self._outputs = {value.number for value in run.outputs}
        self._seen: dict[int, list[Call]] = {}  # the calls that take or return each value
        for call in run.calls:
            leaves = tree_leaves((call.args, call.kwargs, call.output))
            for number in {leaf.number for leaf in leaves if isinstance(leaf, Value)}:
                self._seen.setdefault(number, []).append(call)
        self._calls: dict[nn.Module, list[Call]] = {}
        for call in run.calls:
            self._calls.setdefault(call.module, []).append(call)
        model = run.calls[0].module
        named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
        tensors = dict(named)
        # Each tensor of the network that an operation reads, by its identity.
        read = {value.number: value for operation in run.operations for value in operation.inputs}
        self._values = {
            id(tensors[name]): read[number]
            for number, name in run.tensors.items()
            if name in tensors and number in read
        }

    def calls(self, module: nn.Module) -> list[Call]:
        """Return the calls of a module."""
        return self._calls.get(module, [])

    def next(self, calls: list[Call], wanted: Callable[[nn.Module], bool]) -> list[Call] | None:
        """Return the calls that alone use the outputs of all calls of a module.

        Args:
            calls: all calls of a module.
            wanted: whether a module is of the kind that may follow.

        Returns:
            The calls of one module, in the same order: as many as `calls`, and all of that module. None if there is no
            such module.
        """
        found = [reader for call in calls if (reader := self.reader(call, wanted)) is not None]
        modules = {call.module for call in found}
        if len(found) != len(calls) or len(modules) != 1 or len(self.calls(found[0].module)) != len(found):
            return None
        return found

    def reader(self, call: Call, wanted: Callable[[nn.Module], bool]) -> Call | None:
        """Return the call that alone uses the output of a call; None if there is none.

        Args:
            call: of a module.
            wanted: whether a module is of the kind that may follow.
        """
        value = call.given
        maker = None if value is None else self.run.producer(value)
        if value is None or maker is None or call not in self.run.enclosing(maker.call):
            return None
        if value.number in self._outputs:
            return None
        readers = [self.run.enclosing(operation.call) for operation in self.run.consumers(value)]
        for one in self._seen[value.number]:
            only = readers and len(one.args) == 1 and not one.kwargs and all(one in reader for reader in readers)
            if only and one.index > call.index and one.taken == value and wanted(one.module):
                return one if self._passes(value, call, one) else None
        return None

    def _passes(self, value: Value, maker: Call, reader: Call) -> bool:
        """Return whether every module between two calls passes the value on, and no hook sees it."""
        for call in self._seen[value.number]:
            if call in (maker, reader):
                continue
            if has_hooks(call.module):
                return False
            known = _forward_of(call.module) in _PASSING or drops_nothing(call.module)
            if call.taken == call.given == value and not known:
                return False  # it may change maps of other sizes
        return True

    def overwritten(self, calls: list[Call], *, taken: bool = False) -> bool:
        """Return whether an operation changes the output of a call, or a view of it, in place.

        Args:
            calls: of a module.
            taken: whether it may be the map that the call took, too.
        """
        values = [*(call.given for call in calls), *(call.taken for call in calls if taken)]
        waiting = [value for value in values if value is not None]
        seen = set(waiting)
        while waiting:
            value = waiting.pop()
            for operation in self.run.consumers(value):
                if _writes(operation, value):
                    return True
                if operation.overload is not None and operation.overload.is_view:
                    waiting += [view for view in operation.outputs if view not in seen]
                    seen.update(operation.outputs)
        return False

    def check(self, module: nn.Module) -> None:
        """Check that a module can be replaced, as far as one run shows.

        Raises:
            Unusable: it has hooks, or another module reads its tensors.
        """
        if any(map(has_hooks, module.modules())):
            raise Unusable("it has hooks")
        for tensor in (*module.parameters(), *module.buffers()):
            value = self._values.get(id(tensor))
            for operation in [] if value is None else self.run.consumers(value):
                if not any(_holds(call.module, tensor) for call in self.run.enclosing(operation.call)):
                    raise Unusable("another module reads its parameters")


def _writes(operation: Operation, value: Value) -> bool:
    """Return whether an operation changes a value that it takes."""
    if operation.overload is None:
        return False
    named = zip(operation.overload._schema.arguments, operation.args, strict=False)
    taken = [*named, *((one, operation.kwargs.get(one.name)) for one in operation.overload._schema.arguments)]
    return any(one.is_write and value in tree_leaves(given) for one, given in taken)


def _holds(module: nn.Module, tensor: object) -> bool:
    return any(own is tensor for own in (*module._parameters.values(), *module._buffers.values()))
