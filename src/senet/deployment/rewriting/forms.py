"""The forms in which SE is written: mathematically equal, and not equally fast in every engine."""

from dataclasses import dataclass
from typing import Literal

from senet.utils.choices import check_choices

__all__ = ["FORMS", "EngineName", "Forms", "fixed_forms"]

EngineName = Literal["eager", "compile", "onnxruntime", "openvino"]


@dataclass(frozen=True)
class Forms:
    """How SE is written.

    Attributes:
        squeeze: "mean" is a mean over the spatial axes; "pool" is an adaptive average pool, and "kernel" an average
            pool whose kernel is the whole map. `torch.export` makes a mean of "pool", and keeps "kernel"; that needs a
            fixed image size in ONNX.
        layers: "linear" are linear layers on (N, C); "conv" are 1x1 convolutions on (N, C, 1, 1).
        pointwise: whether the squeeze moves before a 1x1 convolution where that is exact.
        product: "broadcast" multiplies the map by gates (N, C, 1, 1); "resized" resizes these to the map first, which
            needs a fixed image size in ONNX.
        weights: whether gates scale the weights of a 1x1 convolution next to SE, for each image, instead of a map that
            has more than twice as many numbers on the example: "never"; "next" in the convolution after SE; or "both"
            there and in the one before it. Exported files have a fixed batch then.

    Raises:
        ValueError: an unknown value.

    Examples:
        >>> from senet.deployment.rewriting import FORMS, Forms
        >>> FORMS["onnxruntime"]
        Forms(squeeze='mean', layers='conv', pointwise=True, product='broadcast', weights='never')
        >>> Forms(squeeze="kernel", layers="conv").pointwise
        True
    """

    squeeze: Literal["mean", "pool", "kernel"] = "mean"
    layers: Literal["conv", "linear"] = "linear"
    pointwise: bool = True
    product: Literal["broadcast", "resized"] = "broadcast"
    weights: Literal["never", "next", "both"] = "never"

    def __post_init__(self) -> None:
        check_choices(self)


# The form of each engine, for any batch and size.
FORMS: dict[EngineName, Forms] = {
    "eager": Forms("mean", "linear"),
    "compile": Forms("mean", "linear"),
    "onnxruntime": Forms("mean", "conv"),
    "openvino": Forms("mean", "conv"),
}
# Faster ones for float32, a fixed size and a fixed batch: of one image, and of several.
_ONE: dict[EngineName, Forms] = {
    "onnxruntime": Forms("kernel", "conv", product="resized", weights="next"),
    "openvino": Forms("mean", "conv", weights="both"),
}
_SEVERAL: dict[EngineName, Forms] = {
    "onnxruntime": Forms("kernel", "conv", product="resized"),
}


def fixed_forms(engine: EngineName, batch: int) -> Forms:
    """Return the form for a file in float32 of a fixed batch and size."""
    return (_ONE if batch == 1 else _SEVERAL).get(engine, FORMS[engine])
