"""Classification: one class for each image. Cross entropy, mixup and CutMix, top-1 and top-5 error.

Imports `senet.evaluation` and below, and the interfaces of `senet.tasks`. `senet.tasks.registry` uses it.
"""

from senet.tasks.classification.task import Classification

__all__ = ["Classification"]
