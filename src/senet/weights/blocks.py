"""SE in weights: its placement, and the options of its blocks."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from senet.insertion.sites import PLACEMENTS, Site, find_sites
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.initialization import IDENTITY_STARTS
from senet.nn.inserted_se import InsertedSE, find_inserted_se
from senet.nn.recalibration import Recalibrate
from senet.utils.arguments import in_python_or
from senet.utils.choices import Attention
from senet.utils.errors import ModelFileError
from senet.weights.checkpoint import Checkpoint

__all__ = ["check_blocks", "fit_hidden", "gate_options", "gates", "starts_as_identity"]

_FC1, _FC2 = ".se.fc1.weight", ".se.fc2.weight"


def gates(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the prefix of each SE block's tensor names, such as "layer1.0.bn3.se."."""
    return [name.removesuffix("fc2.weight") for name in tensors if name.endswith(_FC2)]


def gate_options(
    checkpoint: Checkpoint, plain: nn.Module, asked: Mapping[str, Any], missing: str | None = None
) -> dict[str, Any]:
    """Return the options of `senet.insert` that match the SE in weights.

    Args:
        checkpoint: the weights.
        plain: the network without SE.
        asked: options given by the caller.
        missing: "gates" accepts weights without SE, which is then initialized as identity unless `asked` has an `init`.

    Returns:
        `asked`, and the options that the weights imply.

    Raises:
        ModelFileError: the weights contradict `asked`, or have SE at sites of no placement.
    """
    there = gates(checkpoint.tensors)
    if not there:
        return {"init": "identity", **asked} if missing == "gates" else dict(asked)
    tensors = checkpoint.tensors
    implied: dict[str, Any] = {"bias": f"{there[0]}fc2.bias" in tensors}
    kind = _attention(tensors, there[0])
    implied |= {"attention": kind} if "attention" in asked or kind != "se" else {}
    implied |= {"init": "identity"} if any(f"{gate}gain" in tensors for gate in there) else {}
    implied |= {key: value for key, value in _common(checkpoint).items() if key in ("squeeze", "gate")}
    placement, names, every = _placement(checkpoint, plain, there)
    implied["placement"] = placement
    for option, value in asked.items():
        if option in implied and implied[option] != value and (option != "init" or value == "paper"):
            raise ModelFileError(
                f"{checkpoint.source} ({checkpoint.form.name}) has SE with {option}={implied[option]!r}, not "
                f"{option}={value!r}; leave {option} out"
            )
    if not every and not asked.keys() & {"at", "stages"}:
        implied["at"] = names
    return {**implied, **asked}


def _attention(tensors: Mapping[str, Tensor], gate: str) -> Attention:
    """Return the kind of attention that has these layers."""
    if f"{gate}fc1.weight" in tensors:
        return "se"
    return "eca" if tensors[f"{gate}fc2.weight"].ndim == 3 else "ese"


def fit_hidden(model: nn.Module, checkpoint: Checkpoint) -> dict[str, int]:
    """Resize each SE block's hidden layer to the width in the weights; libraries round C / r differently.

    Returns:
        The hidden units of each resized block, by the module that holds it.
    """
    changed = {}
    for name, holder in model.named_modules():
        if not isinstance(holder, SEBatchNorm | Recalibrate):
            continue
        weight = checkpoint.tensors.get(f"{name}{_FC1}")
        old = holder.se
        if weight is None or weight.ndim < 2 or len(weight) == old.hidden_channels:
            continue
        new = SqueezeExcitation(**(old.options | {"hidden_channels": len(weight)}))
        holder.se = new.to(old.fc1.weight).train(old.training)
        changed[name] = len(weight)
    return changed


def check_blocks(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Check that the SE blocks of weights compute the same function as the network's.

    Raises:
        ModelFileError: a block differs; the message names both options.
    """
    by_name = {_prefix(one.name, one.child): one for one in find_inserted_se(model)}
    described = _described(checkpoint)
    for gate in gates(checkpoint.tensors):
        if gate not in by_name:
            continue
        options = by_name[gate].se.options
        for option, value in {**checkpoint.form.blocks, **described.get(gate, {})}.items():
            if options[option] != value:
                raise ModelFileError(
                    f"{checkpoint.source} ({checkpoint.form.name}) has SE with {option}={value!r} at "
                    f"{gate.removesuffix('.se.')}, and this network has {option}={options[option]!r}: the same "
                    f"tensors, but another function; insert it with {option}={value!r}"
                )


def starts_as_identity(insertion: InsertedSE) -> bool:
    """Return whether every gate of a block is exactly 1, as after `senet.insert(..., init="identity")`."""
    se = insertion.se
    if se.gate_name not in IDENTITY_STARTS or bool(se.fc2.weight.any()):
        return False
    gain, last_bias = IDENTITY_STARTS[se.gate_name]
    bias = se.fc2.bias
    biased = last_bias == 0 if bias is None else bool((bias == last_bias).all())
    return biased and bool(se.options["gain"] == gain)


def _placement(checkpoint: Checkpoint, plain: nn.Module, there: list[str]) -> tuple[str, list[str], bool]:
    """Return the placement of SE in weights, its sites, and whether these are all sites of the placement."""
    astray = there
    for placement in PLACEMENTS:
        sites: dict[str, str] = {}
        with suppress(ValueError):  # a network may lack a placement
            sites = {_site_prefix(site): site.name for site in find_sites(plain, placement)}
        if set(there) <= sites.keys():
            return placement, [name for prefix, name in sites.items() if prefix in there], len(there) == len(sites)
        astray = min(astray, [gate for gate in there if gate not in sites], key=len)
    raise ModelFileError(
        f"{checkpoint.source} ({checkpoint.form.name}) has SE at {len(astray)} places that no placement of this "
        f"network includes, such as {astray[0].removesuffix('.se.')}; check that these weights are for this network, "
        f"or insert SE there{in_python_or('', ' in Python')} with senet.insert(at=...), then senet.load_weights"
    )


def _site_prefix(site: Site) -> str:
    return _prefix(site.name, site.placement if site.how in ("input", "output") else "")


def _prefix(name: str, child: str) -> str:
    return f"{name}.{child}.se." if child else f"{name}.se."


def _described(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Return the functional options of each SE block in a model file."""
    entries = [] if checkpoint.contents.description is None else checkpoint.contents.description["se"]
    functional = ("squeeze", "gate", "activation")
    return {
        _prefix(entry["name"], entry["child"]): {key: entry["options"][key] for key in functional} for entry in entries
    }


def _common(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options that all blocks share."""
    described = list(_described(checkpoint).values())
    if not described:
        return dict(checkpoint.form.blocks)
    return {key: value for key, value in described[0].items() if all(one[key] == value for one in described)}
