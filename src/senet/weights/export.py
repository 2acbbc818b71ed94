"""Export a network's weights under the names of timm or torchvision, for loading with `strict=True`."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.nn.batch_norm import SEBatchNorm
from senet.nn.inserted_se import InsertedSE, find_inserted_se
from senet.utils.arguments import in_python_or
from senet.utils.choices import Library, check_choice
from senet.utils.errors import ModelFileError
from senet.utils.files import atomic_path, write_safetensors
from senet.weights.architecture import of_model
from senet.weights.formats import FORMATS
from senet.weights.loading import check_fit
from senet.weights.patterns import Names, rename, reverse

__all__ = ["Exported", "export_weights", "write_weights"]

_PLAIN = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
# Names of plain networks in these libraries, and in timm of the networks with SE.
_NETWORKS: dict[str, dict[str, str]] = {
    "torchvision": {name: name for name in _PLAIN},
    "timm": {name: name for name in (*_PLAIN, "resnext101_32x4d")},
}
_WITH_SE = {name: f"se{name}" for name in _NETWORKS["timm"]} | {"senet154_plain": "senet154"}
# timm's legacy networks have the authors' architecture, but with basic units a ReLU before SE.
_LEGACY = {name: f"legacy_{se}" for name, se in _WITH_SE.items() if name not in ("resnet18", "resnet34")}


@dataclass(frozen=True)
class Exported:
    """Weights under another library's names.

    Attributes:
        library: "timm" or "torchvision".
        network: the library's name of the network.
        options: further arguments of `timm.create_model` or `torchvision.models.get_model`.
        tensors: the state dict.
    """

    library: str
    network: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def call(self) -> str:
        """The expression that builds the network in the library."""
        function = "timm.create_model" if self.library == "timm" else "torchvision.models.get_model"
        return f"{function}({', '.join([repr(self.network), *(f'{k}={v}' for k, v in self.options.items())])})"


def export_weights(model: nn.Module, library: Library) -> Exported:
    """Convert a network's weights to another library's names and shapes.

    A gain of SE's gates is folded: the batch norm's weight and bias are multiplied by it, and SE's first weight is
    divided by it, since its input grows by the gain. If the library has more hidden units, they are filled with zeros,
    as are missing biases. With a gain of 2, all of this is exact.

    Args:
        model: a named network of senet.
        library: "timm" or "torchvision".

    Returns:
        The weights, on the CPU, and the library's call that builds their network.

    Raises:
        ModelFileError: the library has no such network, or not with these options.
        ValueError: an unknown library.
    """
    check_choice("weights format", library, Library)
    blocks = find_inserted_se(model)
    if library == "timm" and not blocks and (built := _network_of_timm(model)) is not None:
        return built
    network = _network(model, library, bool(blocks))
    options = _options(model, library)
    with torch.device("meta"):
        there = _build(library, network, options)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for block in blocks:
        _check_block(model, block, network)
        _fold_gain(state, block)
    names = _names(network, "conv1.0.weight" in state)
    own = there.state_dict()
    tensors = {}
    for name, tensor in state.items():
        theirs = _rename(name, names)
        tensors[theirs] = _fill(tensor, own[theirs].shape) if ".se." in name and theirs in own else tensor.clone()
    for name, like in own.items():
        if ".se" in name and name.endswith(".bias") and name not in tensors:
            tensors[name] = torch.zeros(like.shape, dtype=like.dtype)
    try:
        check_fit(tensors, there.state_dict(), "the state dict")
    except ModelFileError as error:
        raise ModelFileError(f"{library}'s {network} has another architecture: {error}") from error
    return Exported(library, network, options, tensors)


def _network_of_timm(model: Any) -> Exported | None:
    """Return a network built by timm without conversion; None for any other network."""
    architecture = getattr(model, "architecture", None)
    library, _, name = architecture["name"].partition("/") if isinstance(architecture, Mapping) else ("", "", "")
    if library != "timm" or not isinstance(architecture, Mapping):
        return None
    options = {"num_classes": model.num_classes, **architecture["options"]}
    with torch.device("meta"):
        there = _build("timm", name, options)
    tensors = {key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}
    check_fit(tensors, there.state_dict(), "the state dict")
    return Exported("timm", name, options, tensors)


def _network(model: nn.Module, library: str, with_se: bool) -> str:
    """Return the library's name of a network, given its name and architecture."""
    architecture = getattr(model, "architecture", None)
    name = architecture["name"] if isinstance(architecture, Mapping) else None
    if name is None:
        raise ModelFileError(
            f"a {type(model).__name__} is not one of senet's named networks; build it with senet.create_model"
        )
    known = _NETWORKS[library]
    if with_se:
        known = _WITH_SE if library == "timm" else {}
    if name not in known:
        se = " with SE" if with_se else ""
        raise ModelFileError(f"{library} has no {name}{se}; it has {', '.join(known) or 'no residual network' + se}")
    facts = of_model(model)
    found: dict[str, str] = {option: facts[option] for option in ("stride_in", "pool") if option in facts}
    modern: dict[str, str] = {"stride_in": "conv2", "pool": "pad"}
    if found.items() <= modern.items():
        return known[name]
    grouped = getattr(getattr(model, "spec", None), "groups", 1) > 1
    if with_se and name in _LEGACY and found == {"stride_in": "conv2" if grouped else "conv1", "pool": "ceil"}:
        return _LEGACY[name]
    wanted = {option: modern[option] for option in found}
    raise ModelFileError(
        f"{library} has no {name} with {_listed(found)}, only with {_listed(wanted)}: the same tensors, but another "
        f"function"
    )


