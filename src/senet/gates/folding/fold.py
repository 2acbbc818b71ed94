"""Fold gates that are constant into the layers around them: the SE block is gone, and the function is the same.

A gate that does not vary over images is a factor of each channel, and a factor of each channel is a change of a batch
norm's weight and bias, or of a convolution's weights. `senet.graph.channel_scales` says where it can go. The change is
made in float64, and the result is compared with the network whose gates are replaced before it is returned.
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
from senet.graph.example_inputs import Example, call, in_float64, random_image
from senet.graph.se_modules import SEUnit, find_se
from senet.graph.se_trace import trace_se
from senet.insertion.insert import remove
from senet.utils.errors import GatesError, unknown_name

__all__ = ["can_fold", "check_gates", "fixed_gates", "fold_gates", "mean_gates", "take_out"]

# The largest relative error that rounding in float64 can make of a network; nothing further off is given out.
_TOLERANCE = 1e-10


def fold_gates(
    model: nn.Module,
    gates: Gates | Mapping[str, Tensor],
    *,
    blocks: Collection[str] | None = None,
    example: Example | None = None,
) -> nn.Module:
    """Replace the gates of SE blocks by their mean, exactly: fold it into the layers around, and take the blocks out.

    A factor goes into the batch norm, convolution or linear layer before it, and where that cannot be, into all layers
    that read the map. In training the folded network is the one with constant gates as well: where a factor goes into
    a batch norm behind it, its running statistics become those of the map without the factor, but for channels whose
    variance is below the batch norm's eps or whose gate is not above 0, where it goes into weight and bias.

    Args:
        model: a network with SE, by `senet.insert` or of timm or torchvision; left as it is.
        gates: of `senet.record_gates`; or for each block, by the name of its SE module, its gates (C,).
        blocks: names of SE modules; all of those in `gates` unless given.
        example: an input of the network: a tensor (N, C, *spatial), or a tuple or dict of inputs; a random one of its
            size unless given, see `pretrained_cfg`.

    Returns:
        A copy, with the modes, devices, dtypes and `requires_grad` of the original, without these blocks: of
        networks with SE of their own, `torch.nn.Identity` stands in their places. Its function in float64 is that of
        the network with those gates, to 1e-12 (relative).

    Raises:
        GatesError: a block cannot be folded exactly, with the reason; an unknown block; or gates that are not of this
            network, or not finite.
        RuntimeError: the folded network turned out to compute something else: an error of senet's.
    """
    values = check_gates(model, gates, blocks)
    names = list(values)
    if not names:
        return copy.deepcopy(model)
    trace = trace_se(model, example)
    changes = []
    for name in names:
        found = changes_of(trace, name, values[name], names)
        if isinstance(found, str):
            raise GatesError(f"the gates of {name!r} cannot be folded: {found}")
        changes += found
    exact = _in_float64(model)
    for change in changes:
        _carry_out(exact, change)
    folded = copy.deepcopy(model)
    _copy_over(exact, folded, changes)
    x = random_image(model) if example is None else in_float64(example)
    _check(take_out(exact, names), _in_float64(model), values, x)
    return take_out(folded, names)


def can_fold(
    model: nn.Module, gates: Gates | Mapping[str, Tensor] | None = None, *, example: Example | None = None
) -> dict[str, str]:
    """Whether the gates of each SE block could be folded while the others stay.

    Args:
        model: a network with SE.
        gates: as for `fold_gates`; gates that are not negative unless given, which go through more operations.
        example: as for `fold_gates`.

    Returns:
        By the name of each SE module: "", or the reason why it cannot be folded.

    Raises:
        GatesError: the network has no SE, or does not run on the example.
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
    """The mean gates of each block, (C,) in float64, by the names of SE modules."""
    if isinstance(gates, Gates):
        return {block.name: torch.from_numpy(np.asarray(block.gates.mean, np.float64)) for block in gates.blocks}
    return {name: torch.as_tensor(value).detach().to("cpu", torch.float64) for name, value in gates.items()}


