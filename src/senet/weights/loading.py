"""Put weights into a network: all that are to be there, or none."""

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
from senet.weights.checkpoint import OPTIONS, Checkpoint, open_checkpoint, refuse_another
from senet.weights.formats import HEADS
from senet.weights.functions import NotComparableError, compare_modules, compare_outputs
from senet.weights.report import WeightsReport, report

__all__ = ["fit", "load_checkpoint", "load_weights"]

_COUNTER = "num_batches_tracked"  # old checkpoints have none
_KEEP = "build the network with the options of the other, or load its state_dict() with model.load_state_dict"


def load_weights(
    model: nn.Module,
    source: str | PathLike[str] | nn.Module,
    *,
    strict: bool = True,
    missing: Missing | None = None,
    head: bool = True,
    entry: str | None = None,
) -> WeightsReport:
    """Load weights of senet or of another library into a network; where that fails, the network is as it was.

    The format follows from the names of the tensors: senet; timm and torchvision; Cadene's pretrainedmodels (timm's
    legacy networks); NVIDIA's DeepLearningExamples; pytorchcv; mmpretrain; MONAI; the authors' Caffe release; scripts
    that put SE into torchvision's units, and those for CIFAR. The state dict may be under any key of the file. What
    wrappers (DataParallel, torch.compile, Lightning, a script's own module) put before all names is removed where the
    network has no such names itself. A file never runs code.

    Args:
        model: the network, on any device and in any floating point type; or a wrapper of it.
        source: a file (`.pth`, `.pt`, `.th`, `.safetensors`, a model file, `.caffemodel`), "timm:NAME",
            "torchvision:NAME" or "hf-hub:OWNER/NAME"; or a network, which is compared with `model` as a function.
        strict: every tensor of the network and of the source is to be loaded, but for what `missing` and `head` allow.
            False takes those of the same name; none of them may have another shape.
        missing: "gates": plain weights into a network whose SE starts as identity, and so computes what they do.
        head: False leaves the classifier as it is: for another number of classes.
        entry: which state dict of a file with several: its key, such as "model" or "ema", with dots where it is under
            several; or what the names of its tensors begin with, such as "encoder". Averaged weights (`ema`,
            `model_ema`, `state_dict_ema`, ...) are taken before others unless given; the report names the others.

    Returns:
        What was loaded, converted, missing and unexpected.

    Raises:
        ImportError: the source takes a package that is not installed.
        ModelFileError: the source cannot be read, or its weights are not the network's: by names, by shapes, or by what
            their format says of the architecture, such as the convolution with the stride.
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
    """The same with weights that are read already.

    Args:
        model: the network.
        checkpoint: the weights.
        strict, missing, head: as in `load_weights`.
        hidden: whether SE takes its number of hidden units from the weights.
        any_init: whether gates that are missing may start as something else than identity.

    Raises:
        ModelFileError: as in `load_weights`.
        ValueError: as in `load_weights`.
    """
    if missing is not None:
        check_choice("missing", missing, Missing)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the network is on the meta device, where there is no memory for weights; build it elsewhere")
    refuse_another(checkpoint, checkpoint.certain, of_model(model))
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
    # Left at 2, a gain makes another function of weights that have none, though all of them fit.
    gain = next((name for name in wrong if name.endswith(".se.gain")), None)
    if gain is not None and gates(tensors):
        raise ModelFileError(
            f"{checkpoint.source} has no {gain}: its gates are not multiplied by one, and those here are, which start "
            f"as identity; build the network with init='paper', or leave init out with create_model(..., weights=)"
        )
    if match.shapes or (strict and (wrong or match.unexpected)) or not match.loaded:
        raise ModelFileError(
            f"{_complaint(checkpoint.source, wrong, match)}{_remedy(model, checkpoint, wrong, match, missing)}"
            f"{_where(model, checkpoint)}"
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
        implied={**_said(model, checkpoint), **bias, **units},
        assumed=assumed,
        entry=checkpoint.contents.entry,
        others=checkpoint.contents.others,
    )


def fit(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Check that weights are a model's, tensor for tensor; nothing is loaded.

    Args:
        weights: by senet's names.
        model: the network.
        source: what to call the weights in the message.

    Raises:
        ModelFileError: tensors are missing, left over, or of another shape; the message counts and names them.
    """
    match = _match(model, weights, exactly=True)
    if match.missing or match.unexpected or match.shapes:
        raise ModelFileError(_complaint(source, match.missing, match))


@dataclass(frozen=True)
class _Match:
    """The tensors that go into a network, in its shapes; and the names of those that do not."""

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
    """Whether a tensor is the counter of a batch norm that has none here, as frozen ones."""
    return name.endswith(f".{_COUNTER}") and f"{name.removesuffix(_COUNTER)}running_mean" in own


def _in_shape_of(own: Tensor, tensor: Tensor) -> Tensor:
    """A linear layer is a 1x1 convolution: the same numbers, with or without axes of length 1 behind."""
    short, long = sorted((own.shape, tensor.shape), key=len)
    if len(short) == 2 and len(long) > 2 and tuple(long[:2]) == tuple(short) and set(long[2:]) == {1}:
        return tensor.reshape(own.shape)
    return tensor


