"""What weights say of SE in a network: where it stands, and the options of its blocks."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from senet.insertion.sites import PLACEMENTS, Site, find_sites
from senet.nn.batch_norm import SEBatchNorm
from senet.nn.block import SqueezeExcitation
from senet.nn.initialization import IDENTITY_STARTS
from senet.nn.insertions import Insertion, insertions
from senet.nn.recalibration import Recalibrate
from senet.utils.errors import ModelFileError
from senet.weights.checkpoint import Checkpoint

__all__ = ["check_blocks", "fit_hidden", "gate_options", "gates", "starts_as_identity"]

_FC1 = ".se.fc1.weight"


def gates(tensors: Mapping[str, Tensor]) -> list[str]:
    """What the names of each SE block begin with: "layer1.0.bn3.se."."""
    return [name.removesuffix("fc1.weight") for name in tensors if name.endswith(_FC1)]


def gate_options(
    checkpoint: Checkpoint, plain: nn.Module, asked: Mapping[str, Any], missing: str | None = None
) -> dict[str, Any]:
    """The options of `senet.insert` that give a network the SE that weights have.

    Args:
        checkpoint: the weights.
        plain: the network without SE.
        asked: options that the caller gave.
        missing: "gates": weights without SE are welcome, and SE starts as identity unless another `init` was asked for.

    Returns:
        `asked`, and those that the weights say and the caller left open.

    Raises:
        ModelFileError: the weights contradict what was asked for, or have SE where no placement has it.
    """
    there = gates(checkpoint.tensors)
    if not there:
        return {"init": "identity", **asked} if missing == "gates" else dict(asked)
    tensors = checkpoint.tensors
    said: dict[str, Any] = {"bias": f"{there[0]}fc1.bias" in tensors}
    said |= {"init": "identity"} if any(f"{gate}gain" in tensors for gate in there) else {}
    said |= {key: value for key, value in _common(checkpoint).items() if key in ("squeeze", "gate")}
    placement, names, every = _placement(checkpoint, plain, there)
    said["placement"] = placement
    for option, value in asked.items():
        if option in said and said[option] != value and (option != "init" or value == "paper"):
            raise ModelFileError(
                f"{checkpoint.source} ({checkpoint.form.name}) has SE with {option}={said[option]!r}, and "
                f"{option}={value!r} was asked for; leave {option} out"
            )
    if not every and not asked.keys() & {"at", "stages"}:
        said["at"] = names
    return {**said, **asked}


def fit_hidden(model: nn.Module, checkpoint: Checkpoint) -> dict[str, int]:
    """Give each SE block of a network as many hidden units as the weights have; libraries round C / r differently.

    Returns:
        The units of each block that was changed, by the module that holds it.
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
    """Refuse weights of SE blocks that compute something else than the network's.

    Raises:
        ModelFileError: they do; the message names both.
    """
    by_name = {_prefix(one.name, one.child): one for one in insertions(model)}
    told = _described(checkpoint)
    for gate in gates(checkpoint.tensors):
        if gate not in by_name:
            continue
        options = by_name[gate].se.options
        for option, value in {**checkpoint.form.blocks, **told.get(gate, {})}.items():
            if options[option] != value:
                raise ModelFileError(
                    f"{checkpoint.source} ({checkpoint.form.name}) has SE with {option}={value!r} at "
                    f"{gate.removesuffix('.se.')}, and this network has {option}={options[option]!r}, another function "
                    f"of the same tensors; insert it with {option}={value!r}"
                )


def starts_as_identity(insertion: Insertion) -> bool:
    """Whether every gate of a block is exactly 1, as `senet.insert(..., init="identity")` leaves it."""
    se = insertion.se
    if se.gate_name not in IDENTITY_STARTS or bool(se.fc2.weight.any()):
        return False
    gain, last_bias = IDENTITY_STARTS[se.gate_name]
    bias = se.fc2.bias
    biased = last_bias == 0 if bias is None else bool((bias == last_bias).all())
    return biased and bool(se.options["gain"] == gain)


def _placement(checkpoint: Checkpoint, plain: nn.Module, there: list[str]) -> tuple[str, list[str], bool]:
    """The placement of SE in weights, the sites that they have of it, and whether these are all."""
    astray = there
    for placement in PLACEMENTS:
        sites: dict[str, str] = {}
        with suppress(ValueError):  # networks have not all placements
            sites = {_site_prefix(site): site.name for site in find_sites(plain, placement)}
        if set(there) <= sites.keys():
            return placement, [name for prefix, name in sites.items() if prefix in there], len(there) == len(sites)
        astray = min(astray, [gate for gate in there if gate not in sites], key=len)
    raise ModelFileError(
        f"{checkpoint.source} ({checkpoint.form.name}) has SE at {len(astray)} places where no placement of this "
        f"network has it, such as {astray[0].removesuffix('.se.')}; see that the network is the one that the weights "
        f"are of, or insert SE there with senet.insert(at=...), then senet.load_weights"
    )


def _site_prefix(site: Site) -> str:
    return _prefix(site.name, site.placement if site.how in ("input", "output") else "")


def _prefix(name: str, child: str) -> str:
    return f"{name}.{child}.se." if child else f"{name}.se."


def _described(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """Of a model file, the function of each SE block."""
    entries = [] if checkpoint.contents.description is None else checkpoint.contents.description["se"]
    functional = ("squeeze", "gate", "activation")
    return {
        _prefix(entry["name"], entry["child"]): {key: entry["options"][key] for key in functional} for entry in entries
    }


def _common(checkpoint: Checkpoint) -> dict[str, Any]:
    """What all blocks have in common."""
    told = list(_described(checkpoint).values())
    if not told:
        return dict(checkpoint.form.blocks)
    return {key: value for key, value in told[0].items() if all(one[key] == value for one in told)}
