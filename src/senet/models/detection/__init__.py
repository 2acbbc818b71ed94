"""Detectors: torchvision's Faster R-CNN and RetinaNet on the feature maps of a network.

Imports the modules of `senet.models` for classifiers, and `senet.nn`; `senet.models.create` imports it.
"""

from senet.models.detection.backbone import Backbone
from senet.models.detection.build import apply_preprocessing
from senet.models.detection.create import build_plain_detector, create_detector
from senet.models.detection.freezing import freeze_backbone
from senet.models.detection.spec import DetectorSpec

__all__ = [
    "Backbone",
    "DetectorSpec",
    "apply_preprocessing",
    "build_plain_detector",
    "create_detector",
    "freeze_backbone",
]
