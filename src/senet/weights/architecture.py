"""The architecture of residual networks, inferred from tensors, formats and modules."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from senet.weights.formats import Format
from senet.weights.network_comparison import activation_name, values_of

__all__ = ["UNIT", "evident", "implied_options", "inner", "of_model", "of_module_list", "presumed", "unusual_heads"]

UNIT = re.compile(r"layer\d+\.\d+")
# Names in residual units of modules that resample maps, and of activations other than ReLU.
_BLURS = {"aa", "blur", "blurpool", "blur_pool", "antialias", "avd", "avd_first", "avd_last", "upsample"}
_OTHER_ACTS = {
    "silu": "SiLU",
    "swish": "SiLU",
    "gelu": "GELU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "mish": "Mish",
    "prelu": "PReLU",
    "lrelu": "LeakyReLU",
    "leakyrelu": "LeakyReLU",
    "hswish": "Hardswish",
    "hardswish": "Hardswish",
}
_PROJECTION = re.compile(r"\.downsample\.(0\.)?weight$")


def evident(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of `ResNetSpec` that names and shapes determine; empty for other types of networks.

    Args:
        tensors: tensors by senet's names.
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
    elif facts.get("stem") == "conv3":  # ImageNet networks without projections are incomplete
        facts["shortcut"] = "pad"
    preactivation = _preactivation(tensors)
    return facts if preactivation is None else facts | {"preactivation": preactivation}


def unusual_heads(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the name of the only linear layer outside of units, which must be the classifier.

    Args:
        tensors: tensors by senet's names.

    Returns:
        One name, or none if there is no such layer or several.
    """
    found = [
        name.removesuffix(".weight")
        for name, tensor in tensors.items()
        if name.endswith(".weight") and tensor.ndim == 2 and ".se." not in name and not UNIT.match(name)
    ]
    return found if len(found) == 1 else []


def presumed(tensors: Mapping[str, Tensor], form: Format) -> dict[str, Any]:
    """Return the options that a format implies, which names and shapes do not determine, such as the stride.

    Args:
        tensors: tensors by senet's names.
        form: format of the weights.
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
    """Read the architecture of a network from its modules; "another" stands for any other value.

    Returns:
        `eps` of batch norms and `dilation`; of a residual network also `stride_in`, `pool`, `preactivation`,
        `activation`, `antialias`, `strides` (of its stages) and `global_pool`, as far as they can be determined.
    """
    found = {"eps": values_of(model, "eps", "Norm"), "dilation": values_of(model, "dilation", "Conv")}
    facts: dict[str, Any] = {option: value for option, value in found.items() if value is not None}
    modules = dict(model.named_modules())
    first, second = modules.get("layer1.0.conv1"), modules.get("layer1.0.conv2")
    if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.Conv2d):
        return facts
    children = list(dict(modules["layer1.0"].named_children()))
    if "bn1" in children:
        facts["preactivation"] = children.index("bn1") < children.index("conv1")
    if isinstance(modules.get("layer1.0.conv3"), nn.Conv2d) and "layer2.0.conv2" in modules:
        strides = [getattr(modules[f"layer2.0.{name}"], "stride", (0, 0))[0] for name in ("conv1", "conv2")]
        facts["stride_in"] = {"2 1": "conv1", "1 2": "conv2"}.get(f"{strides[0]} {strides[1]}", "another")
    pool = next((modules[name] for name in ("maxpool", "layer0.pool") if name in modules), None)
    if pool is not None:
        facts["pool"] = _pool(pool)
    units = [(name, module) for name, module in modules.items() if UNIT.fullmatch(name)]
    acting = {activation_name(child) for _, unit in units for child in unit.children()} - {None}
    if acting:
        facts["activation"] = ", ".join(sorted(map(str, acting)))
    blurred = [child for _, unit in units for name, child in unit.named_children() if name == "aa"]
    kinds = {type(child).__name__ for child in blurred} - {"Identity"}
    facts["antialias"] = ", ".join(sorted(kinds)) or "none"
    facts["strides"] = tuple(_stride(unit) for name, unit in units if name.endswith(".0"))
    last = next((modules[name] for name in ("global_pool", "avgpool") if name in modules), None)
    if (mean := _global_pool(last)) is not None:
        facts["global_pool"] = mean
    return facts


def _global_pool(module: nn.Module | None) -> str | None:
    """Return timm's name of the global pool; None if unknown."""
    kind = getattr(module, "pool_type", None)  # timm's
    if isinstance(kind, str):
        return (kind.removeprefix("fast") or "avg") if kind else "none"
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and module.output_size in (1, (1, 1)):
        return "avg" if isinstance(module, nn.AdaptiveAvgPool2d) else "max"
    return None


def _stride(unit: nn.Module) -> int:
    """Return the total stride of a unit's branch, including blur layers."""
    steps = [child for name, child in unit.named_children() if name.startswith(("conv", "aa"))]
    total = 1
    for child in steps:
        stride = getattr(child, "stride", 1)
        total *= stride[0] if isinstance(stride, tuple) else stride
    return total


def of_module_list(modules: Collection[str]) -> dict[str, Any]:
    """Read properties from the names of all modules, which torch.save stores; "another" stands for unknown values.

    Args:
        modules: names of modules, including those without tensors.

    Returns:
        `antialias`, `pool` and `activation` of a residual network, as far as names determine them.
    """
    facts: dict[str, Any] = {}
    inside: dict[str, set[str]] = {}
    for name in modules:
        unit, _, child = name.rpartition(".")
        if UNIT.fullmatch(unit):
            inside.setdefault(unit, set()).add(child)
    if not inside:
        return facts
    # Recent timm networks have one in every unit, mostly an identity; older ones only where it blurs.
    blurring = {unit for unit, children in inside.items() if children & _BLURS}
    every = all("aa" in children and not children & (_BLURS - {"aa"}) for children in inside.values())
    if not every:
        facts["antialias"] = "another" if blurring else "none"
    if any(name.startswith(("maxpool.", "layer0.pool.")) for name in modules):
        facts["pool"] = "another"
    named = {re.sub(r"\d+$", "", child).replace("_", "") for children in inside.values() for child in children}
    if named & _OTHER_ACTS.keys():
        known = _OTHER_ACTS | {"relu": "ReLU"}
        facts["activation"] = ", ".join(sorted({known[name] for name in named & known.keys()}))
    return facts


def inner(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, torch.compile or an averaged model; otherwise the model itself.

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
    """Return the implied architecture; facts about the source take precedence over the format's defaults.

    Args:
        tensors: tensors by senet's names.
        form: format of the weights.
        facts: known facts about the source.
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
    """Infer pre-activation from the size of the first batch norm in a unit that changes the channels."""
    for key, weight in tensors.items():
        if re.fullmatch(r"layer\d+\.0\.conv1\.weight", key) and weight.ndim == 4 and weight.shape[0] != weight.shape[1]:
            bn = tensors.get(key.replace("conv1", "bn1"))
            if bn is not None and bn.ndim == 1 and len(bn) in weight.shape[:2]:
                return len(bn) == weight.shape[1]
    return None