def check_gates(
    model: nn.Module, gates: Gates | Mapping[str, Tensor], blocks: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The mean gates of a network's blocks, or of some, once it is sure that they are this network's.

    Raises:
        GatesError: an unknown block; or gates of another network, or not finite.
    """
    known = mean_gates(gates)
    units = {unit.name: unit for unit in find_se(model)}
    if not units:
        raise GatesError(f"{type(model).__name__} has no SE: there are no gates to fold in it; give a network with SE")
    names = list(dict.fromkeys(known if blocks is None else [blocks] if isinstance(blocks, str) else blocks))
    for name in names:
        if name not in units:
            raise GatesError(unknown_name("SE module", name, units))
        if name not in known:
            raise GatesError(f"no gates of {name!r} were given; record them with senet.record_gates")
        value, channels = known[name], units[name].channels
        if value.shape != (channels,) or not value.isfinite().all():
            raise GatesError(
                f"the gates of {name!r} must be {channels} finite numbers, one for each channel, got shape "
                f"{tuple(value.shape)}, {int(value.isfinite().sum())} of them finite; record those of this very network"
            )
    return {name: known[name] for name in names}


@torch.no_grad()
def fixed_gates(model: nn.Module, values: Mapping[str, Tensor]) -> list[str]:
    """The names of the SE modules whose gates are those values whatever goes in, by their weights.

    Nothing that goes in reaches the gates where the last layer's weights are zero, as at an identity start; or where
    the last layer reads hidden units alone whose own weights are zero.

    Args:
        model: the network.
        values: (C,) each, by the names of SE modules.
    """
    found = []
    for unit in find_se(model):
        if unit.name not in values:
            continue
        gates = _gates_by_weights(unit)
        if gates is not None and torch.allclose(gates, values[unit.name], rtol=1e-6, atol=1e-6):
            found.append(unit.name)
    return found


def _gates_by_weights(unit: SEUnit) -> Tensor | None:
    """(C,) in float64, the gates of an SE module that do not depend on what goes in; None where they may."""
    expand: Any = unit.expand
    reads = expand.weight.flatten(1).any(0)  # which inputs the last layer reads
    if unit.reduce is None or not reads.any():
        hidden = expand.weight.new_zeros(1, *expand.weight.shape[1:2], *[1] * (expand.weight.ndim - 2))
        return None if reads.any() else _gates_of(unit, hidden)
    reduce: Any = unit.reduce
    depends = reduce.weight.flatten(1).any(1)
    if (depends & reads).any() or unit.activation is None or unit.norm is not None:
        return None
    squeezed = reduce.weight.new_zeros(1, *reduce.weight.shape[1:2], *[1] * (reduce.weight.ndim - 2))
    return _gates_of(unit, unit.activation(reduce(squeezed)))


def _gates_of(unit: SEUnit, hidden: Tensor) -> Tensor:
    """(C,), the gates that hidden units make."""
    gates: Tensor = unit.gate(unit.expand(hidden))
    return gates.flatten().double().cpu() * unit.gain


def take_out(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Take SE modules out of a network, in place, whatever they did.

    Args:
        model: the network.
        names: of SE modules; those of `senet.insert` leave the plain network, others a `torch.nn.Identity`.

    Returns:
        The same model.
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


def _in_float64(model: nn.Module) -> nn.Module:
    """Return a copy of a network in float64 on the CPU, in evaluation mode."""
    return copy.deepcopy(model).cpu().double().eval()


@torch.no_grad()
def _carry_out(exact: nn.Module, change: Change) -> None:
    """Change a network, which is in float64."""
    holder, tensor = _held(exact, change.tensor)
    if change.kind == "multiply":
        tensor.mul_(change.factor)
        if change.bias is not None:
            _held(exact, change.bias)[1].mul_(change.factor.flatten())
        return
    scale, norm = change.factor, holder
    if change.kind == "rows":
        _give_weights(norm)
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
        _give_weights(norm)
        rest = torch.where(by_statistics, torch.ones_like(scale), scale)
        norm.bias.add_(mean * (rest - 1) * (var + change.eps).rsqrt() * norm.weight)
        norm.weight.mul_(rest)
    mean.copy_(torch.where(by_statistics, mean / scale, mean))
    var.copy_(torch.where(by_statistics, narrower, var))


def _held(model: nn.Module, name: str) -> tuple[Any, Tensor]:
    """A parameter or buffer by its name, and the module that holds it."""
    parent, _, child = name.rpartition(".")
    holder: Any = model.get_submodule(parent)
    return holder, getattr(holder, child)


def _give_weights(norm: Any) -> None:
    """Give a batch norm the weight 1 and the bias 0 where it has none."""
    if norm.weight is None:
        like = norm.running_mean
        norm.weight, norm.bias = nn.Parameter(torch.ones_like(like)), nn.Parameter(torch.zeros_like(like))
        norm.affine = True


@torch.no_grad()
def _copy_over(exact: nn.Module, folded: nn.Module, changes: Iterable[Change]) -> None:
    """Bring what changed to the network that is given out: in place, in its dtype, on its device."""
    for change in changes:
        source, target = _held(exact, change.tensor)[0], _held(folded, change.tensor)[0]
        if change.kind != "multiply" and source.weight is not None:
            _give_weights(target)
        changed = [change.tensor] if change.bias is None else [change.tensor, change.bias]
        prefix = change.tensor.rpartition(".")[0]
        if change.kind != "multiply":
            changed += [f"{prefix}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        for name in changed:
            tensor = _held(folded, name)[1]
            if tensor is not None:
                tensor.copy_(_held(exact, name)[1])


@torch.no_grad()
def _check(folded: nn.Module, original: nn.Module, values: Mapping[str, Tensor], example: Example) -> None:
    """Compare a folded network on an example, in float64, with the original whose gates are replaced.

    Raises:
        GatesError: the network does not give finite numbers.
        RuntimeError: they differ.
    """
    with override_gates(original, values):
        outputs = tree_leaves(call(original, example))
    for actual, expected in zip(tree_leaves(call(folded, example)), outputs, strict=True):
        if not isinstance(expected, Tensor):
            continue
        if not expected.isfinite().all():
            raise GatesError("the network's output is not finite on a random image: nothing was folded")
        error = float((actual - expected).abs().max()) / max(float(expected.abs().max()), 1e-300)
        if not error <= _TOLERANCE:
            raise RuntimeError(
                f"internal error: the folded network is off by {error:.3g} (relative) from the one with constant "
                f"gates; nothing was folded, please report the network"
            )
