"""Load weights into a network: all required tensors, or none."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import Tensor, nn

from senet.nn.insertions import insertions
from senet.utils.choices import Missing, check_choice
from senet.utils.errors import ModelFileError, shown
from senet.weights.architecture import inner, of_model, unusual_heads
from senet.weights.blocks import check_blocks, fit_hidden, gates, starts_as_identity
from senet.weights.checkpoint import OPTIONS, Checkpoint, check_architecture, open_checkpoint
from senet.weights.formats import HEADS
from senet.weights.functions import NotComparableError, compare_modules, compare_outputs
from senet.weights.report import WeightsReport, report

__all__ = ["check_fit", "load_checkpoint", "load_weights"]

_COUNTER = "num_batches_tracked"  # absent in old checkpoints
_KEEP = "build the network with the same options, or load the state_dict() with model.load_state_dict"


def load_weights(
    model: nn.Module,
    source: str | PathLike[str] | nn.Module,
    *,
    strict: bool = True,
    missing: Missing | None = None,
    head: bool = True,
    entry: str | None = None,
) -> WeightsReport:
    """Load weights of senet or of another library into a network. On failure the network is unchanged.

    The format is identified by tensor names: senet; timm and torchvision; Cadene's pretrainedmodels (timm's legacy
    networks); NVIDIA's DeepLearningExamples; pytorchcv; mmpretrain; MONAI; the authors' Caffe release; scripts that add
    SE to torchvision's units, and scripts for CIFAR. The state dict may be under any key of the file. Prefixes of
    wrappers (DataParallel, torch.compile, Lightning, a script's own module) are removed, unless the network has such
    names itself. Files never run code.

    Args:
        model: the network, on any device and with any floating point dtype; or a wrapper of it.
        source: a file (`.pth`, `.pt`, `.th`, `.safetensors`, a model file, `.caffemodel`), "timm:NAME",
            "torchvision:NAME" or "hf-hub:OWNER/NAME"; or a network, whose function is compared with `model`.
        strict: require every tensor of the network and of the source to be loaded, except those that `missing` and
            `head` allow. False loads tensors with matching names, which must have matching shapes.
        missing: "gates" loads plain weights into a network whose SE is initialised as identity.
        head: False keeps the network's classifier, for another number of classes.
        entry: selects one of several state dicts in a file: its dotted key, such as "model" or "ema"; or the first
            part of its tensor names, such as "encoder". By default averaged weights (`ema`, `model_ema`,
            `state_dict_ema`, ...) are preferred; the report lists the others.

    Returns:
        Report on loaded, converted, missing and unexpected tensors.

    Raises:
        ImportError: the source requires a package that is not installed.
        ModelFileError: the source cannot be read, or its weights do not match the network by names, by shapes, or by
            the architecture that their format implies, such as the convolution with the stride.
        ValueError: an unknown `missing`; SE that does not start as identity; a network on the meta device.
    """
    model = inner(model)
    checkpoint = open_checkpoint(source, entry=entry, names=lambda: model.state_dict().keys())
    return load_checkpoint(model, checkpoint, strict=strict, missing=missing, head=head)


def load_checkpoint(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    strict: bool = True,
    missing: Missing | None = None,
    head: bool = True,
    hidden: bool = False,
    any_init: bool = False,
) -> WeightsReport:
    """Load an open checkpoint into a network, see `load_weights`.

    Args:
        model: the network.
        checkpoint: the weights.
        strict, missing, head: as in `load_weights`.
        hidden: whether to resize SE's hidden layers to those of the weights.
        any_init: whether missing gates may have an initialisation other than identity.

    Raises:
        ModelFileError: as in `load_weights`.
        ValueError: as in `load_weights`.
    """
    if missing is not None:
        check_choice("missing", missing, Missing)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the network is on the meta device, which has no memory for weights; build it elsewhere")
    check_architecture(checkpoint, checkpoint.certain, of_model(model))
    changed = fit_hidden(model, checkpoint) if hidden else {}
    check_blocks(model, checkpoint)
    tensors, names = _choose(model, checkpoint)
    if not head:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_classifier(model))}
    match = _match(model, tensors)
    allowed = set()
    if not head:
        allowed |= {name for name in match.missing if name.startswith(_classifier(model))}
    if missing == "gates":
        allowed |= _absent_gates(model, checkpoint, match.missing, any_init)
    wrong = [name for name in match.missing if name not in allowed]
    # A gain of 2 with weights that have none changes the function, although all tensors match.
    gain = next((name for name in wrong if name.endswith(".se.gain")), None)
    if gain is not None and gates(tensors):
        raise ModelFileError(
            f"{checkpoint.source} has no {gain}: its gates have no gain, and the network's gates have one, since they "
            f"start as identity; build the network with init='paper', or omit init in create_model(..., weights=)"
        )
    if match.shapes or (strict and (wrong or match.unexpected)) or not match.loaded:
        raise ModelFileError(
            f"{_mismatch(checkpoint.source, wrong, match)}{_remedy(model, checkpoint, wrong, match, missing)}"
            f"{_origin(model, checkpoint)}"
        )
    assumed = _compare(model, checkpoint, names, match, head)
    _copy(model, match.loaded)
    _describe(model, checkpoint)
    theirs = checkpoint.contents.tensors
    converted = [
        name
        for name, tensor in match.loaded.items()
        if checkpoint.contents.kind == "caffe" or names[name] != name or theirs[names[name]].shape != tensor.shape
    ]
    units = {"hidden_channels": tuple(dict.fromkeys(changed.values()))} if changed else {}
    bias = {"bias": f"{gates(tensors)[0]}fc1.bias" in tensors} if gates(tensors) else {}
    return report(
        model,
        source=checkpoint.source,
        form=checkpoint.form.name,
        loaded=match.loaded,
        converted=converted,
        missing=match.missing,
        unexpected=match.unexpected,
        implied={**_implied(model, checkpoint), **bias, **units},
        assumed=assumed,
        entry=checkpoint.contents.entry,
        others=checkpoint.contents.others,
    )


def check_fit(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Check that weights match a model's tensors exactly; load nothing.

    Args:
        weights: tensors by senet's names.
        model: the network.
        source: name of the weights for the message.

    Raises:
        ModelFileError: tensors are missing, unexpected, or have another shape; the message counts and names them.
    """
    match = _match(model, weights, exactly=True)
    if match.missing or match.unexpected or match.shapes:
        raise ModelFileError(_mismatch(source, match.missing, match))


@dataclass(frozen=True)
class _Match:
    """Tensors that match a network, in its shapes, and the names of those that do not match."""

    loaded: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]