def _choose(model: nn.Module, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    """By senet's names, or by their own where the network is of their library; with the name of each there."""
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
    """Compare the network that the weights are of, where there is one; otherwise give what has to be assumed of it.

    Raises:
        ModelFileError: it computes something else with the same weights.
    """
    there = checkpoint.contents.network
    if there is None:
        return checkpoint.unknown(of_model(model))
    modules = {names[name].rpartition(".")[0]: name.rpartition(".")[0] for name in match.loaded}
    different = compare_modules(there, model, modules)
    if different is not None:
        raise ModelFileError(
            f"{checkpoint.source} is of a network with {different}: another function of tensors with the same names; "
            f"{_KEEP}"
        )
    left = [name for name in (*match.missing, *match.unexpected) if head or not name.startswith(_classifier(model))]
    if any(tensor.is_meta for tensor in there.parameters()):
        # Built after the file's own description, without values.
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
        raise ModelFileError(
            f"{checkpoint.source} {error}: another function of tensors with the same names; {_KEEP}"
        ) from error
    return {}


def _heads(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """What the names of the classifier begin with there and here, where it has two names; otherwise nothing."""
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
        raise ValueError("head=False leaves the classifier as it is, and this network has no linear layer to be one")
    return f"{linear[-1]}."


def _absent_gates(model: nn.Module, checkpoint: Checkpoint, missing: list[str], any_init: bool) -> set[str]:
    """Names of SE that may be missing, where the weights have none: those of blocks that start as identity, or all."""
    if gates(checkpoint.tensors):
        return set()
    blocks = insertions(model)
    busy = next((block.name for block in blocks if not starts_as_identity(block)), None)
    if busy is not None and not any_init:
        raise ValueError(
            f"missing='gates' leaves SE as it is, and SE at {busy} does not start as identity, so that the network "
            f"would not compute what its weights are for; insert it with init='identity', or use "
            f"create_model(..., weights=, missing='gates')"
        )
    prefixes = tuple(f"{block.name}.{block.child}.se." if block.child else f"{block.name}.se." for block in blocks)
    return {name for name in missing if name.startswith(prefixes)}


def _complaint(source: str, missing: list[str], match: _Match) -> str:
    complaints = {"missing": missing, "unexpected": match.unexpected, "of another shape": match.shapes}
    found = [
        f"{len(keys)} {what} ({'; '.join(keys[:3])}{'; ...' if len(keys) > 3 else ''})"
        for what, keys in complaints.items()
        if keys
    ]
    return f"{source} does not fit the network: {', '.join(found) or 'no tensor has the name of one here'}"


def _remedy(model: nn.Module, checkpoint: Checkpoint, missing: list[str], match: _Match, allowed: str | None) -> str:
    """What to do, where one thing explains all that does not fit."""
    of_se = [all(".se." in name for name in names) for names in (missing, match.unexpected)]
    head = _classifier(model) if any(isinstance(module, nn.Linear) for module in model.modules()) else "fc."
    in_head = all(name.startswith(head) for name in (*missing, *match.unexpected, *match.shapes))
    if in_head and (match.shapes or missing or match.unexpected):
        return "; head=False leaves the classifier as it is, num_classes= builds another"
    if missing and of_se[0] and not match.shapes and not match.unexpected and not gates(checkpoint.tensors):
        return "; these are plain weights: missing='gates' loads them, into SE that starts as identity"
    if match.unexpected and of_se[1] and not missing and not match.shapes:
        built = getattr(model, "architecture", None) or {"name": "resnet50"}
        return f"; these weights have SE: use the network with it, se_{built['name']}"
    if match.shapes and all(".se." in shape for shape in match.shapes) and not missing:
        return "; SE has another number of hidden units: create_model(..., weights=) takes it from the weights"
    return f"; the format is {checkpoint.form.name}: see that the network is the one that the weights are of"


def _where(model: nn.Module, checkpoint: Checkpoint) -> str:
    """What of the file was read, where that is not all of it under its own names."""
    contents, said = checkpoint.contents, ""
    if contents.prefix:
        said += f"; {contents.prefix!r}, with which all names began, was removed"
    if contents.part:
        entry = contents.part.rstrip(".")
        said += f"; {contents.part!r}, with which only some names began, was removed: entry={entry!r} takes those alone"
    count = Counter(name.partition(".")[0] for name in contents.tensors if "." in name)
    first, most = count.most_common(1)[0] if count else ("", 0)
    if len(contents.tensors) > most > len(contents.tensors) / 2:
        said += (
            f"; {most} of its {len(contents.tensors)} names begin with '{first}.': entry={first!r} takes those alone"
        )
    elif count and most == len(contents.tensors):
        said += f"; all its names begin with '{first}.'"
    if contents.others:
        said += f"; the file also has {', '.join(contents.others)}: entry={contents.others[0]!r} takes that"
    return said


def _said(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the weights say of the architecture, without guesses that were overruled."""
    certain, here = checkpoint.certain, of_model(model)
    return {
        option: value
        for option, value in checkpoint.implied.items()
        if option in OPTIONS and (here.get(option, value) == value or (option in certain and here[option] != "another"))
    }


def _copy(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    # Not by a copy into each tensor: modules know of a loading, such as a block that keeps its gain as a number too.
    model.load_state_dict(dict(tensors), strict=False)


def _describe(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Tell a network of the images that its weights are for."""
    described: Any = model
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or not checkpoint.preprocessing:
        return
    new: dict[str, Any] = {key: value for key, value in checkpoint.preprocessing.items() if key in cfg}
    if len(new.get("label_names") or ()) != cfg.get("num_classes"):
        new.pop("label_names", None)
    if len(cfg.get("mean") or ()) != len(new.get("mean", ())):
        new = {}  # images of other channels
    described.pretrained_cfg = cfg | new
