"""The network that a checkpoint declares: in timm's config.json, or as `arch` of a training script."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from senet.utils.errors import ModelFileError, first_line
from senet.weights.architecture import of_model
from senet.weights.reading import Contents, images_of

__all__ = ["with_declared_network"]

# Keys of settings in training scripts.
_SETTINGS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt")
# Options of timm's networks that a file may set, with types.
_TEXTS = ("act_layer", "aa_layer", "norm_layer", "global_pool", "stem_type")
_OPTIONS = {"output_stride": int, "replace_stem_pool": bool, "avg_down": bool, **dict.fromkeys(_TEXTS, str)}
# Options that do not affect a network's function in evaluation, given its tensors; all others are reported.
_WITHOUT_EFFECT = {
    *("num_classes", "in_chans", "img_size", "pretrained", "checkpoint_path", "zero_init_last", "scriptable"),
    *("drop_rate", "drop_path_rate", "drop_block_rate", "exportable", "no_jit", "cache_dir"),
}
_COUNTER = "num_batches_tracked"


def with_declared_network(contents: Contents) -> Contents:
    """Add the declared network, built without values, if its tensor names match.

    Args:
        contents: content of a file, under the network's names.

    Raises:
        ModelFileError: timm cannot build the network with the file's options.
    """
    if contents.network is not None or not contents.around:
        return contents
    preprocessing = next(
        (images_of(around["pretrained_cfg"]) for around in contents.around if "pretrained_cfg" in around), {}
    )
    contents = replace(contents, preprocessing={**preprocessing, **contents.preprocessing})
    for name, options, facts, uncompared in _declarations(contents.around):
        network = _build(name, options, contents.source)
        if network is not None and _names(network.state_dict()) == _names(contents.tensors):
            known = {**of_model(network), **facts, **contents.facts}
            return replace(contents, network=network, facts=known, uncompared=uncompared)
    return contents


def _declarations(
    around: tuple[Mapping[Any, Any], ...],
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]]:
    """Yield declared networks: name, options, further properties, and options not passed to timm."""
    for values in around:
        args = next((values[key] for key in _SETTINGS if key in values), None)
        args = args if isinstance(args, Mapping) else getattr(args, "__dict__", {})
        given = values.get("model_args", args.get("model_kwargs"))
        given = {str(key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
        if args.get("gp") in ("avg", "max", "avgmax", "catavgmax"):  # timm's training script
            given = {"global_pool": args["gp"], **given}
        options = {key: value for key, value in given.items() if type(value) is _OPTIONS.get(key)}
        uncompared = tuple(sorted(given.keys() - options.keys() - _WITHOUT_EFFECT))
        eps = args.get("bn_eps")
        facts = {"eps": float(eps)} if isinstance(eps, float) else {}
        for name in (values.get("architecture"), values.get("arch"), args.get("model"), args.get("arch")):
            if isinstance(name, str) and name.isascii() and name.replace("_", "").replace(".", "").isalnum():
                yield name, options, facts, uncompared


def _build(name: str, options: dict[str, Any], source: str) -> nn.Module | None:
    import timm

    name = name.partition(".")[0]
    if not timm.is_model(name):
        return None
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]
    except NotImplementedError:  # some networks read tensors while they are built
        return None
    except Exception as error:  # timm raises various exceptions about the file's options
        listed = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ModelFileError(
            f"{source} declares timm's {name} with {listed or 'no options'}, which cannot be built: {first_line(error)}"
        ) from error


def _names(tensors: Mapping[str, Any]) -> set[str]:
    return {name for name in tensors if not name.endswith(_COUNTER)}
