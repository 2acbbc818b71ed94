"""The optimizer and the learning-rate schedule of a recipe."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from senet.insertion import param_groups
from senet.nn.inserted_se import se_parameters
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

# The options of a parameter group that depend on the device.
_OF_DEVICE = ("lr", "fused", "foreach", "capturable")


def lr_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step relative to the recipe's; "plateau" has `plateau_factor` as a second factor.

    Args:
        recipe: with schedule, milestones, warmup, and epochs or iterations, see `Recipe`.
        step: from 0, over the whole run.
        steps_per_epoch: steps of an epoch.
    """
    unit = 1 if recipe.iterations else steps_per_epoch  # steps, of one of which warmup and milestones are numbers
    warmup, total = recipe.warmup * unit, recipe.steps(steps_per_epoch)
    if recipe.schedule in ("one_cycle", "cosine"):
        # Above 0 in the first and the last step, so that both train.
        rise = (step + 1) / (warmup + 1)
        if recipe.schedule == "one_cycle":
            return min(rise, (total - step) / (total - warmup))
        return rise if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    if step < warmup:
        return 0.1
    milestones = recipe.milestones if recipe.schedule == "step" else []
    return float(recipe.drop_factor ** sum(step >= drop * unit for drop in milestones))


def plateau_factor(recipe: Recipe, errors: Sequence[float]) -> float:
    """Return the factor of "plateau" after epochs of the given validation errors, by PyTorch's `ReduceLROnPlateau`."""
    if recipe.schedule != "plateau":
        return 1.0
    like = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    plateau = ReduceLROnPlateau(like, factor=recipe.drop_factor, patience=recipe.patience, threshold=0.0, eps=0.0)
    for error in errors:
        plateau.step(error)
    return float(like.param_groups[0]["lr"])


def set_lr(optimizer: torch.optim.Optimizer, recipe: Recipe, factor: float, batch: int) -> float:
    """Set the learning rate of an optimizer's groups.

    Args:
        optimizer: of `make_optimizer`.
        recipe: with `lr` and `base_batch_size`.
        factor: of the recipe's learning rate.
        batch: images of a step, for the linear rule.

    Returns:
        The learning rate of the groups without SE; SE's is multiplied by `se_lr_factor`.
    """
    lr = recipe.lr * (batch / recipe.base_batch_size if recipe.base_batch_size else 1.0) * factor
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["lr_factor"])
        else:
            group["lr"] = lr * group["lr_factor"]
    return lr


def make_optimizer(model: nn.Module, recipe: Recipe, *, capturable: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of the parameters that it trains, grouped by weight decay and by SE.

    Args:
        model: the network.
        recipe: see `Recipe`.
        capturable: keep learning rates and numbers of steps on the device if the optimizer can (see `is_capturable`):
            its steps then read nothing on the host, and a CUDA graph can record them.

    Raises:
        ValueError: `train_only` is "se" and the network has no SE; an optimizer of timm's that is not available.
    """
    options = _groups(model, recipe)
    if recipe.optimizer == "sgd":
        # A single pass over weights, gradients and momenta: five times as fast on a CPU.
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
        sgd = torch.optim.SGD(options, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)
        return _with_device_lr(sgd) if capturable and fused else sgd
    from timm.optim import create_optimizer_v2

    def make(**more: bool) -> torch.optim.Optimizer:
        groups = [dict(group) for group in options]  # the optimizer adds its defaults
        made: torch.optim.Optimizer = create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum, filter_bias_and_bn=False, **more
        )
        return made

    remedy = "use another one of timm's, or sgd"
    try:
        made = make()
        more = _device_options(made) if capturable else {}
        if more:
            made = _with_device_lr(make(**more))
    except (
        AssertionError,
        ImportError,
        RuntimeError,
        ValueError,
    ) as error:  # such as without CUDA, or without a package
        raise ValueError(f"optimizer {recipe.optimizer!r} is not available ({error}): {remedy}") from error
    if getattr(made, "is_second_order", False):
        raise ValueError(f"optimizer {recipe.optimizer!r} needs second derivatives, which are not computed: {remedy}")
    return made


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the groups of `param_groups` that a recipe trains, with learning rates as factors of the recipe's."""
    trained = {id(parameter) for parameter in select_parameters(model, recipe)}
    has_se = any(parameter.requires_grad for parameter in se_parameters(model))
    groups = param_groups(
        model,
        lr=1.0,
        se_lr=recipe.se_lr_factor if has_se else None,  # a recipe also trains plain networks
        weight_decay=recipe.weight_decay,
        decay_all=recipe.decay_all,
    )
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in trained]
        group["lr_factor"] = group.pop("lr")
    return [group for group in groups if group["params"]]


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer has its learning rates on the device, so that a CUDA graph can record its steps."""
    return all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return `optimizer.state_dict()` with learning rates as numbers; waits for the device."""
    state = optimizer.state_dict()
    return state | {"param_groups": [group | {"lr": float(group["lr"])} for group in state["param_groups"]]}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the `portable_state` of an optimizer, from any device; raises the errors of `load_state_dict`."""
    saved, own = state["param_groups"], optimizer.state_dict()["param_groups"]
    if len(saved) == len(own):
        # PyTorch reads them to decide on which device numbers of steps are kept.
        kept = [{key: group[key] for key in _OF_DEVICE if key in group} for group in own]
        state = state | {"param_groups": [group | mine for group, mine in zip(saved, kept, strict=True)]}
    optimizer.load_state_dict(state)


def _device_options(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Return the options with which an optimizer keeps its state on the device; empty if there are none.

    Only PyTorch's optimizers have them: timm's own read the learning rate on the host.
    """
    devices = {parameter.device.type for group in optimizer.param_groups for parameter in group["params"]}
    if type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW) and devices <= {"cpu", "cuda"}:
        # "capturable" does not change a fused step, but Adam requires it for a capture.
        return {"fused": True, "capturable": True} if "capturable" in optimizer.defaults else {"fused": True}
    if type(optimizer).__module__.startswith("torch.optim.") and "capturable" in optimizer.defaults:
        return {"capturable": True} if devices == {"cuda"} else {}
    return {}


def _with_device_lr(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make every group's learning rate a tensor (), which `set_lr` fills.

    CUDA's fused kernels read 32 bits; the CPU's kernels use the 64 bits of a Python number.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        group["lr"] = torch.tensor(float(group["lr"]), dtype=dtype, device=device)
    return optimizer


def select_parameters(model: nn.Module, recipe: Recipe) -> list[nn.Parameter]:
    """Return the parameters that a recipe trains: all that require gradients, or those of SE among them.

    Raises:
        ValueError: `train_only` is "se" and the network has no SE that senet inserted.
    """
    if recipe.train_only == "all":
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen = [parameter for parameter in se_parameters(model) if parameter.requires_grad]
    if not chosen:
        raise ValueError(
            "train_only is 'se', and the network has no SE that senet inserted; insert some, or train all of it"
        )
    return chosen
