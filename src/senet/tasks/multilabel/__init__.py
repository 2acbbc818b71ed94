"""Multi-label: any number of labels for each image. Binary cross entropy or asymmetric loss, mAP and F1, thresholds.

Imports `senet.evaluation` and below, and the interfaces of `senet.tasks`. `senet.tasks.registry` uses it.
"""

from senet.tasks.multilabel.metrics import LabelResult, MultiLabelEvaluation
from senet.tasks.multilabel.task import MultiLabel

__all__ = ["LabelResult", "MultiLabel", "MultiLabelEvaluation"]
