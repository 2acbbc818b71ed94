"""Evaluate classifiers: top-1 and top-5 error on labelled images, and predictions for single images.

Imports `senet.data` and below. Gates, training and the command line use it.
"""

from senet.evaluation.classification import ClassResult, Evaluation
from senet.evaluation.evaluate import evaluate_loader, measure
from senet.evaluation.inputs import InputOptions, loader_for
from senet.evaluation.logits import network_logits
from senet.evaluation.predict import Prediction
from senet.evaluation.prediction_file import write_predictions

__all__ = [
    "ClassResult",
    "Evaluation",
    "InputOptions",
    "Prediction",
    "evaluate_loader",
    "loader_for",
    "measure",
    "network_logits",
    "write_predictions",
]
