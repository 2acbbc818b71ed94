"""The networks of timm: which have SE, which are the same, and random weights that do not amplify rounding."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules, list_modules
from torch import Tensor, nn

from senet.graph.se_modules import SEUnit, find_se

__all__ = ["build", "describe", "family", "randomize"]

# Sides of the images, in the order in which they are tried; the declared size comes last.
SIDES = (64, 96, 128)
# Images that show the statistics of batch norms, and are compared.
_SHOWN = 8
_ATTRIBUTES = (int, float, bool, str, tuple, type(None))


def describe(name: str) -> dict[str, Any]:
    """Describe a network without building its weights.

    Returns:
        Its family, parameters in millions, number of SE modules; if it has SE, the kinds of modules that SE and batch
        norms have inside, and a digest of its architecture.
    """
    with torch.device("meta"):
        model = _create(name)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    units = find_se(model)
    found = {"family": family(name), "millions": round(millions, 2), "modules": len(units)}
    return found | ({"kinds": _kinds(model, units), "digest": _digest(model)} if units else {})


def _kinds(model: nn.Module, units: list[SEUnit]) -> list[str]:
    """Return the classes of SE modules and of batch norms, with those of their children."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kinds = {
        f"{type(module).__name__}({', '.join(type(child).__name__ for child in module.children())})"
        for module in (*norms, *(unit.module for unit in units if unit.form == "block"))
    }
    return sorted(kinds)


def family(name: str) -> str:
    """Return the module of timm that defines a network."""
    return next(str(module) for module in list_modules() if is_model_in_modules(name, [module]))


def _create(name: str) -> nn.Module:
    """Build a network, for small images if its layers depend on their size."""
    try:
        model: nn.Module = timm.create_model(name, num_classes=10, img_size=SIDES[0])
    except (AssertionError, TypeError, ValueError):  # it takes no size, or not this one
        model = timm.create_model(name, num_classes=10)
    return model.eval()


def _digest(model: nn.Module) -> str:
    """Return a digest of modules, their options, and the shapes of their tensors."""
    text = []
    for name, module in model.named_modules():
        options = [(key, repr(value)) for key, value in vars(module).items() if _is_option(key, value)]
        tensors = (*module._parameters.items(), *module._buffers.items())
        shapes = [(key, None if tensor is None else tuple(tensor.shape)) for key, tensor in tensors]
        text.append(f"{name} {type(module).__qualname__} {sorted(options)} {sorted(shapes)}")
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def _is_option(key: str, value: object) -> bool:
    return key[0] != "_" and isinstance(value, _ATTRIBUTES)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode with random weights and statistics, and images (8, C, H, W) for it.

    They are those that showed the statistics: 8 images show too little for others, and values of others grow.
    """
    torch.manual_seed(0)
    model = _create(name)
    config: Any = model.pretrained_cfg
    channels, *declared = config["input_size"]
    why: Exception | None = None
    for size in (*((side, side) for side in SIDES), tuple(declared)):
        x = torch.randn(_SHOWN, channels, *size)
        try:
            randomize(model, x)
        except Exception as error:  # of networks that take one size
            why = error
            continue
        return model, x
    raise ValueError("it runs on none of the sizes") from why


@torch.no_grad()
def randomize(model: nn.Module, x: Tensor) -> None:
    """Draw weights of batch norms, biases of SE, and statistics, in place.

    Statistics are drawn near those of the maps in evaluation mode, layer by layer, so that values keep the order of 1
    as in a trained network. A network in which they grow or vanish amplifies rounding: float64 itself then differs.

    Args:
        model: in evaluation mode.
        x: images (N, C, H, W).
    """
    norms: list[Any] = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if norm.weight is not None:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    for unit in find_se(model, x):
        for layer in (unit.reduce, unit.expand):
            if layer is not None and isinstance(layer.bias, Tensor):
                nn.init.normal_(layer.bias, std=0.5)
    with _drawing_statistics(norms):
        model(x)


@contextmanager
def _drawing_statistics(norms: list[Any]) -> Iterator[None]:
    def draw(norm: Any, args: tuple[Tensor, ...]) -> None:
        if norm.running_var is None:
            return
        axes = [axis for axis in range(args[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(args[0], axes, correction=0)
        # Channels that hardly vary would be scaled up by orders of magnitude.
        variance = variance + 0.1 * variance.mean() + norm.eps
        norm.running_mean.copy_(mean + 0.1 * variance.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.7, 1.4))

    handles = [norm.register_forward_pre_hook(draw) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
