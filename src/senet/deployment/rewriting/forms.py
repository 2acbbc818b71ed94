"""The forms in which SE is written: mathematically equal, and not equally fast in every engine."""

from dataclasses import dataclass
from typing import Literal

from senet.utils.choices import check_choices

__all__ = ["FORMS", "EngineName", "Forms"]

EngineName = Literal["eager", "compile", "onnxruntime", "openvino"]


@dataclass(frozen=True)
class Forms:
    """How SE is written.

    Attributes:
        squeeze: "mean" is a mean over the spatial axes; "pool" is an adaptive average pool. Both become a mean in
            `torch.export`, and hence in ONNX and OpenVINO.
        layers: "linear" are linear layers on (N, C); "conv" are 1x1 convolutions on (N, C, 1, 1).
        pointwise: whether the squeeze moves before a 1x1 convolution where that is exact.

    Raises:
        ValueError: an unknown value.
    """

    squeeze: Literal["mean", "pool"] = "mean"
    layers: Literal["conv", "linear"] = "linear"
    pointwise: bool = True

    def __post_init__(self) -> None:
        check_choices(self)


# The form of each engine. Differences between the forms were within the spread of what was measured so far.
FORMS: dict[EngineName, Forms] = {
    "eager": Forms("mean", "linear"),
    "compile": Forms("mean", "linear"),
    "onnxruntime": Forms("mean", "conv"),
    "openvino": Forms("mean", "conv"),
}
