"""Fold constant gates into the adjacent layers: the SE block is removed, and the function is unchanged.

A constant gate scales each channel, which is equivalent to a change of a batch norm's weight and bias or of a
convolution's weight. `senet.graph.channel_scales` finds the layers that can take the scale. The change is computed in
float64, and the result is verified against the network with overridden gates.
"""

import copy
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from senet.gates.diagnosis.gate_overrides import override_gates
from senet.gates.recording.record import Gates
from senet.graph.channel_scales import Change, changes_of
from senet.graph.example_inputs import Example, call, example_image, in_float64, random_image
from senet.graph.se_modules import find_se
from senet.graph.se_trace import trace_se
from senet.insertion.insert import remove
from senet.tasks import trunk_of
from senet.utils.errors import GatesError, shown, unknown_name

__all__ = ["can_fold", "check_gates", "fold_gates", "mean_gates", "take_out"]

# The largest relative error of a folded network in float64. Rounding stays below it.
_TOLERANCE = 1e-10


def fold_gates(
    model: nn.Module,
    gates: Gates | Mapping[str, Tensor],
    *,
    blocks: Collection[str] | None = None,
    example: Example | None = None,
) -> nn.Module:
    """Replace the gates of SE blocks by their means: fold the means into adjacent layers and remove the blocks.

    The scale goes into the preceding batch norm, convolution or linear layer, or else into all layers that read the
    map. The folded network also equals the network with constant gates in training mode: if a following batch norm
    takes the scale, its running statistics are divided by it. Channels whose variance is below eps or whose gate is not
    positive are excepted; there the scale goes into weight and bias.

    In a detector, `example` is an input of its backbone.

    Args:
        model: a network with SE from `senet.insert`, timm or torchvision. It is not modified.
        gates: a recording of `senet.record_gates`; or the gates (C,) of each block by the name of its SE module.
        blocks: names of SE modules; by default all in `gates`.
        example: an input of the network: a tensor (N, C, *spatial), or a tuple or dict of inputs; by default a random
            input of the size in `pretrained_cfg`.

    Returns:
        A copy without these blocks, with the modes, devices, dtypes and `requires_grad` of the original. SE modules of
        other libraries are replaced by `torch.nn.Identity`. In float64 the output equals that of the network with
        constant gates within 1e-12 (relative).

    Raises:
        GatesError: a block cannot be folded exactly, with the reason; an unknown block; or gates that are not of this
            network, or not finite.
        TypeError: `gates` is neither a recording nor a dict.
        RuntimeError: the folded network computes another function, which is a bug of senet.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> gates = senet.record_gates(model, "photos")
        >>> folded = senet.fold_gates(model.eval(), gates, blocks=["layer1.0.bn2.se"])
        >>> sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in model.parameters())
        True
    """
    values = check_gates(model, gates, blocks)
    names = list(values)
    if not names:
        return copy.deepcopy(model)
    prefix, part = trunk_of(model)
    if not prefix:
        return _folded(model, values, example)
    folded = copy.deepcopy(model)
    example = example_image(model, 2) if example is None else example  # of the size that the whole network declares
    own = {name.removeprefix(prefix): value for name, value in values.items()}
    folded.set_submodule(prefix.removesuffix("."), _folded(part, own, example))
    return folded


def _folded(model: nn.Module, values: Mapping[str, Tensor], example: Example | None) -> nn.Module:
    """Return a copy of a network without the blocks whose gates are given, see `fold_gates`."""
    names = list(values)
    trace = trace_se(model, example)
    changes = []
    for name in names:
        found = changes_of(trace, name, values[name], names)
        if isinstance(found, str):
            raise GatesError(f"the gates of {name!r} cannot be folded: {found}")
        changes += found
    exact = _in_float64(model)
    for change in changes:
        _apply_change(exact, change)
    folded = copy.deepcopy(model)
    _copy_changes(exact, folded, changes)
    x = random_image(model) if example is None else _with_values(example)
    _verify(take_out(exact, names), _in_float64(model), values, x)
    return take_out(folded, names)


