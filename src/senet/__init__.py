"""Squeeze-and-Excitation for PyTorch: build SE networks, or insert SE into the network that you already have."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from senet.version import __version__

if TYPE_CHECKING:
    from senet.batch_norm import SEBatchNorm
    from senet.batch_norm_tools import convert_sync_batchnorm, freeze_batch_norm, update_bn
    from senet.benchmark import Bench, bench
    from senet.block import SqueezeExcitation
    from senet.costing import Cost, cost
    from senet.data import ImageData, open_data
    from senet.errors import (
        DataError,
        DataWarning,
        GatesError,
        ModelFileError,
        NonFiniteError,
        SenetError,
        TrainingError,
    )
    from senet.evaluation import Evaluation, Prediction, evaluate, predict
    from senet.fusion import set_fused
    from senet.gates import Gates, fold_gates, load_gates, record_gates
    from senet.hub import push_to_hub
    from senet.insertion import insert, remove
    from senet.model_file import load, save
    from senet.models import create_model, list_models
    from senet.se_modules import register_se
    from senet.sites import Site, find_sites
    from senet.training import Recipe, list_recipes, load_recipe, train
    from senet.weights import WeightsReport, load_weights

__all__ = [
    "Bench",
    "Cost",
    "DataError",
    "DataWarning",
    "Evaluation",
    "Gates",
    "GatesError",
    "ImageData",
    "ModelFileError",
    "NonFiniteError",
    "Prediction",
    "Recipe",
    "SEBatchNorm",
    "SenetError",
    "Site",
    "SqueezeExcitation",
    "TrainingError",
    "WeightsReport",
    "__version__",
    "bench",
    "convert_sync_batchnorm",
    "cost",
    "create_model",
    "evaluate",
    "find_sites",
    "fold_gates",
    "freeze_batch_norm",
    "insert",
    "list_models",
    "list_recipes",
    "load",
    "load_gates",
    "load_recipe",
    "load_weights",
    "open_data",
    "predict",
    "push_to_hub",
    "record_gates",
    "register_se",
    "remove",
    "save",
    "set_fused",
    "train",
    "update_bn",
]

# Imported when first used: neither `import senet` nor `senet --help` is to wait for what it does not need.
_HOMES = {
    "senet.batch_norm": ("SEBatchNorm",),
    "senet.batch_norm_tools": ("convert_sync_batchnorm", "freeze_batch_norm", "update_bn"),
    "senet.benchmark": ("Bench", "bench"),
    "senet.block": ("SqueezeExcitation",),
    "senet.costing": ("Cost", "cost"),
    "senet.data": ("ImageData", "open_data"),
    "senet.errors": (
        *("DataError", "DataWarning", "GatesError", "ModelFileError", "NonFiniteError", "SenetError"),
        "TrainingError",
    ),
    "senet.evaluation": ("Evaluation", "Prediction", "evaluate", "predict"),
    "senet.fusion": ("set_fused",),
    "senet.gates": ("Gates", "fold_gates", "load_gates", "record_gates"),
    "senet.hub": ("push_to_hub",),
    "senet.insertion": ("insert", "remove"),
    "senet.model_file": ("load", "save"),
    "senet.models": ("create_model", "list_models"),
    "senet.se_modules": ("register_se",),
    "senet.sites": ("Site", "find_sites"),
    "senet.training": ("Recipe", "list_recipes", "load_recipe", "train"),
    "senet.weights": ("WeightsReport", "load_weights"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'senet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
