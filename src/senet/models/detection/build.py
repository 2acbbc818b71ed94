"""Build torchvision's detectors on a backbone, and set their preprocessing."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from senet.models.detection.backbone import Backbone, stages_of
from senet.models.detection.spec import DetectorSpec
from senet.models.detector_names import split_detector

__all__ = ["apply_preprocessing", "detector_on"]

# Width and height of anchors: torchvision's three.
_RATIOS = (0.5, 1.0, 2.0)


def detector_on(backbone: Any, name: str, spec: DetectorSpec, num_classes: int) -> Any:
    """Build a detector on a classifier, whose head is dropped; nothing is frozen yet, see `freeze_backbone`.

    Args:
        backbone: a network of `create_model`, plain or with SE. It becomes part of the detector.
        name: of the plain detector.
        spec: the options of the detector.
        num_classes: K, without the background.

    Returns:
        torchvision's `FasterRCNN` or `RetinaNet`, with `architecture`, `num_classes`, `in_channels` and
        `pretrained_cfg`, as all networks of `create_model`.

    Raises:
        ValueError: the backbone has no feature maps, or the number of anchor sizes is not that of the maps.
    """
    kind = split_detector(name)[0]
    # torchvision's class 0 is the background, in RetinaNet a class that no box has.
    model: Any = (_faster_rcnn if kind == "faster_rcnn" else _retinanet)(backbone, spec, num_classes + 1)
    model.architecture = {"name": name, "options": backbone.architecture["options"] | spec.changed()}
    model.num_classes, model.in_channels = num_classes, backbone.in_channels
    model.pretrained_cfg = backbone.pretrained_cfg | {
        "task": "detection",
        "architecture": name,
        "num_classes": num_classes,
        "input_size": (backbone.in_channels, spec.min_size, spec.min_size),
        "crop_pct": 1.0,  # images are not cropped
        "label_names": None,
        "min_size": spec.min_size,
        "max_size": spec.max_size,
        "first_conv": None,
        "classifier": None,
    }
    model.pretrained_cfg.pop("resize", None)
    apply_preprocessing(model)
    return model


def apply_preprocessing(model: Any) -> None:
    """Set the mean, the std and the sizes with which a detector normalizes and resizes images to its `pretrained_cfg`.

    Args:
        model: a detector, changed in place.

    Raises:
        TypeError, ValueError: a size is not a whole number, or out of range.
    """
    from senet.models.detection.transform import DetectorTransform

    cfg = model.pretrained_cfg
    sizes = DetectorSpec(min_size=cfg["min_size"], max_size=cfg["max_size"])
    transform = DetectorTransform(sizes.min_size, sizes.max_size, list(cfg["mean"]), list(cfg["std"]))
    model.transform = transform.train(model.training)


def _faster_rcnn(network: nn.Module, spec: DetectorSpec, outputs: int) -> nn.Module:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    backbone = _backbone(network, 4, spec, LastLevelMaxPool())
    strides = [*backbone.strides, backbone.strides[-1] * 2]
    pool = MultiScaleRoIAlign([str(index) for index in range(len(backbone.strides))], output_size=7, sampling_ratio=2)
    return FasterRCNN(  # type: ignore[no-any-return]
        backbone,
        rpn_anchor_generator=_anchors([(size,) for size in _sizes(spec, strides, 8)]),
        box_roi_pool=pool,
        box_head=TwoMLPHead(spec.fpn_channels * 7**2, spec.box_channels),
        box_predictor=FastRCNNPredictor(spec.box_channels, outputs),
    )


def _retinanet(network: nn.Module, spec: DetectorSpec, outputs: int) -> nn.Module:
    from torchvision.models.detection import RetinaNet
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    backbone = _backbone(network, 3, spec, LastLevelP6P7(spec.fpn_channels, spec.fpn_channels))
    strides = [*backbone.strides, *(backbone.strides[-1] * factor for factor in (2, 4))]
    sizes = [(size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in _sizes(spec, strides, 4)]
    return RetinaNet(  # type: ignore[no-any-return]
        backbone, outputs, anchor_generator=_anchors(sizes)
    )


def _backbone(network: Any, count: int, spec: DetectorSpec, extra: Any) -> Backbone:
    stages = stages_of(network, network.architecture["name"])
    return Backbone(network, stages, count, spec.fpn_channels, extra)


def _sizes(spec: DetectorSpec, strides: list[int], factor: int) -> tuple[int, ...]:
    """Return the anchor size of each map.

    Raises:
        ValueError: the option has another number of sizes than the pyramid has maps.
    """
    if spec.anchor_sizes is None:
        return tuple(factor * stride for stride in strides)
    if len(spec.anchor_sizes) != len(strides):
        raise ValueError(
            f"anchor_sizes must have a size for each of the {len(strides)} maps, of the strides "
            f"{', '.join(map(str, strides))}, got {list(spec.anchor_sizes)}"
        )
    return spec.anchor_sizes


def _anchors(sizes: Sequence[tuple[int, ...]]) -> Any:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(tuple(sizes), (_RATIOS,) * len(sizes))