def can_fold(
    model: nn.Module, gates: Gates | Mapping[str, Tensor] | None = None, *, example: Example | None = None
) -> dict[str, str]:
    """Return whether each SE block can be folded by itself.

    Args:
        model: a network with SE.
        gates: as for `fold_gates`; by default positive gates, which commute with more operations.
        example: as for `fold_gates`.

    Returns:
        By the name of each SE module: "", or the reason why it cannot be folded.

    Raises:
        GatesError: the network has no SE, or does not run on the example.

    Examples:
        >>> from senet.gates import can_fold
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> can_fold(model)["layer1.0.bn2.se"]  # no reason why not
        ''
    """
    known = {} if gates is None else mean_gates(gates)
    trace = trace_se(model, example)
    found = {}
    for name, unit in trace.units.items():
        values = known.get(name, torch.full((unit.channels,), 0.5, dtype=torch.float64))
        changes = changes_of(trace, name, values, [name])
        found[name] = changes if isinstance(changes, str) else ""
    return found


def mean_gates(gates: Gates | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean gates of each block, (C,) in float64, by the names of SE modules."""
    if isinstance(gates, Gates):
        return {block.name: torch.from_numpy(np.asarray(block.gates.mean, np.float64)) for block in gates.blocks}
    if not isinstance(gates, Mapping):
        raise TypeError(
            f"gates must be a recording of senet.record_gates, or a dict of the gates (C,) by SE module, got "
            f"{shown(gates)}"
        )
    return {name: torch.as_tensor(value).detach().to("cpu", torch.float64) for name, value in gates.items()}


def check_gates(
    model: nn.Module, gates: Gates | Mapping[str, Tensor], blocks: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the mean gates of a network's blocks after checking that they fit the network.

    Raises:
        GatesError: an unknown block; or gates of another network, or not finite.
    """
    known = mean_gates(gates)
    units = {unit.name: unit for unit in find_se(model)}
    if not units:
        raise GatesError(f"{type(model).__name__} has no SE, so there are no gates to fold; give a network with SE")
    names = list(dict.fromkeys(known if blocks is None else [blocks] if isinstance(blocks, str) else blocks))
    for name in names:
        if name not in units:
            raise GatesError(unknown_name("SE module", name, units))
        if name not in known:
            raise GatesError(f"the gates of {name!r} are missing; record them with senet.record_gates")
        value, channels = known[name], units[name].channels
        if value.shape != (channels,) or not value.isfinite().all():
            raise GatesError(
                f"expected {channels} finite gates for {name!r}, one for each channel, got shape "
                f"{tuple(value.shape)}, {int(value.isfinite().sum())} of them finite; record the gates of this network"
            )
    return {name: known[name] for name in names}


def take_out(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Remove SE modules from a network in place, which changes its function.

    Args:
        model: the network.
        names: names of SE modules. Modules of `senet.insert` are removed, others are replaced by `torch.nn.Identity`.

    Returns:
        The model.
    """
    wanted = set(names)
    units = [unit for unit in find_se(model) if unit.name in wanted]
    ours = [unit.name for unit in units if unit.site is not None]
    if ours:
        remove(model, at=ours)
    for unit in units:
        if unit.site is None:
            for parent in list(model.modules()):
                for child, module in parent._modules.items():
                    if module is unit.module:
                        parent._modules[child] = nn.Identity().train(module.training)
    return model


def _with_values(example: Example) -> Example:
    """Return an example in float64; one on the meta device with random values."""
    if isinstance(example, Tensor) and example.is_meta:
        return torch.randn(example.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return in_float64(example)


def _in_float64(model: nn.Module) -> nn.Module:
    """Return a copy of a network in float64 on the CPU, in evaluation mode."""
    return copy.deepcopy(model).cpu().double().eval()


@torch.no_grad()
def _apply_change(exact: nn.Module, change: Change) -> None:
    """Apply a change to a network in float64."""
    holder, tensor = _lookup(exact, change.tensor)
    if change.kind == "multiply":
        tensor.mul_(change.factor)
        if change.bias is not None:
            _lookup(exact, change.bias)[1].mul_(change.factor.flatten())
        return
    scale, norm = change.factor, holder
    if change.kind == "rows":
        _add_affine(norm)
        norm.weight.mul_(scale)
        if norm.bias is not None:
            norm.bias.mul_(scale)
        return
    # y = (s x - mean) / sqrt(var + eps) * weight + bias is (x - mean / s) / sqrt((var + eps) / s^2) * weight + bias;
    # elsewhere it is (x - mean) / sqrt(var + eps) * s weight + bias + mean (s - 1) / sqrt(var + eps) * weight.
    mean, var = norm.running_mean, norm.running_var
    narrower = (var + change.eps) / scale.square() - change.eps
    by_statistics = (scale > 0) & (var >= change.eps) & (narrower >= 0)
    if not by_statistics.all():
        _add_affine(norm)
        rest = torch.where(by_statistics, torch.ones_like(scale), scale)
        norm.bias.add_(mean * (rest - 1) * (var + change.eps).rsqrt() * norm.weight)
        norm.weight.mul_(rest)
    mean.copy_(torch.where(by_statistics, mean / scale, mean))
    var.copy_(torch.where(by_statistics, narrower, var))


def _lookup(model: nn.Module, name: str) -> tuple[Any, Tensor]:
    """Return the module that holds a parameter or buffer, and the tensor."""
    parent, _, child = name.rpartition(".")
    holder: Any = model.get_submodule(parent)
    return holder, getattr(holder, child)


def _add_affine(norm: Any) -> None:
    """Add the weight 1 and the bias 0 to a batch norm without them."""
    if norm.weight is None:
        like = norm.running_mean
        norm.weight, norm.bias = nn.Parameter(torch.ones_like(like)), nn.Parameter(torch.zeros_like(like))
        norm.affine = True


@torch.no_grad()
def _copy_changes(exact: nn.Module, folded: nn.Module, changes: Iterable[Change]) -> None:
    """Copy the changed tensors to the returned network, in its dtypes and on its devices."""
    for change in changes:
        source, target = _lookup(exact, change.tensor)[0], _lookup(folded, change.tensor)[0]
        if change.kind != "multiply" and source.weight is not None:
            _add_affine(target)
        changed = [change.tensor] if change.bias is None else [change.tensor, change.bias]
        prefix = change.tensor.rpartition(".")[0]
        if change.kind != "multiply":
            changed += [f"{prefix}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        for name in changed:
            tensor = _lookup(folded, name)[1]
            if tensor is not None:
                tensor.copy_(_lookup(exact, name)[1])


@torch.no_grad()
def _verify(folded: nn.Module, original: nn.Module, values: Mapping[str, Tensor], example: Example) -> None:
    """Compare a folded network in float64 with the original with overridden gates, on an example.

    Raises:
        GatesError: the output of the network is not finite.
        RuntimeError: the outputs differ.
    """
    with override_gates(original, values):
        outputs = tree_leaves(call(original, example))
    for actual, expected in zip(tree_leaves(call(folded, example)), outputs, strict=True):
        if not isinstance(expected, Tensor):
            continue
        if not expected.isfinite().all():
            raise GatesError("the network's output is not finite on the example input; nothing was folded")
        error = float((actual - expected).abs().max()) / max(float(expected.abs().max()), 1e-300)
        if not error <= _TOLERANCE:
            raise RuntimeError(
                f"internal error: the folded network differs by {error:.3g} (relative) from the network with constant "
                f"gates; nothing was folded, please report this"
            )
