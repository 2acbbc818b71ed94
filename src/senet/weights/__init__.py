"""Weights from elsewhere: read without running code of theirs, told by their names, loaded whole or not at all."""

from senet.weights.blocks import gate_options
from senet.weights.checkpoint import Checkpoint, open_checkpoint
from senet.weights.export import export_weights, write_weights
from senet.weights.loading import fit, load_checkpoint, load_weights
from senet.weights.report import ModuleReport, WeightsReport
from senet.weights.sources import HUB_FILES, hub_file, is_repository

__all__ = [
    "HUB_FILES",
    "Checkpoint",
    "ModuleReport",
    "WeightsReport",
    "export_weights",
    "fit",
    "gate_options",
    "hub_file",
    "is_repository",
    "load_checkpoint",
    "load_weights",
    "open_checkpoint",
    "write_weights",
]
