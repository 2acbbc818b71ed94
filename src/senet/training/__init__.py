"""Train a network by a recipe: the trainer, its loop over epochs, checkpoints and resuming.

Imports `senet.runs`, `senet.recipes` and below. Studies and the command line use it.
"""

from senet.training.loop import train
from senet.training.optimizers import lr_factor, make_optimizer
from senet.training.runner import train_epoch
from senet.training.trainer import Trainer

__all__ = [
    "Trainer",
    "lr_factor",
    "make_optimizer",
    "train",
    "train_epoch",
]
