"""Freeze stages and batch norms of a detector's backbone."""

from typing import Any

from torch import nn

from senet.models.detection.spec import STAGES
from senet.nn.batch_norm_utils import batch_norms, freeze_batch_norm
from senet.nn.held_statistics import hold_statistics

__all__ = ["freeze_backbone"]


def freeze_backbone(model: Any) -> Any:
    """Freeze what the options `trainable_stages` and `freeze_bn` of a detector freeze, in place.

    Call it after SE was inserted and weights were loaded.

    Args:
        model: a detector of `detector_on`.

    Returns:
        The same model.
    """
    options, body = model.architecture["options"], model.backbone.body
    norms = {id(norm) for norm in batch_norms(body)}
    for module in _frozen_modules(body, model.backbone.stage_names, options.get("trainable_stages", STAGES)):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if id(module) in norms:
            hold_statistics(module)
    if options.get("freeze_bn", False):
        freeze_batch_norm(body)
    return model


def _frozen_modules(body: nn.Module, stage_names: list[str], trainable: int) -> list[nn.Module]:
    """Return the modules of a body up to the last map of the frozen stages, in the order of their registration."""
    frozen = len(stage_names) - trainable
    if trainable == STAGES or frozen <= 0:
        return []
    modules = list(body.named_modules())
    if frozen == len(stage_names):
        return [module for _, module in modules]
    last = stage_names[frozen - 1]
    inside = [index for index, (name, _) in enumerate(modules) if name == last or name.startswith(f"{last}.")]
    return [module for _, module in modules[: inside[-1] + 1]]
