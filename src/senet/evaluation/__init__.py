"""Evaluate classifiers: top-1 and top-5 error on labelled images, and predictions for single images.

Imports `senet.data` and below. Gates, training and the command line use it.
"""

from senet.evaluation.classification import ClassResult, Evaluation
from senet.evaluation.evaluate import evaluate, evaluate_loader
from senet.evaluation.inputs import InputOptions, loader_for
from senet.evaluation.logits import network_logits
from senet.evaluation.predict import Prediction, predict

__all__ = [
    "ClassResult",
    "Evaluation",
    "InputOptions",
    "Prediction",
    "evaluate",
    "evaluate_loader",
    "loader_for",
    "network_logits",
    "predict",
]
