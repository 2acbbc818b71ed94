"""Steps in float64 that several processes do as one does, see `test_distributed.py`."""

from typing import Any

import torch
from timm.layers import BatchNormAct2d

from senet.data import Loader, open_loader
from senet.evaluation.evaluate import evaluate_loader
from senet.training import Trainer
from senet.training.distributed.data_parallel import synchronized
from senet.training.distributed.processes import Processes
from tests.training.small import epoch_of, small_data, small_network, small_recipe

STEPS = 20
# Options of the recipe, and how many processes follow one exactly: not all do where batch norms have parts of the
# batch each, or dropout.
CASES: dict[str, dict[str, Any]] = {
    "sync_bn": {"sync_bn": True},
    "parts": {"sync_bn": True, "accumulate": 2},
    "uneven": {"sync_bn": True, "batch": 5},
    "balanced": {"sync_bn": True, "class_weights": "balanced", "label_smoothing": 0.1},
    "mixed": {"sync_bn": True, "mixup": 0.4, "cutmix": 0.5, "ema": 0.9},
    "frozen": {"train_only": "se"},
    "frozen at last": {"sync_bn": True, "freeze_bn_epochs": 7},
    "plain": {"sync_bn": True, "network": "plain"},
    "timm's batch norms": {"sync_bn": True, "network": "timm's"},
}
# Of each kind of difference one; the others are slow.
FAST = ("sync_bn", "mixed", "timm's batch norms")


def loader_of(recipe: Any, processes: Processes, augmented: bool = True) -> Loader:
    data = small_data([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 0])
    augmentation = recipe.augmentation if augmented else None
    return open_loader(
        data,
        recipe.preprocessing,
        augmentation,
        batch=recipe.batch,
        seed=3,
        rank=processes.rank,
        world_size=processes.world_size,
    )


def train(processes: Processes, **options: Any) -> dict[str, Any]:
    """Weights, counts and scores after some epochs of steps."""
    network = options.pop("network", "")
    recipe = small_recipe(**{"epochs": 20, "momentum": 0.9, "crop": "pad", "padding": 1, "flip": True} | options)
    model = small_network(se=not network)
    if network == "timm's":
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.BatchNorm2d):
                model.set_submodule(name, BatchNormAct2d(module.num_features, act_layer=torch.nn.SiLU, inplace=False))
    model = model.double()
    with synchronized(model, processes) if recipe.sync_bn and processes.is_distributed else torch.enable_grad():
        trainer = Trainer(model, recipe, loader_of(recipe, processes), processes=processes)
        counts = []
        for step in range(STEPS):
            if step % len(trainer.training) == 0:
                trainer.epochs.extend([epoch_of()] * bool(step))
                trainer.start_epoch()
                trainer.begin()
                batches = trainer.training.epoch(len(trainer.epochs))
            trainer.train_step(*next(batches))
            counts.append((trainer.state.images, trainer.state.counts["wrong"], trainer.state.loss))
        for shared in (model, trainer.evaluated):
            processes.broadcast_buffers(shared)
        scores = evaluate_loader(trainer.evaluated, loader_of(recipe, processes, False), total=processes.summed)
    return {"weights": trainer.evaluated.state_dict(), "counts": counts, "scores": vars(scores)}
