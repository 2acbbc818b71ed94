"""The cost of a network: parameters, multiply-adds and activation memory, with SE separate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from senet.costs.blocks import Block, Part, divide
from senet.graph.example_inputs import example_image
from senet.graph.recorder import trace
from senet.graph.saved_tensors import saved_bytes
from senet.graph.tensor_kinds import has_shapes_of_values

__all__ = ["Block", "Cost", "Part", "cost"]

# The batch for which activation memory is counted. Batch norm with SE is fused where maps are large, see
# `senet.set_fused`; in such a batch, even the maps of small images are.
_IMAGES = 256


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        input_size: (C, *spatial) of the image.
        blocks: in the order in which they run; everything is in one of them.
        saved_bytes: activation memory that a forward pass in training saves for backward, per image of a batch; None
            if it was not counted.

    Examples:
        >>> found = senet.cost(senet.create_model("se_resnet20"), (3, 32, 32), activations=False)
        >>> f"{100 * found.se.params / found.plain.params:.2f} % more parameters"
        '0.88 % more parameters'
    """

    input_size: tuple[int, ...]
    blocks: tuple[Block, ...]
    saved_bytes: int | None

    @property
    def plain(self) -> Part:
        """Everything but SE: the parameters and multiply-adds of the plain twin."""
        return Part.total(block.plain for block in self.blocks)

    @property
    def se(self) -> Part:
        """SE alone."""
        return Part.total(block.se for block in self.blocks)

    @property
    def params(self) -> int:
        """Parameters, each once."""
        return self.plain.params + self.se.params

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions, linear layers and matrix products, for one image."""
        return self.plain.macs + self.se.macs

    @property
    def other(self) -> int:
        """Elements that all other operations write, for one image."""
        return self.plain.other + self.se.other

    @property
    def se_params(self) -> int:
        """Parameters of SE: without biases, 2/r times the sum of C squared (paper section 3.2)."""
        return self.se.params

    @property
    def se_macs(self) -> int:
        """Multiply-adds of SE: as many as its layers have weights, for each position of "none" and for each window."""
        return self.se.macs


def cost(model: nn.Module, input_size: Sequence[int], *, activations: bool = True) -> Cost:
    """Count what a network costs, by block, with SE separate.

    The network's own forward pass runs on tensors without values. Multiply-adds are counted in evaluation, for one
    image, operation by operation: functional convolutions and matrix products count as modules do. PyTorch's
    `FlopCounterMode` returns twice the number. SE is what `senet.graph.se_modules.find_se` finds, including timm's and
    torchvision's.

    Activation memory is that of one more image in a batch of 256. Each storage counts once, however many operations
    save it; parameters, buffers and the loss do not count. Batch norm with SE counts as it runs for such a batch:
    fused, so that it saves its input alone; or as its parts, where `senet.set_fused` disables fusion.

    Args:
        model: any network that takes one tensor, on the meta device too.
        input_size: (C, *spatial) of an image, without the batch.
        activations: whether to count `saved_bytes`, which takes two more passes.

    Returns:
        The cost. Parameters, buffers, modes and hooks of the network are unchanged.

    Raises:
        TypeError: the model is not a network, or the input size is not a sequence of integers.
        ValueError: a size below 1, an input that the network does not take, or a network that reads values.

    Examples:
        >>> found = senet.cost(senet.create_model("se_resnet20"), (3, 32, 32))
        >>> found.params, found.macs, found.se_params
        (272095, 40553056, 2373)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module, got {model!r}; senet.create_model builds one by name")
    if not isinstance(input_size, Sequence) or not all(isinstance(length, int) for length in input_size):
        raise TypeError(f"input_size must be whole numbers (C, *spatial), such as (3, 224, 224), got {input_size!r}")
    size = tuple(input_size)
    if not size or min(size) < 1:
        raise ValueError(f"input_size must be (C, *spatial), each 1 or more, such as (3, 224, 224), got {size}")
    model = getattr(model, "_orig_mod", model)  # the network inside `torch.compile`'s wrapper
    with _explained(model, (1, *size)):
        # With gradients: in inference, some modules fuse their parts into operations that have no formula.
        run = trace(model, example_image(model, size=size), tensors="fake", gradients=True)
    blocks = divide(model, run, size)
    saved = None
    if activations:
        with _explained(model, (_IMAGES, *size)):
            more, fewer = (saved_bytes(model, example_image(model, n, size=size)) for n in (2 * _IMAGES, _IMAGES))
        saved = (more - fewer) // _IMAGES
    return Cost(size, blocks, saved)


@contextmanager
def _explained(model: nn.Module, shape: tuple[int, ...]) -> Iterator[None]:
    """Name the network and the input where the network does not run."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        if has_shapes_of_values(error):
            raise ValueError(
                f"{type(model).__name__} has no fixed cost: what it computes depends on the values of the image "
                f"({error}), as the boxes of a detector do; count the part that does not, as in "
                f"senet.cost(model.backbone, {shape[1:]})"
            ) from error
        raise ValueError(
            f"{type(model).__name__} does not run on an input of the shape {shape} without values: "
            f"{error}; give another input_size"
        ) from error
