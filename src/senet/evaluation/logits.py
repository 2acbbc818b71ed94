"""Compute the logits of images, and check that they are finite."""

import torch
from torch import Tensor, nn

from senet.data import Preprocessing
from senet.utils.errors import NonFiniteError
from senet.utils.memory_errors import suggesting_batch

__all__ = ["check_finite", "first_non_finite", "input_like", "logits_on_device", "network_logits"]


def network_logits(model: nn.Module, preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    """Compute logits in float32 on the CPU, for a network of any device and dtype.

    Args:
        model: the network.
        preprocessing: normalizes the pixels.
        pixels: (N, C, H, W), 0 to 255.

    Returns:
        (N, num_classes).

    Raises:
        ValueError: the network returns anything else than a row of logits for each image.
    """
    return logits_on_device(model, preprocessing, pixels).cpu()


def logits_on_device(model: nn.Module, preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    """Compute logits like `network_logits`, but leave those of a CUDA network on its device, without waiting for it.

    Args:
        model: the network.
        preprocessing: normalizes the pixels.
        pixels: (N, C, H, W), 0 to 255.

    Returns:
        (N, num_classes), float32.

    Raises:
        ValueError: see `network_logits`.
    """
    like = input_like(model)
    with suggesting_batch(len(pixels)):
        images = preprocessing.normalize(pixels.to(like.device)).to(like.dtype)
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(pixels):
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{type(model).__name__} returns {found} for {len(pixels)} images, expected logits (N, num_classes); give "
            f"a network, or a wrapper of one, that returns its logits"
        )
    # The loss needs float64, which not every device has.
    return logits.float() if logits.is_cuda else logits.float().cpu()


def input_like(model: nn.Module) -> Tensor:
    """Return a tensor of the device and dtype of a network's inputs: its first parameter, or a float32 CPU tensor.

    An exported network has no parameters.
    """
    return next(model.parameters(), torch.empty(0))


def first_non_finite(values: Tensor) -> int | None:
    """Return the first row of (N, ...) that has a NaN or infinite value; None if all rows are finite."""
    bad = ~values.flatten(1).isfinite().all(1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def check_finite(logits: Tensor, name: str, model: nn.Module) -> None:
    """Check the logits of one image.

    Args:
        logits: (K,), of the image.
        name: name of the image, for the message.
        model: the network; the message names its first tensor that is not finite.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    if bool(logits.isfinite().all()):
        return
    value = float(logits[~logits.isfinite()][0])
    raise NonFiniteError(f"the logits of {name} are not finite ({value}): {_remedy(model)}")


def _remedy(model: nn.Module) -> str:
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            value = float(tensor[~tensor.isfinite()].flatten()[0])
            return f"the network's tensor {name!r} holds {value}; load other weights"
    return (
        "all weights are finite; check mean and std (--mean, --std), and evaluate a network in half precision as "
        "float32 (model.float())"
    )
