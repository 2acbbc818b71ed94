"""What is read off logits: the rank of a label, and whether there is anything to read."""

import torch
from torch import Tensor, nn

from senet.utils.errors import NonFiniteError

__all__ = ["check_finite", "first_non_finite", "label_ranks"]


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes that come before each label.

    A tie goes to the class with the lower index, as in `torch.argmax`.

    Args:
        logits: (N, K), finite.
        labels: (N,), class indices.

    Returns:
        (N,), 0 where the label has the largest logit. An image is a top-k error if this is k or more.
    """
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & lower)).sum(1)


def first_non_finite(values: Tensor) -> int | None:
    """The first row of (N, ...) with a value that is NaN or infinite; None if there is none."""
    bad = ~values.flatten(1).isfinite().all(1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def check_finite(logits: Tensor, name: str, model: nn.Module) -> None:
    """Check the logits of one image.

    Args:
        logits: (K,), of the image.
        name: of the image, for the message.
        model: the network that gave them; the message names its first tensor that is not finite.

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