def _listed(options: Mapping[str, str]) -> str:
    return ", ".join(f"{option}={value!r}" for option, value in options.items())


def _options(model: Any, library: str) -> dict[str, Any]:
    options: dict[str, Any] = {"num_classes": model.num_classes}
    if model.in_channels != 3:
        if library == "torchvision":
            raise ModelFileError(f"torchvision's networks have 3 input channels, and this one has {model.in_channels}")
        options["in_chans"] = model.in_channels
    return options


def _build(library: str, network: str, options: dict[str, Any]) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(network, **options)  # type: ignore[no-any-return]
    from torchvision.models import get_model

    return get_model(network, weights=None, **options)  # type: ignore[no-any-return]


def _check_block(model: nn.Module, block: InsertedSE, network: str) -> None:
    unit, _, child = block.name.rpartition(".")
    last = "bn3" if isinstance(getattr(model.get_submodule(unit), "conv3", None), nn.Module) else "bn2"
    if block.how != "batch_norm" or child != last:
        raise ModelFileError(f"{network} has SE at the end of the branch, and this network has it at {block.name}")
    options = {"attention": "se"} | block.se.options
    for option, value in {"attention": "se", "squeeze": "avg", "gate": "sigmoid", "activation": "relu"}.items():
        if options[option] != value:
            raise ModelFileError(
                f"{network} has SE with {option}={value!r}, and SE at {block.name} has {options[option]!r}"
            )
    if block.se.window is not None:
        raise ModelFileError(
            f"{network} squeezes whole maps, and SE at {block.name} has the window {block.se.window}; remove windows "
            f"with senet.set_window(model){in_python_or('', ', in Python')}"
        )
    if not isinstance(module := model.get_submodule(block.name), SEBatchNorm) or not module.affine:
        raise ModelFileError(f"the batch norm {block.name} has no weight and bias, which {network} requires")


def _fold_gain(state: dict[str, Tensor], block: InsertedSE) -> None:
    """Fold a gain into the batch norm, and divide W1 by it, since the squeeze grows by the gain."""
    gain = state.pop(f"{block.name}.se.gain", None)
    if gain is None:
        return
    for name in ("weight", "bias"):
        state[f"{block.name}.{name}"] = state[f"{block.name}.{name}"] * gain
    state[f"{block.name}.se.fc1.weight"] = state[f"{block.name}.se.fc1.weight"] / gain


def _fill(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Reshape to a 1x1 convolution, and pad missing hidden units with zeros; never cut units."""
    tensor = tensor.reshape(*tensor.shape, *[1] * (len(shape) - tensor.ndim))
    if tensor.shape == shape or any(here > there for here, there in zip(tensor.shape, shape, strict=True)):
        return tensor.clone()
    filled = tensor.new_zeros(shape)
    filled[tuple(slice(n) for n in tensor.shape)] = tensor
    return filled


def _names(network: str, deep: bool) -> Names:
    if network.startswith("legacy_"):
        rows = [form for form in FORMATS if form.name == "cadene"]
        return reverse(next(form for form in rows if ("layer0.conv3" in form.signatures[0].split()) == deep).names)
    return reverse(next(form for form in FORMATS if form.name == "timm").names)


def _rename(name: str, names: Names) -> str:
    module, _, leaf = name.rpartition(".")
    unit, found, rest = module.partition(".se.")
    if found:  # "layer1.0.bn3.se.fc1" as in the table
        module = f"{unit.rpartition('.')[0]}.@.se.{rest}"
    return f"{rename(module, names) or module}.{leaf}"


def write_weights(tensors: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Write a state dict to a file atomically.

    Args:
        tensors: tensors by name.
        path: path of the file: safetensors if it ends in `.safetensors`, otherwise the format of `torch.save`.

    Raises:
        OSError: the file cannot be written.
    """
    if Path(path).suffix == ".safetensors":
        write_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
        return
    with atomic_path(path) as temporary:
        torch.save(dict(tensors), temporary)
