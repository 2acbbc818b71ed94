"""Quantize OpenVINO networks with NNCF."""

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor

from senet.deployment.quantization.calibration import IMAGES, check_batches
from senet.deployment.quantization.keep_float import KEEP_FLOAT, KeepFloat, kept_nodes
from senet.deployment.quantization.se_nodes import Node, einsum_kind
from senet.utils.choices import check_choice
from senet.utils.extras import optional_import

__all__ = ["quantize_openvino"]

# Images of a run in calibration.
_BATCH = 16


def quantize_openvino(
    model: Any,
    calibration: Iterable[Tensor] | None,
    keep_float: KeepFloat = KEEP_FLOAT["openvino"],
    *,
    images: int = IMAGES,
) -> Any:
    """Quantize weights and activations of an OpenVINO network to 8 bits.

    Weights are symmetric with a scale for each channel; activations have a scale and zero point for each tensor, which
    cover the smallest and largest values that calibration has seen. NNCF's defaults, the means of each image's smallest
    and largest values and a correction of biases, lose 10 dB and 3 dB: see docs/deploy.md.

    Args:
        model: an `openvino.Model`, which is not changed.
        calibration: batches (N, C, H, W) as the network takes them.
        keep_float: what of SE stays in float32.
        images: the most images of calibration to use.

    Returns:
        A new `openvino.Model`.

    Raises:
        TypeError: see `check_batches`.
        ValueError: see `check_batches`, or the network has several inputs.
    """
    check_choice("keep_float", keep_float, KeepFloat)
    batches = check_batches(calibration, _shape(model), _dtype(model), batch=_BATCH, images=images)
    with _quiet():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=kept_nodes(_nodes(model), keep_float)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX, disable_bias_correction=True
            ),
        )


def _shape(model: Any) -> list[int | None]:
    """Return the shape of a network's input; None for an axis of any length."""
    if len(model.inputs) != 1:
        raise ValueError(f"only networks of one input can be quantized, and this one has {len(model.inputs)}")
    return [axis.get_length() if axis.is_static else None for axis in model.inputs[0].get_partial_shape()]


def _dtype(model: Any) -> torch.dtype:
    found: torch.dtype = getattr(torch, model.inputs[0].get_element_type().to_dtype().name)
    return found


def _nodes(model: Any) -> list[Node]:
    """Return the nodes of a graph without constants."""
    found: dict[str, Node] = {}
    constant: set[str] = set()
    for one in model.get_ordered_ops():
        name, kind = one.get_friendly_name(), one.get_type_name()
        inputs = [value.get_source_output().get_node().get_friendly_name() for value in one.inputs()]
        if kind == "Constant" or (kind == "Convert" and constant.issuperset(inputs)):  # weights stored in float16
            constant.add(name)
        else:
            kind = einsum_kind(one.get_attributes()["equation"]) if kind == "Einsum" else kind
            found[name] = Node(name, kind, tuple(source for source in inputs if source not in constant))
    return [node for node in found.values() if node.kind not in ("Parameter", "Result")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's log and progress bars off standard output, which belongs to the results of a command."""
    with redirect_stdout(io.StringIO()):
        with optional_import("deploy", "8-bit networks of OpenVINO require nncf", ImportError):
            import nncf  # noqa: F401  it takes standard output for its log when it is imported
        log = logging.getLogger("nncf")
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)
