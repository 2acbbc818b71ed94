"""What weights say of the architecture of a residual network, and what a residual network is."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from senet.weights.formats import Format

__all__ = ["evident", "implied_options", "inner", "of_model", "presumed"]

_PROJECTION = re.compile(r"\.downsample\.(0\.)?weight$")


def evident(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What names and shapes tell, as options of `ResNetSpec`; nothing for weights of another kind of network.

    Args:
        tensors: by senet's names.
    """
    if not _has(tensors, "layer1.0.conv1"):
        return {}
    facts: dict[str, Any] = {"bottleneck": _has(tensors, "layer1.0.conv3")}
    if _has(tensors, "conv1.0"):
        facts["stem"] = "deep"
    elif _has(tensors, "conv1"):
        kernel = tensors["conv1.weight"].shape[-1]
        facts |= {"stem": {3: "conv3", 7: "conv7"}[kernel]} if kernel in (3, 7) else {}
    projections = [key for key, w in tensors.items() if _PROJECTION.search(key) and w.ndim == 4]
    if projections:
        facts["shortcut"] = "projection"
        strided = [key for key in projections if not key.startswith("layer1.")]
        facts |= {"projection": tensors[strided[0]].shape[-1]} if strided else {}
    elif facts.get("stem") == "conv3":  # ImageNet's networks without projections are incomplete
        facts["shortcut"] = "pad"
    preactivation = _preactivation(tensors)
    return facts if preactivation is None else facts | {"preactivation": preactivation}


def presumed(tensors: Mapping[str, Tensor], form: Format) -> dict[str, Any]:
    """What the format tells beside names and shapes, which are the same with the stride elsewhere.

    Args:
        tensors: by senet's names.
        form: their format.
    """
    facts = evident(tensors)
    if "stem" not in facts:
        return {}
    small = facts["stem"] == "conv3"
    stride, pool = form.small_stride, None
    if not small and not facts.get("preactivation"):
        stride, pool = form.grouped_stride if _grouped(tensors) else form.stride, form.pool
    found = {"stride_in": stride if facts["bottleneck"] else None, "pool": pool}
    return {option: value for option, value in found.items() if value is not None}


def of_model(model: nn.Module) -> dict[str, Any]:
    """What a residual network of senet, torchvision or timm is, read off its modules; "another" is neither value.

    Returns:
        Of `stride_in`, `pool`, `preactivation` and `activation` what can be told; nothing for another kind of network.
    """
    modules = dict(model.named_modules())
    first, second = modules.get("layer1.0.conv1"), modules.get("layer1.0.conv2")
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.Conv2d):
        return {}
    facts: dict[str, Any] = {}
    children = list(dict(modules["layer1.0"].named_children()))
    if "bn1" in children:
        facts["preactivation"] = children.index("bn1") < children.index("conv1")
    if isinstance(modules.get("layer1.0.conv3"), nn.Conv2d) and "layer2.0.conv2" in modules:
        strides = [getattr(modules[f"layer2.0.{name}"], "stride", (0, 0))[0] for name in ("conv1", "conv2")]
        facts["stride_in"] = {"2 1": "conv1", "1 2": "conv2"}.get(f"{strides[0]} {strides[1]}", "another")
    if "maxpool" in modules:
        facts["pool"] = _pool(modules["maxpool"])
    unit = modules["layer1.0"]
    activations = {type(child).__name__ for name, child in unit.named_children() if name.startswith(("relu", "act"))}
    if activations:
        facts["activation"] = ", ".join(sorted(activations))
    return facts


def inner(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, torch.compile and averages, which is the network itself.

    Args:
        model: any module.
    """
    wrappers = {"DataParallel": "module", "DistributedDataParallel": "module", "AveragedModel": "module"}
    wrappers |= {"OptimizedModule": "_orig_mod"}
    child = getattr(model, wrappers.get(type(model).__name__, ""), None) if _is_torchs(model) else None
    return inner(child) if isinstance(child, nn.Module) else model


def _is_torchs(model: nn.Module) -> bool:
    return type(model).__module__.startswith("torch.")


def implied_options(tensors: Mapping[str, Tensor], form: Format, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that weights say of the architecture, what is known of their source before what their format has.

    Args:
        tensors: by senet's names.
        form: their format.
        facts: known of the source.
    """
    return {**evident(tensors), **presumed(tensors, form), **facts}


def _pool(module: nn.Module) -> str:
    if isinstance(module, nn.Identity):
        return "none"
    if isinstance(module, nn.MaxPool2d) and module.kernel_size == 3 and module.stride == 2:
        return {(0, True): "ceil", (1, False): "pad"}.get((module.padding, module.ceil_mode), "another")  # type: ignore[arg-type]
    return "another"


def _has(tensors: Mapping[str, Tensor], module: str) -> bool:
    weight = tensors.get(f"{module}.weight")
    return weight is not None and weight.ndim == 4


def _grouped(tensors: Mapping[str, Tensor]) -> bool:
    first, second = tensors["layer1.0.conv1.weight"], tensors.get("layer1.0.conv2.weight")
    return second is not None and second.ndim == 4 and second.shape[1] < first.shape[0]


def _preactivation(tensors: Mapping[str, Tensor]) -> bool | None:
    """By the first batch norm of a unit that changes the channels: of what comes in, or of what conv1 gives."""
    for key, weight in tensors.items():
        if re.fullmatch(r"layer\d+\.0\.conv1\.weight", key) and weight.ndim == 4 and weight.shape[0] != weight.shape[1]:
            bn = tensors.get(key.replace("conv1", "bn1"))
            if bn is not None and bn.ndim == 1 and len(bn) in weight.shape[:2]:
                return len(bn) == weight.shape[1]
    return None
