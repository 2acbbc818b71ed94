"""Train a network by a recipe: the trainer, the loop over epochs, checkpoints, resuming, and several processes.

Imports `senet.runs` and below. Only `senet.study`, `senet.hub` and the command line import it.
"""

from senet.training.loop import train
from senet.training.lr_finder import LRCurve, find_lr
from senet.training.optimizers import lr_factor, make_optimizer
from senet.training.runner import train_epoch
from senet.training.trainer import Trainer

__all__ = [
    "LRCurve",
    "Trainer",
    "find_lr",
    "lr_factor",
    "make_optimizer",
    "train",
    "train_epoch",
]
