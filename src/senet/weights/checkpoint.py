"""Weights by senet's names, and what they say of the network that they are of; builds nothing."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from torch import Tensor, nn

from senet.utils.errors import ModelFileError
from senet.weights.architecture import evident, implied_options, of_module_list, unusual_heads
from senet.weights.declared import with_declared
from senet.weights.formats import AS_IS, HEADS, MMPRETRAIN, SENET, SHARED, Format, identify
from senet.weights.patterns import rename
from senet.weights.prefixes import spellings
from senet.weights.reading import Contents, read_file
from senet.weights.sources import SOURCES, of_network, open_source

__all__ = ["OPTIONS", "Checkpoint", "open_checkpoint", "refuse_another", "translate"]

# Options of `create_model` that weights may say, where its caller does not.
OPTIONS = ("stem", "pool", "stride_in", "shortcut", "projection")
# Which of them, and what else, no name and no shape tells.
HIDDEN = ("preactivation", "antialias", "stride_in", "pool", "activation", "eps", "dilation", "strides", "global_pool")
# What every network that is built here has.
_OURS = {"activation": "ReLU", "eps": 1e-05, "dilation": 1, "antialias": "none", "global_pool": "avg"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights, by senet's names.

    Attributes:
        contents: as they are called where they are from.
        form: their format.
        tensors: by senet's names.
        names: senet's name of each tensor, and its own.
    """

    contents: Contents
    form: Format
    tensors: dict[str, Tensor]
    names: dict[str, str]

    @property
    def source(self) -> str:
        """What to call the weights in a message."""
        return self.contents.source

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Of the images, as in `pretrained_cfg`."""
        return {**self.form.preprocessing, **self.contents.preprocessing}

    @property
    def implied(self) -> dict[str, Any]:
        """All that the weights say of the architecture, guesses included."""
        return implied_options(self.tensors, self.form, self.facts)

    @property
    def certain(self) -> dict[str, Any]:
        """The same without guesses: what contradicts it is refused."""
        described = self.contents.description is not None
        if self.form.certain and (described or self.form is not SENET):
            return self.implied
        return {**evident(self.tensors), **self.facts}

    @property
    def num_classes(self) -> int | None:
        """Outputs of the classifier, None where that cannot be told."""
        weights = (self.tensors.get(f"{name}.weight") for name in (*HEADS, *unusual_heads(self.tensors)))
        return next((len(weight) for weight in weights if weight is not None and weight.ndim >= 2), None)

    def architecture(self, spec: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The options to build a network with, so that these weights are of it.

        Args:
            spec: the network's numbers by its name, such as a `ResNetSpec`.
            asked: options that the caller gave.

        Returns:
            `asked`, and those that the weights say and the name leaves open.

        Raises:
            ModelFileError: the weights contradict what was asked for, or are of another kind of network.
        """
        if not hasattr(spec, "stride_in"):
            return dict(asked)
        certain = self.certain
        for option, value in asked.items():
            if option in certain and certain[option] != value:
                raise ModelFileError(
                    f"{self.source} ({self.form.name}) is of a network with {option}={certain[option]!r}, and "
                    f"{option}={value!r} was asked for; leave {option} out. {self.advice}"
                )
        nowhere = {option: getattr(spec, option) for option in OPTIONS if certain.get(option) == "another"}
        refuse_another(self, certain, {"preactivation": spec.preactivation, **_OURS, **nowhere})
        implied = {**self._guesses(), **certain}
        return {
            option: implied[option]
            for option in OPTIONS
            if implied.get(option, getattr(spec, option)) != getattr(spec, option)
            and (option != "stride_in" or spec.bottleneck)
        } | dict(asked)

    @property
    def advice(self) -> str:
        """What to do about weights of senet's own that bear the names of all."""
        if self.form is not SHARED or self.contents.network is not None:
            return ""
        return (
            "These names are also those of plain networks here: save one with senet.save, which says how it is built, "
            "or load its state_dict with model.load_state_dict"
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the network beyond names, shapes and what is usual in the format."""
        described = self.contents.description
        options = {} if described is None else described["network"]["options"]
        said = of_module_list(self.contents.modules) if self.contents.network is None else {}
        ours = _OURS if self.is_ours and self.residual else {}
        described_options = {key: value for key, value in options.items() if key in OPTIONS}
        return {**said, **ours, **self.contents.facts, **described_options}

    @property
    def is_ours(self) -> bool:
        """Whether the weights are of a network that was built here: a model file's, or known by its modules."""
        described = self.contents.description
        if described is not None:
            return not described["network"]["name"].startswith(("timm/", "torchvision/"))
        return self.form is SENET and "head_drop" in self.contents.modules

    @property
    def residual(self) -> bool:
        """Whether the network is made of residual units under their usual names."""
        return "layer1.0.conv1.weight" in self.tensors

    def unknown(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """What a network is and the weights do not say, so that it has to be assumed of theirs.

        Args:
            network: what the network is, see `of_model`.
        """
        if self.contents.network is not None or (self.is_ours and self.contents.description is not None):
            return {}
        presumed = self.form in (SHARED, SENET, AS_IS) or not self.form.certain
        known = {**evident(self.tensors), **self.facts} if presumed else self.certain
        return {option: network[option] for option in HIDDEN if option in network and option not in known}

    def _guesses(self) -> dict[str, Any]:
        """Of senet's own bare weights the name of the network says more than a guess."""
        return {} if self.form is SENET else self.implied


def open_checkpoint(
    source: str | PathLike[str] | nn.Module,
    *,
    entry: str | None = None,
    names: Callable[[], Collection[str]] = tuple,
) -> Checkpoint:
    """Read weights, find their format by their names, and name them as senet does.

    Args:
        source: a file (`.pth`, `.pt`, `.th`, `.safetensors`, a model file of senet, `.caffemodel`), "timm:NAME",
            "torchvision:NAME" or "hf-hub:OWNER/NAME"; or a network.
        entry: which of several state dicts, see `senet.load_weights`.
        names: of the tensors of the network that they are for; what wrappers put before names is removed only where
            the network has no such names itself.

    Raises:
        ImportError: the source takes a package that is not installed.
        TypeError: neither text, a path nor a network, such as a state dict, which `load_state_dict` takes.
        ModelFileError: it cannot be read, or is of a network that no network here is.
    """
    if isinstance(source, nn.Module):
        if entry is not None:
            raise ValueError(f"entry={entry!r} picks a state dict of a file, and the source is a network")
        return _named(of_network(source), names)
    if not isinstance(source, str | PathLike):
        raise TypeError(
            f"weights are a file or a name such as 'timm:seresnet50', got a {type(source).__name__}; a state dict goes "
            f"into a network with its load_state_dict"
        )
    if not str(source):
        raise ModelFileError("weights are a file or a name such as 'timm:seresnet50', got no text at all")
    library, _, name = str(source).partition(":")
    contents = open_source(library, name, entry) if library in SOURCES else read_file(source, entry)
    return _named(contents, names)


def _named(contents: Contents, names: Callable[[], Collection[str]]) -> Checkpoint:
    """The checkpoint by those of the possible names that are the network's, or that have a format."""
    if contents.kind or contents.description is not None:
        return translate(contents, SENET if contents.description is not None else _format(contents))
    if not contents.tensors:
        raise ModelFileError(f"{contents.source} has no tensors")
    ways = spellings(contents.tensors)
    forms = [_format_of(way) for way in ways]
    here = set(names())
    fits = [_overlap(way, form, here) for way, form in zip(ways, forms, strict=True)]
    if max(fits):
        chosen = fits.index(max(fits))  # of those that fit best, the one with the fewest changes
    else:
        # Without what wrappers put before all names, or failing that without whatever all names begin with.
        order = [2, *range(3, len(ways)), 0, 1]
        chosen = next((index for index in order if forms[index] is not AS_IS), 2)
    spelled = with_declared(contents.spelled(ways[chosen]))
    return translate(spelled, _format(spelled))


def _overlap(way: Mapping[str, str], form: Format, here: set[str]) -> int:
    if not here:
        return 0
    own = set(way.values())
    return max(len(own & here), len({_rename(name, form) for name in own} & here))


def _format_of(way: Mapping[str, str]) -> Format:
    modules = {name.rpartition(".")[0] for name in way.values()}
    form = identify(modules)
    # A classifier in mmpretrain's backbone is another library's network in a module of that name.
    return AS_IS if form is MMPRETRAIN and "backbone.fc" in modules else form


def _format(contents: Contents) -> Format:
    form = _format_of({name: name for name in contents.tensors})
    # Plain networks here have the names of torchvision's, and a child that those have not.
    return SENET if form is SHARED and "head_drop" in contents.modules else form


def translate(contents: Contents, form: Format) -> Checkpoint:
    """Name the tensors of a format as senet does.

    Raises:
        ModelFileError: two tensors would have one name, or the format's networks have no counterpart here.
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
                raise ModelFileError(f"{contents.source} ({form.name}) is of a network that is not here: {form.basic}")
            name = f"{unit}.{ends[unit]}.{rest}"
        if name in tensors:
            raise ModelFileError(
                f"{contents.source} has two tensors for {name}, {origin[name]} and {key}, under different names; "
                f"remove one"
            )
        tensors[name], origin[name] = contents.tensors[key], key
    return Checkpoint(contents, form, tensors, origin)


def refuse_another(checkpoint: Checkpoint, certain: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Refuse weights of a network that differs in what names and shapes do not tell.

    Args:
        checkpoint: the weights.
        certain: what they say.
        network: what the network is, by the same names.

    Raises:
        ModelFileError: they are; the message names both, and the remedy.
    """
    for option in HIDDEN:
        theirs, here = certain.get(option), network.get(option)
        if theirs is None or here is None or theirs == here:
            continue
        if option == "antialias" and theirs == "another" and here != "none":
            continue  # both blur, and the names do not say how
        if here == "another" and option not in checkpoint.facts:
            continue  # the format's usual value is a presumption
        remedy = f"use a network with {option}={theirs!r}"
        if theirs == "another":
            remedy = f"networks here have no such {option}"
        elif option in OPTIONS:
            remedy = f"build it with {option}={theirs!r}, or by create_model(..., weights=), which sees to it"
        raise ModelFileError(
            f"{checkpoint.source} ({checkpoint.form.name}) is of a network with {option}={theirs!r}, and this one has "
            f"{option}={here!r}: another function of tensors with the same names; {remedy}. {checkpoint.advice}".strip()
        )


def _rename(key: str, form: Format) -> str:
    module, _, leaf = key.rpartition(".")
    renamed = rename(module, form.names)
    return key if renamed is None else f"{renamed}.{leaf}"
