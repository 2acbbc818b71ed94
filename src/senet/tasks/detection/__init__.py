"""Detection: boxes of any number of objects in each image. torchvision's losses, COCO's average precision.

Imports `senet.evaluation` and below, and the interfaces of `senet.tasks`. `senet.tasks.registry` uses it.
"""

from senet.tasks.detection.average_precision import BoxResult, DetectionEvaluation
from senet.tasks.detection.predict import BoxPrediction
from senet.tasks.detection.task import Detection

__all__ = ["BoxPrediction", "BoxResult", "Detection", "DetectionEvaluation"]
