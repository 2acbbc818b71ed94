"""Grad-CAM at the blocks of a recording: where in an image the output of a block supports the image's class.

Selvaraju et al. 2017, arXiv 1610.02391, computed by captum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from senet.data import Loader
from senet.gates.recording.batches import numbered_batches
from senet.gates.recording.record import Gates
from senet.gates.recording.statistics import Counts
from senet.gates.report.selection import example_classes
from senet.tasks import task_of
from senet.utils.extras import optional_import
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress

__all__ = ["GradCam", "compute_grad_cam", "import_grad_cam"]

_LARGEST = 28  # positions of a map on the page


@dataclass(frozen=True)
class GradCam:
    """Heat maps of K images.

    Attributes:
        places: (K,), places of the images in the recording's sample.
        maps: by name of the SE module (K, h, w), 0 to 1 relative to the highest value of the image. Blocks without a
            map of two dimensions have none.
    """

    places: Counts
    maps: dict[str, NDArray[np.float32]]


def import_grad_cam() -> Any:
    """Import captum's Grad-CAM.

    Raises:
        ValueError: captum is not installed, or cannot be imported.
    """
    with optional_import("gradcam", "Grad-CAM needs captum"):
        from captum.attr import LayerGradCam
    return LayerGradCam


def compute_grad_cam(
    model: nn.Module,
    loader: Loader,
    gates: Gates,
    *,
    classes: Sequence[str] | None = None,
    per_class: int = 3,
    progress: Progress = no_progress,
) -> GradCam:
    """Compute the heat maps of the class of a few sampled images at the output of each SE block.

    Args:
        model: a classifier; its gates were recorded.
        loader: of the data of the recording.
        gates: the recording, with sampled images.
        classes: names of the classes; None for those of figure 6.
        per_class: images of each class.
        progress: displays the blocks.

    Raises:
        ValueError: captum is missing, the network is no classifier, or the recording has no sampled images of the
            classes.
    """
    method = import_grad_cam()
    task = task_of(model)
    if not task.one_class:
        raise ValueError(f"Grad-CAM explains the class of an image, and the network was trained for {task.name}")
    labels = gates.sample.labels
    places = np.array(
        [int(p) for c in example_classes(gates, classes) for p in np.flatnonzero(labels == c)[:per_class]], np.int64
    )
    with evaluating(model):
        images, found = _images(model, loader, gates.sample.indices[places])
        if images is None:
            raise ValueError("the recording has no sampled images of these classes; raise --sample")
        places = places[found]
        targets = torch.as_tensor(labels[places], device=images.device)
        layers = _layers(model, {block.name: block.channels for block in gates.blocks}, images[:1])
        maps = {}
        names = list(layers)
        for index in progress(range(len(names)), len(names), "Grad-CAM"):
            name = names[index]
            with torch.enable_grad():
                heat = method(model, layers[name]).attribute(images, targets, relu_attributions=True)
            maps[name] = _relative(heat.detach())
    return GradCam(places, maps)


def _images(model: nn.Module, loader: Loader, indices: Counts) -> tuple[Tensor | None, list[int]]:
    """Read images as the network takes them, and return which of the indices they are."""
    images: dict[int, Tensor] = {}
    count = len(loader)
    for number in sorted({int(index) // loader.batch for index in indices}):
        for batch in numbered_batches(loader, model, start=number, part=(number, count)):
            wanted = np.flatnonzero(np.isin(batch.indices, indices))
            images |= {int(batch.indices[place]): batch.images[place] for place in wanted}
    found = [place for place, index in enumerate(indices) if int(index) in images]
    return (torch.stack([images[int(indices[place])] for place in found]) if found else None), found


def _layers(model: nn.Module, channels: dict[str, int], image: Tensor) -> dict[str, nn.Module]:
    """Return for each block the module whose output is the recalibrated map: the SE module, or the one around it."""
    known = dict(model.named_modules())
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return hook

    candidates = {name: (name, name.rpartition(".")[0]) for name in channels}
    handles = [known[one].register_forward_hook(keep(one)) for pair in candidates.values() for one in pair if one]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, pair in candidates.items():
        module = next((one for one in pair if _is_map(shapes.get(one), channels[name])), None)
        if module is not None:
            found[name] = known[module]
    return found


def _is_map(shape: tuple[int, ...] | None, channels: int) -> bool:
    """Return whether a shape is that of a map of two dimensions with more than one position."""
    return shape is not None and len(shape) == 4 and shape[1] == channels and shape[2] * shape[3] > 1


def _relative(heat: Tensor) -> NDArray[np.float32]:
    """(K, 1, h, w) -> (K, h, w), not larger than a page needs, relative to the highest value of each image."""
    size = min(heat.shape[2], _LARGEST), min(heat.shape[3], _LARGEST)
    small = nn.functional.adaptive_avg_pool2d(heat.float(), size)[:, 0]
    highest = small.amax((1, 2), keepdim=True)
    return torch.where(highest > 0, small / highest.clamp(min=1e-30), 0).nan_to_num(0).cpu().numpy()
