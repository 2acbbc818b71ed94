"""Top-1 and top-5 of a network on labelled images, and predictions for images.

Imports `senet.data` and below. Gates, training and the command line use it.
"""

from senet.evaluation.evaluate import Evaluation, Prediction, evaluate, predict

__all__ = [
    "Evaluation",
    "Prediction",
    "evaluate",
    "predict",
]
