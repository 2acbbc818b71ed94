"""Builders of networks by library and name, without pretrained weights, and rows of the tables of cases."""

from collections.abc import Callable
from typing import Any

from torch import nn

from site_cases.cases import Blocks, Case, image

__all__ = ["LIBRARIES", "row"]


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision.models import get_model

    if any(part in name for part in ("fpn", "deeplab", "fcn", "lraspp", "ssd")):
        options |= {"weights_backbone": None}
    return get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]


def _smp(name: str, **options: Any) -> nn.Module:
    import segmentation_models_pytorch

    kind, encoder = name.split("+")
    build = getattr(segmentation_models_pytorch, kind)
    return build(encoder, encoder_weights=None, **options)  # type: ignore[no-any-return]


def _monai(name: str, **options: Any) -> nn.Module:
    from monai.networks import nets

    return getattr(nets, name.partition("-")[0])(**options)  # type: ignore[no-any-return]


def _pytorchcv(name: str, **options: Any) -> nn.Module:
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False, **options)  # type: ignore[no-any-return]


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "smp": _smp,
    "monai": _monai,
    "pytorchcv": _pytorchcv,
}


def row(
    name: str,
    *blocks: str,
    may: tuple[str, ...] = (),
    why: str = "",
    build: Callable[[], nn.Module] | None = None,
    options: dict[str, Any] | None = None,
    **others: Any,
) -> Case:
    """Create a case.

    Args:
        name: `library/network`.
        blocks: expectations, see `site_cases.cases`.
        may: expectations of blocks that may have no site.
        why: the reason.
        build: builds the network; unless given, the library's builder with `options`.
        options: of the network.
        others: other attributes of `Case`.
    """
    library, _, network = name.partition("/")
    expected = [Blocks.parse(text) for text in blocks] + [Blocks.parse(text, optional=True) for text in may]
    make = build or (lambda: LIBRARIES[library](network, **(options or {})))
    if library == "pytorchcv":  # most of its networks pool over the map of an image of this size
        side = 32 if "cifar" in network else 224
        others.setdefault("inputs", lambda: image(1, 3, side, side))
    return Case(name, make, tuple(expected), why, **others)
