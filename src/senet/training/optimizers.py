"""The optimizer and the learning rate that a recipe asks for."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from senet.nn.insertions import insertions
from senet.recipes.recipe import Recipe

__all__ = [
    "is_capturable",
    "load_state",
    "lr_factor",
    "make_optimizer",
    "plateau_factor",
    "portable_state",
    "select_parameters",
    "set_lr",
]

# What a group has of the device that it was made for.
_OF_DEVICE = ("lr", "fused", "foreach", "capturable")


def lr_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, as a share of the recipe's; "plateau" falls by `plateau_factor` beside it.

    Args:
        recipe: with schedule, milestones, warmup and epochs, see `Recipe`.
        step: from 0, over the whole run.
        steps_per_epoch: steps of an epoch.
    """
    warmup, total = recipe.warmup * steps_per_epoch, recipe.epochs * steps_per_epoch
    if recipe.schedule in ("one_cycle", "cosine"):
        # Never quite 0: the first step and the last are of use, too.
        rise = (step + 1) / (warmup + 1)
        if recipe.schedule == "one_cycle":
            return min(rise, (total - step) / (total - warmup))
        return rise if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    if step < warmup:
        return 0.1
    milestones = recipe.milestones if recipe.schedule == "step" else []
    return float(recipe.drop_factor ** sum(step >= drop * steps_per_epoch for drop in milestones))


def plateau_factor(recipe: Recipe, errors: Sequence[float]) -> float:
    """How far "plateau" has lowered the learning rate after epochs of the given validation errors (PyTorch's rule)."""
    if recipe.schedule != "plateau":
        return 1.0
    like = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    plateau = ReduceLROnPlateau(like, factor=recipe.drop_factor, patience=recipe.patience, threshold=0.0, eps=0.0)
    for error in errors:
        plateau.step(error)
    return float(like.param_groups[0]["lr"])


def set_lr(optimizer: torch.optim.Optimizer, recipe: Recipe, factor: float, batch: int) -> float:
    """Give an optimizer a share of the recipe's learning rate, and each group its multiple of that.

    Args:
        optimizer: of `make_optimizer`.
        recipe: whose learning rate it is.
        factor: the share.
        batch: images of a step, for the linear rule: the recipe's, or as many as there are.

    Returns:
        The learning rate of the groups that are not SE's.
    """
    lr = recipe.lr * (batch / recipe.base_batch_size if recipe.base_batch_size else 1.0) * factor
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["lr_factor"])
        else:
            group["lr"] = lr * group["lr_factor"]
    return lr


def make_optimizer(model: nn.Module, recipe: Recipe, *, capturable: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimizer over what it trains of a network, in groups with and without weight decay, SE's apart.

    Args:
        model: the network.
        recipe: see `Recipe`.
        capturable: keep learning rates and counts of steps on the device, where the optimizer can (see
            `is_capturable`): its steps then read nothing on the host, and can be captured in a CUDA graph.

    Raises:
        ValueError: `train_only` is "se" and the network has none; an optimizer of timm's that cannot be had here.
    """
    trained = {id(parameter) for parameter in select_parameters(model, recipe)}
    se = {id(parameter) for parameter in _se_parameters(model)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if id(parameter) in trained:
            # Batch norms, and the biases of layers and gates, have one axis.
            decayed = recipe.decay_all or parameter.ndim > 1
            groups.setdefault((decayed, id(parameter) in se), []).append(parameter)
    options = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "lr_factor": recipe.se_lr_factor if is_se else 1.0,
        }
        for (decayed, is_se), parameters in groups.items()
    ]
    if recipe.optimizer == "sgd":
        # One pass over weights, gradients and momenta instead of one for each term: five times as fast on a CPU.
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
        sgd = torch.optim.SGD(options, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)
        return _with_device_lr(sgd) if capturable and fused else sgd
    from timm.optim import create_optimizer_v2

    def make(**more: bool) -> torch.optim.Optimizer:
        groups = [dict(group) for group in options]  # which the optimizer completes with its defaults
        made: torch.optim.Optimizer = create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum, filter_bias_and_bn=False, **more
        )
        return made

    remedy = "take another one of timm's, or sgd"
    try:
        made = make()
        more = _device_options(made) if capturable else {}
        if more:
            made = _with_device_lr(make(**more))
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:  # it needs CUDA, or a package
        raise ValueError(f"the optimizer {recipe.optimizer!r} cannot be had here ({error}): {remedy}") from error
    if getattr(made, "is_second_order", False):
        raise ValueError(f"the optimizer {recipe.optimizer!r} needs second derivatives, which no step has: {remedy}")
    return made


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has its learning rates on the device: it was made so, and is one of PyTorch's that can."""
    return all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()` with learning rates as numbers. Waits for the device."""
    state = optimizer.state_dict()
    return state | {"param_groups": [group | {"lr": float(group["lr"])} for group in state["param_groups"]]}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load `portable_state` of an optimizer for this device or another one; raises as its `load_state_dict` does."""
    saved, own = state["param_groups"], optimizer.state_dict()["param_groups"]
    if len(saved) == len(own):
        # PyTorch looks at them to decide where counts of steps are kept.
        kept = [{key: group[key] for key in _OF_DEVICE if key in group} for group in own]
        state = state | {"param_groups": [group | mine for group, mine in zip(saved, kept, strict=True)]}
    optimizer.load_state_dict(state)


def _device_options(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """With what an optimizer keeps learning rates and counts on the device; nothing where it cannot.

    Those of PyTorch alone: timm's own read the learning rate on the host in one place or another.
    """
    devices = {parameter.device.type for group in optimizer.param_groups for parameter in group["params"]}
    if type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW) and devices <= {"cpu", "cuda"}:
        # "capturable" changes nothing in a fused step; but without it Adam refuses to be captured.
        return {"fused": True, "capturable": True} if "capturable" in optimizer.defaults else {"fused": True}
    if type(optimizer).__module__.startswith("torch.optim.") and "capturable" in optimizer.defaults:
        return {"capturable": True} if devices == {"cuda"} else {}
    return {}


def _with_device_lr(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make every group's learning rate a tensor (), which `set_lr` fills.

    CUDA's fused kernels read 32 bits; those of the CPU take a Python number's 64.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        group["lr"] = torch.tensor(float(group["lr"]), dtype=dtype, device=device)
    return optimizer


def select_parameters(model: nn.Module, recipe: Recipe) -> list[nn.Parameter]:
    """The parameters that a recipe trains: all that are not frozen, or of these SE's.

    Raises:
        ValueError: `train_only` is "se" and the network has none.
    """
    if recipe.train_only == "all":
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = [parameter for parameter in _se_parameters(model) if parameter.requires_grad]
    if not chosen:
        raise ValueError("train_only is 'se', and the network has no SE to train; insert some, or train all of it")
    return chosen


def _se_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for insertion in insertions(model) for parameter in insertion.se.parameters()]
