"""The device that a recipe trains on: its choice, its seed, and how often the host waits for it."""

import torch

from senet.recipes.recipe import Recipe

__all__ = ["pick_device", "read_interval", "seed_device"]


def pick_device(recipe: Recipe) -> torch.device:
    """Return the device that a recipe trains on; "auto" is the first of cuda, mps and cpu that is available.

    Raises:
        ValueError: the device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = recipe.device if recipe.device != "auto" else next(name for name, found in available.items() if found)
    if not available[name]:
        found = ", ".join(name for name, is_available in available.items() if is_available)
        raise ValueError(f"device {name!r} is not available to PyTorch: use device=auto, or one of {found}")
    return torch.device(name)


def read_interval(device: torch.device) -> int:
    """Return how many steps' results are read at once: reading synchronizes with a GPU, which drains its queue."""
    return 32 if device.type == "cuda" else 1


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and of a device; `torch.manual_seed` seeds every kind of device, in 0.1 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda" and torch.cuda.default_generators:  # none for tensors without data
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
