"""Checkpoints under senet's tensor names, and the architecture that they imply. Builds no network."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import Tensor, nn

from senet.utils.arguments import argument, in_python_or
from senet.utils.errors import ModelFileError
from senet.weights.architecture import evident, implied_options, of_module_list, unusual_heads
from senet.weights.declared_network import with_declared_network
from senet.weights.formats import AS_IS, HEADS, MMPRETRAIN, SENET, SHARED, Format, identify
from senet.weights.patterns import rename
from senet.weights.prefixes import name_candidates
from senet.weights.reading import Contents, read_file
from senet.weights.sources import SOURCES, of_network, open_source

__all__ = ["OPTIONS", "Checkpoint", "check_architecture", "open_checkpoint", "translate"]

# Options of `create_model` that weights may imply.
OPTIONS = ("stem", "pool", "stride_in", "shortcut", "projection")
# Properties, some of them options, that tensor names and shapes do not determine.
HIDDEN = ("preactivation", "antialias", "stride_in", "pool", "activation", "eps", "dilation", "strides", "global_pool")
# Properties of all networks that senet builds.
_OURS = {"activation": "ReLU", "eps": 1e-05, "dilation": 1, "antialias": "none", "global_pool": "avg"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights under senet's names.

    Attributes:
        contents: weights under their original names.
        form: format of the weights.
        tensors: tensors by senet's names.
        names: original names by senet's names.
    """

    contents: Contents
    form: Format
    tensors: dict[str, Tensor]
    names: dict[str, str]

    @property
    def source(self) -> str:
        """Name of the weights for messages."""
        return self.contents.source

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Preprocessing of images, as in `pretrained_cfg`."""
        return {**self.form.preprocessing, **self.contents.preprocessing}

    @property
    def implied(self) -> dict[str, Any]:
        """The architecture that the weights imply, including guesses."""
        return implied_options(self.tensors, self.form, self.facts)

    @property
    def certain(self) -> dict[str, Any]:
        """The architecture that the weights imply, without guesses. Contradictions are errors."""
        described = self.contents.description is not None
        if self.form.certain and (described or self.form is not SENET):
            return self.implied
        return {**evident(self.tensors), **self.facts}

    @property
    def num_classes(self) -> int | None:
        """Number of classifier outputs; None if unknown."""
        weights = (self.tensors.get(f"{name}.weight") for name in (*HEADS, *unusual_heads(self.tensors)))
        return next((len(weight) for weight in weights if weight is not None and weight.ndim >= 2), None)

    def architecture(self, spec: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that build the network of these weights.

        Args:
            spec: the network's specification by its name, such as a `ResNetSpec`.
            asked: options given by the caller.

        Returns:
            `asked`, and the implied options that differ from `spec`.

        Raises:
            ModelFileError: the weights contradict `asked`, or belong to another type of network.
        """
        if not hasattr(spec, "stride_in"):
            return dict(asked)
        certain = self.certain
        for option, value in asked.items():
            if option in certain and certain[option] != value:
                raise ModelFileError(
                    f"{self.source} ({self.form.name}) is for a network with {option}={certain[option]!r}, not "
                    f"{option}={value!r}; leave {option} out. {self.advice}"
                )
        nowhere = {option: getattr(spec, option) for option in OPTIONS if certain.get(option) == "another"}
        check_architecture(self, certain, {"preactivation": spec.preactivation, **_OURS, **nowhere})
        implied = {**self._guesses(), **certain}
        return {
            option: implied[option]
            for option in OPTIONS
            if implied.get(option, getattr(spec, option)) != getattr(spec, option)
            and (option != "stride_in" or spec.bottleneck)
        } | dict(asked)

    @property
    def advice(self) -> str:
        """Advice for weights of senet that have the tensor names of every library."""
        if self.form is not SHARED or self.contents.network is not None:
            return ""
        return (
            "Plain networks of senet have the same tensor names: save one with senet.save, which also stores its "
            "architecture, or load its state_dict with model.load_state_dict"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Known properties of the network, beyond names, shapes and the format's defaults."""
        described = self.contents.description
        options = {} if described is None else described["network"]["options"]
        said = of_module_list(self.contents.modules) if self.contents.network is None else {}
        ours = _OURS if self.is_ours and self.residual else {}
        described_options = {key: value for key, value in options.items() if key in OPTIONS}
        return {**said, **ours, **self.contents.facts, **described_options}

    @property
    def is_ours(self) -> bool:
        """Whether senet built the network: from a model file, or identified by its modules."""
        described = self.contents.description
        if described is not None:
            return not described["network"]["name"].startswith(("timm/", "torchvision/"))
        return self.form is SENET and "head_drop" in self.contents.modules

    @property
    def residual(self) -> bool:
        """Whether the network has residual units under their usual names."""
        return "layer1.0.conv1.weight" in self.tensors

    def unknown(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties of a network that the weights do not specify, and which have to be assumed.

        Args:
            network: properties of the network, see `of_model`.
        """
        if self.contents.network is not None or (self.is_ours and self.contents.description is not None):
            return {}
        presumed = self.form in (SHARED, SENET, AS_IS) or not self.form.certain
        known = {**evident(self.tensors), **self.facts} if presumed else self.certain
        return {option: network[option] for option in HIDDEN if option in network and option not in known}

    def _guesses(self) -> dict[str, Any]:
        """Implied options with guesses; none for bare weights of senet, where the network's name is more reliable."""
        return {} if self.form is SENET else self.implied


def open_checkpoint(
    source: str | PathLike[str] | nn.Module,
    *,
    entry: str | None = None,
    names: Callable[[], Collection[str]] = tuple,
) -> Checkpoint:
    """Read weights, identify their format by tensor names, and convert the names to senet's.

    Args:
        source: a file (`.pth`, `.pt`, `.th`, `.safetensors`, a model file of senet, `.caffemodel`), "timm:NAME",
            "torchvision:NAME" or "hf-hub:OWNER/NAME"; or a network.
        entry: selects a state dict, see `senet.load_weights`.
        names: returns the tensor names of the target network; wrappers' prefixes are removed only if the network does
            not have them itself.

    Raises:
        ImportError: the source requires a package that is not installed.
        TypeError: the source is not text, a path or a network, but for example a state dict.
        ModelFileError: the source cannot be read, or senet has no such network.
    """
    if isinstance(source, nn.Module):
        if entry is not None:
            raise ValueError(f"invalid {argument('entry', entry)}: it selects a state dict in a file, not in a network")
        return _named(of_network(source), names)
    if not isinstance(source, str | PathLike):
        raise TypeError(
            f"weights must be a file or a name such as 'timm:seresnet50', got a {type(source).__name__}; load a "
            f"state dict with the network's load_state_dict"
        )
    if not str(source):
        raise ModelFileError("weights must be a file or a name such as 'timm:seresnet50', got ''")
    library, _, name = str(source).partition(":")
    contents = open_source(library, name, entry) if library in SOURCES else read_file(source, entry)
    return _named(contents, names)


def _named(contents: Contents, names: Callable[[], Collection[str]]) -> Checkpoint:
    """Choose among the candidate names those of the network, or those of a known format."""
    if contents.kind or contents.description is not None:
        return translate(contents, SENET if contents.description is not None else _format(contents))
    if not contents.tensors:
        raise ModelFileError(f"{contents.source} has no tensors")
    candidates = name_candidates(contents.tensors)
    forms = [_format_of(candidate) for candidate in candidates]
    here = set(names())
    fits = [_overlap(candidate, form, here) for candidate, form in zip(candidates, forms, strict=True)]
    if max(fits):
        chosen = fits.index(max(fits))  # of the best matches, the one with the fewest changes
    else:
        # Prefer names without wrappers' prefixes, then names without common first parts.
        order = [2, *range(3, len(candidates)), 0, 1]
        chosen = next((index for index in order if forms[index] is not AS_IS), 2)
    spelled = with_declared_network(contents.spelled(candidates[chosen]))
    return translate(spelled, _format(spelled))


def _overlap(candidate: Mapping[str, str], form: Format, here: set[str]) -> int:
    if not here:
        return 0
    own = set(candidate.values())
    return max(len(own & here), len({_rename(name, form) for name in own} & here))


def _format_of(candidate: Mapping[str, str]) -> Format:
    modules = {name.rpartition(".")[0] for name in candidate.values()}
    form = identify(modules)
    # A classifier inside "backbone" means another library's network in a module of that name, not mmpretrain.
    return AS_IS if form is MMPRETRAIN and "backbone.fc" in modules else form


def _format(contents: Contents) -> Format:
    form = _format_of({name: name for name in contents.tensors})
    # senet's plain networks have torchvision's names, and one more child.
    return SENET if form is SHARED and "head_drop" in contents.modules else form


def translate(contents: Contents, form: Format) -> Checkpoint:
    """Convert the tensor names of a format to senet's.

    Raises:
        ModelFileError: two tensors get the same name, or senet has no such network.
    """
    names = {key: _rename(key, form) for key in contents.tensors}
    ends = {}
    tensors: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    here = set(names.values())
    preactivation = any(name.startswith("norm.0.") for name in here)
    for key, name in names.items():
        unit, found, rest = name.partition(".@.")
        if found:
            if unit not in ends:
                last = 3 if f"{unit}.conv3.weight" in here else 2
                ends[unit] = f"conv{last}.standard" if preactivation else f"bn{last}"
            if form.basic and not ends[unit].endswith("3"):
                raise ModelFileError(f"senet has no network for {contents.source} ({form.name}): {form.basic}")
            name = f"{unit}.{ends[unit]}.{rest}"
        if name in tensors:
            raise ModelFileError(f"{contents.source} has two tensors for {name}: {origin[name]} and {key}; remove one")
        tensors[name], origin[name] = contents.tensors[key], key
    return Checkpoint(contents, form, tensors, origin)


def check_architecture(checkpoint: Checkpoint, certain: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Raise if weights and network differ in properties that names and shapes do not determine.

    Args:
        checkpoint: the weights.
        certain: properties that the weights specify.
        network: properties of the network, under the same names.

    Raises:
        ModelFileError: a property differs; the message names both values and the remedy.
    """
    for option in HIDDEN:
        theirs, here = certain.get(option), network.get(option)
        if theirs is None or here is None or theirs == here:
            continue
        if option == "antialias" and theirs == "another" and here != "none":
            continue  # both blur; the names do not specify how
        if here == "another" and option not in checkpoint.facts:
            continue  # the format's default is only an assumption
        remedy = f"use a network with {option}={theirs!r}"
        if theirs == "another":
            remedy = f"senet has no networks with such a {option}"
        elif option in OPTIONS:
            remedy = in_python_or(
                f"build it with {option}={theirs!r}, or with create_model(..., weights=), which sets it",
                f"leave out --set network.{option}, which the weights imply",
            )
        raise ModelFileError(
            f"{checkpoint.source} ({checkpoint.form.name}) is for a network with {option}={theirs!r}, and this one has "
            f"{option}={here!r}: the same tensors, but another function; {remedy}. {checkpoint.advice}".strip()
        )


def _rename(key: str, form: Format) -> str:
    module, _, leaf = key.rpartition(".")
    renamed = rename(module, form.names)
    return key if renamed is None else f"{renamed}.{leaf}"
