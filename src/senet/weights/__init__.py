"""Weights of other libraries: read safely, identified by their tensor names, loaded completely or not at all.

Imports `senet.insertion`, `senet.nn` and `senet.utils`; `senet.models` and the layers above import it. A new format is
a row in `formats.py`.
"""

from senet.weights.blocks import gate_options
from senet.weights.checkpoint import Checkpoint, open_checkpoint
from senet.weights.export import export_weights, write_weights
from senet.weights.loading import check_fit, load_checkpoint, load_weights
from senet.weights.report import ModuleReport, WeightsReport
from senet.weights.sources import HUB_FILES, hub_file, is_repository
from senet.weights.timm_folder import write_timm_folder

__all__ = [
    "HUB_FILES",
    "Checkpoint",
    "ModuleReport",
    "WeightsReport",
    "check_fit",
    "export_weights",
    "gate_options",
    "hub_file",
    "is_repository",
    "load_checkpoint",
    "load_weights",
    "open_checkpoint",
    "write_timm_folder",
    "write_weights",
]
