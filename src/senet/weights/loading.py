"""Load weights into a network: all required tensors, or none."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn

from senet.nn.inserted_se import find_inserted_se
from senet.utils.arguments import argument, in_python_or
from senet.utils.choices import Missing, check_choice
from senet.utils.errors import ModelFileError, shown
from senet.weights.architecture import inner, of_model
from senet.weights.blocks import check_blocks, fit_hidden, gates, starts_as_identity
from senet.weights.checkpoint import OPTIONS, Checkpoint, check_architecture, open_checkpoint
from senet.weights.matching import Match, choose_names, classifier_prefix, match_tensors
from senet.weights.mismatches import describe_origin, mismatch_message, suggest_remedy
from senet.weights.network_comparison import NotComparableError, compare_modules, compare_outputs
from senet.weights.report import WeightsReport, report

__all__ = ["check_fit", "load_checkpoint", "load_weights"]

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
        missing: "gates" loads plain weights into a network whose SE is initialized as identity.
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

    Examples:
        >>> torch.save({"state_dict": senet.create_model("resnet20").state_dict()}, "resnet20.th")
        >>> model = senet.insert(senet.create_model("resnet20"))
        >>> report = senet.load_weights(model, "resnet20.th", missing="gates")
        >>> len(report.loaded), report.missing[0]
        (116, 'layer1.0.bn2.se.gain')
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
        any_init: whether missing gates may have an initialization other than identity.

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
    tensors, names = choose_names(model, checkpoint)
    if not head:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(classifier_prefix(model))}
    match = match_tensors(model.state_dict(), tensors)
    allowed = set()
    if not head:
        allowed |= {name for name in match.missing if name.startswith(classifier_prefix(model))}
    if missing == "gates":
        allowed |= _absent_gates(model, checkpoint, match.missing, any_init)
    wrong = [name for name in match.missing if name not in allowed]
    # A gain of 2 with weights that have none changes the function, although all tensors match.
    gain = next((name for name in wrong if name.endswith(".se.gain")), None)
    if gain is not None and gates(tensors):
        remedy = in_python_or(
            "build the network with init='paper', or omit init in create_model(..., weights=)",
            "leave out --set network.init, or set network.init=paper",
        )
        raise ModelFileError(
            f"{checkpoint.source} has no {gain}: its gates have no gain, and the network's gates have one, since they "
            f"start as identity; {remedy}"
        )
    if match.shapes or (strict and (wrong or match.unexpected)) or not match.loaded:
        raise ModelFileError(
            f"{mismatch_message(checkpoint.source, wrong, match)}{suggest_remedy(model, checkpoint, wrong, match)}"
            f"{describe_origin(checkpoint)}"
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
    bias = {"bias": f"{gates(tensors)[0]}fc2.bias" in tensors} if gates(tensors) else {}
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


def check_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Check that weights match a network's tensors exactly; load nothing.

    Args:
        weights: tensors by senet's names.
        own: the network's tensors by name.
        source: name of the weights for the message.

    Raises:
        ModelFileError: tensors are missing, unexpected, or have another shape; the message counts and names them.
    """
    match = match_tensors(own, weights, exactly=True)
    if match.missing or match.unexpected or match.shapes:
        raise ModelFileError(mismatch_message(source, match.missing, match))


def _compare(
    model: nn.Module, checkpoint: Checkpoint, names: Mapping[str, str], match: Match, head: bool
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
    left = [
        name for name in (*match.missing, *match.unexpected) if head or not name.startswith(classifier_prefix(model))
    ]
    if any(tensor.is_meta for tensor in there.parameters()):
        # Built from the file's description, without values.
        names_of = ", ".join(map(shown, checkpoint.contents.uncompared))
        return {"options": f"not compared: {names_of}"} if names_of else {}
    if any(".se." not in name for name in left) or set(left) & set(match.unexpected):
        return {"forward": "not compared: not all tensors were loaded"}
    if left and not all(starts_as_identity(block) for block in find_inserted_se(model)):
        return {"forward": "not compared: SE does not start as identity"}
    classifiers = None if head else (classifier_prefix(there).rstrip("."), classifier_prefix(model).rstrip("."))
    try:
        compare_outputs(there, model, match.loaded, classifiers)
    except NotComparableError as error:
        return {"forward": f"not compared: {error}"}
    except ValueError as error:
        raise ModelFileError(f"{checkpoint.source} {error}: the same tensors, but another function; {_KEEP}") from error
    return {}


def _absent_gates(model: nn.Module, checkpoint: Checkpoint, missing: list[str], any_init: bool) -> set[str]:
    """Return SE's tensor names, which may be missing in plain weights if the blocks start as identity."""
    if gates(checkpoint.tensors):
        return set()
    blocks = find_inserted_se(model)
    busy = next((block.name for block in blocks if not starts_as_identity(block)), None)
    if busy is not None and not any_init:
        remedy = in_python_or(
            "insert it with init='identity', or use create_model(..., weights=, missing='gates')",
            "give --set network.init=identity",
        )
        raise ValueError(
            f"{argument('missing', 'gates')} requires SE that starts as identity, and SE at {busy} does not; {remedy}"
        )
    prefixes = tuple(f"{block.name}.{block.child}.se." if block.child else f"{block.name}.se." for block in blocks)
    return {name for name in missing if name.startswith(prefixes)}


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
