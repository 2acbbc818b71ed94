"""Rewrite a network for inference, exactly: which modules are replaced by which."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from senet.deployment.report import Action, DeployReport, Row
from senet.deployment.rewriting.batch_norms import Affine, is_norm, read_norm
from senet.deployment.rewriting.checking import check_same
from senet.deployment.rewriting.convolutions import plain_convolution
from senet.deployment.rewriting.excitations import PlainExcitation, read_excitations
from senet.deployment.rewriting.explicit import Explicit, make_explicit, remove_empty
from senet.deployment.rewriting.forms import Forms
from senet.deployment.rewriting.layers import (
    check_layer,
    dense_rows,
    fold_into,
    is_layer,
    is_pointwise,
    out_channels,
)
from senet.deployment.rewriting.map_forms import forms_at, scales_weights
from senet.deployment.rewriting.modules import ChannelScale, InferenceSE, PointwiseSE
from senet.deployment.rewriting.replacing import replace_module
from senet.deployment.rewriting.scaled_conv import ScaledConv
from senet.deployment.rewriting.work import bytes_moved, macs
from senet.fusion import unfuse
from senet.graph.chains import Chains, Unusable, drops_nothing
from senet.graph.comparing import same_function, small_shapes
from senet.graph.constant_gates import gates_by_weights
from senet.graph.example_inputs import Example, example_image
from senet.graph.example_runs import run_network
from senet.graph.operations import Call, Trace
from senet.graph.se_modules import SEUnit, find_se
from senet.nn.fused.block_inspection import has_hooks
from senet.utils.arguments import argument
from senet.utils.errors import MissingExampleError, RewriteError, first_line

__all__ = ["Rewriting", "rewrite"]


def rewrite(model: nn.Module, example: Example | None, forms: Forms) -> tuple[nn.Module, DeployReport]:
    """Rewrite a copy of a network in evaluation mode.

    Args:
        model: the network; it is not modified.
        example: an input of the network; an image is made up unless given.
        forms: how SE is written.

    Returns:
        The rewritten copy, and what was done.

    Raises:
        RewriteError: the network cannot be copied, or the result differs.
        TypeError, ValueError: the network does not run on the example.
    """
    network = make_explicit(_copied(model))
    before = _run(network.model, example)
    rewriting = Rewriting(network, before, find_se(network.model, example, before), forms)
    new = rewriting.apply().eval().requires_grad_(False)
    check_same(model, new, example)
    after = _run(new, example)
    report = DeployReport(tuple(rewriting.rows), (macs(before), macs(after)), (bytes_moved(before), bytes_moved(after)))
    return new, report


def _run(model: nn.Module, example: Example | None) -> Trace:
    """Run a network without values, or with those of the example if its code reads values.

    Raises:
        TypeError, ValueError: see `run_network`.
    """
    try:
        return run_network(model, example, images=[example_image(model)], prefer_shapes=True)
    except MissingExampleError as error:
        raise MissingExampleError(f"{error}; give {argument('example')}, an input of the network") from error


def _copied(model: nn.Module) -> nn.Module:
    try:
        return unfuse(copy.deepcopy(model))
    except Exception as error:  # whatever its attributes raise
        raise RewriteError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}; deploy rewrites a copy, so every attribute "
            f"of the network must support copy.deepcopy"
        ) from error


class Rewriting:
    """A rewriting of a network, in place.

    Args:
        network: a copy of the network, with explicit SE.
        run: of the copy.
        units: its SE modules.
        forms: how SE is written.

    """

    def __init__(self, network: Explicit, run: Trace, units: list[SEUnit], forms: Forms) -> None:
        self.model = network.model
        self._names, self._forms = network.names, forms
        self._chains = Chains(run)
        self._blocks = {unit.module: unit for unit in units if unit.form == "block"}
        self._done: dict[nn.Module, Row] = {}
        self._layers: dict[nn.Module, nn.Module] = {}  # rewritten, by the original
        self._not_moved: dict[nn.Module, str] = {}
        self._units = units
        self._network = network

    def apply(self) -> nn.Module:
        """Rewrite the network, and return it."""
        units = self._units
        inside = {part for unit in units for part in unit.module.modules() if unit.form != "inline"}
        inside |= {part for unit in units for part in unit.parts if unit.form == "inline"}
        modules = [module for module in self.model.modules() if module not in inside]
        for module in modules:
            if is_layer(module):
                self._plain_weight(module)
                self._layer(module)
        for module in modules:
            if is_norm(module) and module not in self._done:
                self._note(module, "left", self._why_not_folded(module))
        for unit in units:
            if unit.module not in self._done:
                self._excitation(unit, self._not_moved.get(unit.module, ""))
        for module in modules:
            if drops_nothing(module) and not has_hooks(module):
                self._replace(module, nn.Identity(), "removed")
        for module in self._network.computed:
            self._done.setdefault(module, Row(self._names[module], type(module).__name__, "removed", "parametrization"))
        self._network.model = self.model
        remove_empty(self._network)
        return self._network.model

    @property
    def rows(self) -> list[Row]:
        """What was done, in the order of the network."""
        order = {name: place for place, name in enumerate(self._names.values())}
        return sorted(self._done.values(), key=lambda row: order.get(row.module, 0))

    def _plain_weight(self, layer: nn.Module) -> None:
        """Replace a convolution that computes its weight in its forward by one with that weight."""
        calls = self._chains.calls(layer)
        if not isinstance(layer, nn.modules.conv._ConvNd) or not calls or calls[0].taken is None:
            return
        if any(len(call.args) != 1 or call.kwargs for call in calls):
            return
        try:
            self._chains.check(layer)
        except Unusable:
            return
        plain = plain_convolution(layer, calls[0].taken.shape)
        if plain is not None:
            self._layers[layer] = plain
            self._replace(layer, plain, "removed", "computed weight")

    def _layer(self, original: nn.Module) -> None:
        """Fold the batch norm after a layer into it, and SE after that."""
        layer = self._layers.get(original, original)
        calls = self._chains.calls(original)
        norm_calls = self._chains.next(calls, is_norm) if calls else None
        last, norm, folded = calls, None, layer
        try:
            if norm_calls is not None:
                norm = read_norm(self._chains, norm_calls)
                check_layer(self._chains, calls, layer)
                folded = fold_into(layer, norm.affine)
                last = norm_calls
        except Unusable as reason:
            self._note(norm_calls[0].module if norm_calls else original, "left", str(reason))
            return
        unit = None
        if calls and (norm is None or norm.activation is None):
            found = self._chains.next(last, lambda module: module in self._blocks)
            unit = None if found is None else self._blocks[found[0].module]
        if norm is None and unit is None:
            return
        whole = folded if unit is None else self._with_se(folded, unit, calls, named=original)
        if whole is not layer:
            self._layers[original] = whole
            self._put(layer, whole)
        if norm is not None and norm_calls is not None:
            self._replace(
                norm_calls[0].module, norm.activation or nn.Identity(), "folded", f"into {self._names[original]}"
            )

    def _with_se(self, layer: Any, unit: SEUnit, calls: list[Call], named: nn.Module) -> nn.Module:
        """Return a layer with the SE after it, as far as that is exact; other SE is replaced in its place."""
        name = self._names[named]
        try:
            self._chains.check(unit.module)
            scale = self._constant(unit)
            if scale is not None and unit.axis == 1 and scale.numel() == out_channels(layer):
                check_layer(self._chains, calls, layer)
                self._replace(unit.module, nn.Identity(), "constant", f"into {name}")
                return layer if bool((scale == 1).all()) else fold_into(layer, Affine(scale, torch.zeros_like(scale)))  # type: ignore[no-any-return]
            reason = self._why_not_moved(layer, unit)
            if reason:
                self._not_moved[unit.module] = reason
                return layer  # type: ignore[no-any-return]
            check_layer(self._chains, calls, layer)
            bias = layer.weight.new_zeros(out_channels(layer)) if layer.bias is None else layer.bias
            forms = self._forms
            whole = forms.weights == "both" and scales_weights(forms, layer, calls, layer.in_channels)
            forms = replace(forms, squeeze="mean") if whole else forms
            gates = self._read(unit).gates_before(dense_rows(layer), bias.detach().double(), forms)
        except Unusable as reason:
            self._note(unit.module, "left", str(reason))
            return layer  # type: ignore[no-any-return]
        self._replace(unit.module, nn.Identity(), "moved", f"before {name}")
        if whole:
            return ScaledConv(layer, gates, "output")
        return PointwiseSE(layer, gates, resized=forms.product == "resized")

    def _why_not_moved(self, layer: Any, unit: SEUnit) -> str:
        """Return why the squeeze does not move before a layer; "" if it does."""
        if not self._forms.pointwise:
            return "not wanted"
        if unit.squeeze != "avg":
            return f"the squeeze {unit.squeeze!r} does not commute with a convolution"
        if getattr(unit.module, "window", None) is not None:
            return "it squeezes over windows"
        if unit.axis != 1 or unit.reduce is None:
            return "it has no first layer" if unit.reduce is None else "its map has the channels last"
        reason = is_pointwise(layer)
        if not reason and layer.in_channels > layer.out_channels:
            return "the input of the convolution before it has more channels"
        return reason

    def _excitation(self, unit: SEUnit, detail: str) -> None:
        """Replace SE by a plain module in its place."""
        calls = self._chains.calls(unit.module)
        try:
            if unit.form != "block":
                raise Unusable("it is computed inline" if unit.form == "inline" else "its module returns the gates")
            if not calls:
                raise Unusable("it did not run on the example")
            taken = calls[0].taken
            if taken is None or any(len(call.args) != 1 or call.kwargs for call in calls):
                raise Unusable("it takes more than a map")
            self._chains.check(unit.module)
            scale = self._constant(unit)
            if scale is not None:
                shape = (1, -1, *[1] * (len(taken.shape) - 2)) if unit.axis == 1 else (-1,)
                like: Any = next(unit.module.parameters())
                constant = ChannelScale(scale.view(shape).to(like.device, like.dtype))
                # Without a module, the network would change in place what SE takes.
                ones = bool((scale == 1).all()) and not self._chains.overwritten(calls, taken=True)
                self._replace(unit.module, nn.Identity() if ones else constant, "constant", "" if ones else "a factor")
                return
            if self._into_weights(unit):
                return
            forms = forms_at(self._forms, self._chains.run, taken)
            gates = self._read(unit).gates(forms)
        except Unusable as reason:
            self._note(unit.module, "left", str(reason))
            return
        resized = forms.product == "resized" and gates.one_per_channel
        self._replace(unit.module, InferenceSE(gates, resized=resized), "replaced", detail)

    def _into_weights(self, unit: SEUnit) -> bool:
        """Let gates scale the weights of the 1x1 convolution after SE, if that is less; return whether it was done."""
        found = self._chains.next(self._chains.calls(unit.module), is_layer)
        if found is None or self._chains.overwritten(self._chains.calls(unit.module), taken=True):
            return False
        layer: Any = self._layers.get(found[0].module, found[0].module)
        if is_pointwise(layer) or not scales_weights(self._forms, layer, found, layer.out_channels):
            return False
        # The map stays in the layout of the matrix product.
        gates = self._read(unit).gates(replace(self._forms, squeeze="mean"))
        try:
            check_layer(self._chains, found, layer)
        except Unusable:
            return False
        if not gates.one_per_channel:
            return False
        self._put(layer, ScaledConv(layer, gates, "input"))
        self._replace(unit.module, nn.Identity(), "weights", f"of {self._names[found[0].module]}")
        return True

    def _read(self, unit: SEUnit) -> PlainExcitation:
        """Return what an SE module computes, after a comparison with the module."""
        taken = self._chains.calls(unit.module)[0].taken
        assert taken is not None
        shapes = small_shapes(taken.shape, unit.axis)
        for found in read_excitations(unit, len(taken.shape) - 2):
            try:
                # In float64: a folded norm is rounded to the dtype of the network.
                same = same_function(unit.module, InferenceSE(found.gates(self._forms, torch.float64)), shapes)
            except Exception as error:  # whatever its own code raises where it takes other maps
                raise Unusable(f"it does not run by itself: {first_line(error)}") from error
            if same:
                return found
        raise Unusable(f"{type(unit.module).__name__} computes more than SE")

    def _constant(self, unit: SEUnit) -> Tensor | None:
        """Return the gates (C,) of an SE module if they do not depend on its input."""
        parts = {part: copy.deepcopy(getattr(unit, part)) for part in ("reduce", "activation", "expand", "gate")}
        exact_unit = replace(unit, **{part: module and module.double() for part, module in parts.items()})
        gates = gates_by_weights(exact_unit)
        taken = self._chains.calls(unit.module)[0].taken
        if gates is None or taken is None:
            return None
        shape = (1, -1, *[1] * (len(taken.shape) - 2)) if unit.axis == 1 else (-1,)
        like: Any = next(unit.module.parameters())
        exact = ChannelScale(gates.view(shape))
        try:
            same = same_function(unit.module, exact, small_shapes(taken.shape, unit.axis))
        except Exception:  # whatever its own code raises where it does not run by itself
            return None
        return gates.to(like.device) if same else None

    def _why_not_folded(self, norm: nn.Module) -> str:
        calls = self._chains.calls(norm)
        if not calls:
            return "it did not run on the example"
        return "no convolution or linear layer is before it whose output it alone reads"

    def _note(self, module: nn.Module, action: Action, detail: str) -> None:
        name = self._names.get(module, "")
        self._done[module] = Row(name, type(module).__name__, action, detail)

    def _put(self, old: nn.Module, new: nn.Module) -> None:
        self.model = replace_module(self.model, old, new.eval())

    def _replace(self, old: nn.Module, new: nn.Module, action: Action, detail: str = "") -> None:
        self._put(old, new)
        self._note(old, action, detail)