def _match(model: nn.Module, weights: Mapping[str, Tensor], exactly: bool = False) -> _Match:
    own = model.state_dict()
    loaded, shapes = {}, []
    for name, tensor in weights.items():
        if name not in own:
            continue
        fitting = tensor if exactly else _in_shape_of(own[name], tensor)
        if fitting.shape != own[name].shape:
            shapes.append(f"{name} {tuple(tensor.shape)}, here {tuple(own[name].shape)}")
        elif not exactly and fitting.is_floating_point() != own[name].is_floating_point():
            shapes.append(f"{name} {fitting.dtype}, here {own[name].dtype}")
        else:
            loaded[name] = fitting
    missing = [name for name in own if name not in weights and not name.endswith(_COUNTER)]
    unexpected = [name for name in weights if name not in own and not _counts(name, own)]
    return _Match(loaded, missing, unexpected, shapes)


def _counts(name: str, own: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor is the counter of a batch norm that has none here, such as a frozen one."""
    return name.endswith(f".{_COUNTER}") and f"{name.removesuffix(_COUNTER)}running_mean" in own


def _in_shape_of(own: Tensor, tensor: Tensor) -> Tensor:
    """Reshape between a linear layer and a 1x1 convolution, which differ only in trailing axes of length 1."""
    short, long = sorted((own.shape, tensor.shape), key=len)
    if len(short) == 2 and len(long) > 2 and tuple(long[:2]) == tuple(short) and set(long[2:]) == {1}:
        return tensor.reshape(own.shape)
    return tensor


def _choose(model: nn.Module, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Choose between senet's tensor names and the original ones, and return the original name of each tensor."""
    own = model.state_dict().keys()
    theirs = checkpoint.contents.tensors
    if len(own & theirs.keys()) > len(own & checkpoint.tensors.keys()):
        tensors, names = theirs, dict(zip(theirs, theirs, strict=True))
    else:
        tensors, names = checkpoint.tensors, checkpoint.names
    there, here = _heads(model, tensors)
    if not there:
        return tensors, names
    moved = {name: f"{here}{name.removeprefix(there)}" if name.startswith(there) else name for name in tensors}
    return {moved[name]: tensors[name] for name in tensors}, {moved[name]: origin for name, origin in names.items()}


def _compare(
    model: nn.Module, checkpoint: Checkpoint, names: Mapping[str, str], match: "_Match", head: bool
) -> dict[str, Any]:
    """Compare with the source network, if there is one; otherwise return the properties that have to be assumed.

    Raises:
        ModelFileError: it computes another function with the same weights.
    """
    there = checkpoint.contents.network
    if there is None:
        return checkpoint.unknown(of_model(model))
    modules = {names[name].rpartition(".")[0]: name.rpartition(".")[0] for name in match.loaded}
    different = compare_modules(there, model, modules)
    if different is not None:
        raise ModelFileError(
            f"{checkpoint.source} is for a network with {different}: the same tensors, but another function; {_KEEP}"
        )
    left = [name for name in (*match.missing, *match.unexpected) if head or not name.startswith(_classifier(model))]
    if any(tensor.is_meta for tensor in there.parameters()):
        # Built from the file's description, without values.
        names_of = ", ".join(map(shown, checkpoint.contents.uncompared))
        return {"options": f"not compared: {names_of}"} if names_of else {}
    if any(".se." not in name for name in left) or set(left) & set(match.unexpected):
        return {"forward": "not compared: not all tensors were loaded"}
    if left and not all(starts_as_identity(block) for block in insertions(model)):
        return {"forward": "not compared: SE does not start as identity"}
    classifiers = None if head else (_classifier(there).rstrip("."), _classifier(model).rstrip("."))
    try:
        compare_outputs(there, model, match.loaded, classifiers)
    except NotComparableError as error:
        return {"forward": f"not compared: {error}"}
    except ValueError as error:
        raise ModelFileError(f"{checkpoint.source} {error}: the same tensors, but another function; {_KEEP}") from error
    return {}


def _heads(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the classifier's prefixes in the source and in the network if they differ, otherwise empty ones."""
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        return "", ""
    here, own = _classifier(model), model.state_dict().keys()
    if f"{here}weight" in tensors or f"{here}weight" not in own:
        return "", ""
    usual = [f"{name}." for name in HEADS if f"{name}.weight" in tensors and f"{name}.weight" not in own]
    found = usual or [f"{name}." for name in unusual_heads(tensors) if f"{name}.weight" not in own]
    return (found[0], here) if len(found) == 1 else ("", "")


def _classifier(model: nn.Module) -> str:
    name = getattr(model, "pretrained_cfg", None) or {}
    name = name.get("classifier") if hasattr(name, "get") else None
    if isinstance(name, str):
        return f"{name}."
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".se." not in name]
    if not linear:
        raise ValueError("head=False keeps the classifier, and this network has no linear layer that could be one")
    return f"{linear[-1]}."


def _absent_gates(model: nn.Module, checkpoint: Checkpoint, missing: list[str], any_init: bool) -> set[str]:
    """Return SE's tensor names, which may be missing in plain weights if the blocks start as identity."""
    if gates(checkpoint.tensors):
        return set()
    blocks = insertions(model)
    busy = next((block.name for block in blocks if not starts_as_identity(block)), None)
    if busy is not None and not any_init:
        raise ValueError(
            f"missing='gates' requires SE that starts as identity, and SE at {busy} does not; insert it with "
            f"init='identity', or use create_model(..., weights=, missing='gates')"
        )
    prefixes = tuple(f"{block.name}.{block.child}.se." if block.child else f"{block.name}.se." for block in blocks)
    return {name for name in missing if name.startswith(prefixes)}


def _mismatch(source: str, missing: list[str], match: _Match) -> str:
    mismatches = {"missing": missing, "unexpected": match.unexpected, "of another shape": match.shapes}
    found = [
        f"{len(keys)} {what} ({'; '.join(keys[:3])}{'; ...' if len(keys) > 3 else ''})"
        for what, keys in mismatches.items()
        if keys
    ]
    return f"{source} does not fit the network: {', '.join(found) or 'no tensor name matches'}"


def _remedy(model: nn.Module, checkpoint: Checkpoint, missing: list[str], match: _Match, allowed: str | None) -> str:
    """Return a remedy if a single cause explains all mismatches."""
    of_se = [all(".se." in name for name in names) for names in (missing, match.unexpected)]
    head = _classifier(model) if any(isinstance(module, nn.Linear) for module in model.modules()) else "fc."
    in_head = all(name.startswith(head) for name in (*missing, *match.unexpected, *match.shapes))
    if in_head and (match.shapes or missing or match.unexpected):
        return "; head=False keeps the network's classifier, num_classes= builds another"
    if missing and of_se[0] and not match.shapes and not match.unexpected and not gates(checkpoint.tensors):
        return "; these are plain weights: missing='gates' loads them into a network whose SE starts as identity"
    if match.unexpected and of_se[1] and not missing and not match.shapes:
        built = getattr(model, "architecture", None) or {"name": "resnet50"}
        return f"; these weights have SE: use the network se_{built['name']}"
    if match.shapes and all(".se." in shape for shape in match.shapes) and not missing:
        return "; SE has another number of hidden units: create_model(..., weights=) reads it from the weights"
    return f"; the format is {checkpoint.form.name}: check that these weights are for this network"


def _origin(model: nn.Module, checkpoint: Checkpoint) -> str:
    """Describe which tensors of the file were read, and under which names."""
    contents, text = checkpoint.contents, ""
    if contents.prefix:
        text += f"; the prefix {contents.prefix!r} of all names was removed"
    if contents.part:
        entry = contents.part.rstrip(".")
        text += f"; the prefix {contents.part!r} of some names was removed: entry={entry!r} selects only those"
    count = Counter(name.partition(".")[0] for name in contents.tensors if "." in name)
    first, most = count.most_common(1)[0] if count else ("", 0)
    if len(contents.tensors) > most > len(contents.tensors) / 2:
        text += (
            f"; {most} of its {len(contents.tensors)} names begin with '{first}.': entry={first!r} selects only those"
        )
    elif count and most == len(contents.tensors):
        text += f"; all its names begin with '{first}.'"
    if contents.others:
        text += f"; the file also has {', '.join(contents.others)}: entry={contents.others[0]!r} selects it"
    return text


def _implied(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the implied architecture, without overruled guesses."""
    certain, here = checkpoint.certain, of_model(model)
    return {
        option: value
        for option, value in checkpoint.implied.items()
        if option in OPTIONS and (here.get(option, value) == value or (option in certain and here[option] != "another"))
    }


def _copy(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    # Not by copying tensors: modules react to loading, such as blocks that keep their gain as a number too.
    model.load_state_dict(dict(tensors), strict=False)


def _describe(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Store the image preprocessing of the weights in the network's `pretrained_cfg`."""
    described: Any = model
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or not checkpoint.preprocessing:
        return
    new: dict[str, Any] = {key: value for key, value in checkpoint.preprocessing.items() if key in cfg}
    if len(new.get("label_names") or ()) != cfg.get("num_classes"):
        new.pop("label_names", None)
    if len(cfg.get("mean") or ()) != len(new.get("mean", ())):
        new = {}  # images with other channels
    described.pretrained_cfg = cfg | new
