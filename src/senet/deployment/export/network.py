"""What is exported: the network with its inputs, preprocessing and classes, checked before any work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from senet.data import Preprocessing, PreprocessingOptions
from senet.data.class_names import check_names
from senet.deployment.deploy import check_deployable
from senet.deployment.export.adapters import PixelInput
from senet.deployment.export.signature import all_finite, in_order, input_tensors, tensors_in
from senet.graph.example_inputs import Example, call, describe, random_image, split_example
from senet.utils.arguments import argument, argument_name, in_python_or
from senet.utils.errors import MissingExampleError, NonFiniteError, first_line
from senet.utils.memory_errors import is_out_of_memory

__all__ = ["Network", "on_cpu", "prepare", "refuse_text", "with_pixels"]

_CFG = ("input_size", "crop_pct", "mean", "std", "interpolation")


@dataclass(frozen=True)
class Network:
    """A network to export.

    Attributes:
        model: in float32, on the CPU, in evaluation mode.
        name: of the network, or of its class.
        example: its inputs, on the CPU.
        output: what it returns for the example.
        preprocessing: how images enter it; None if it is not known.
        classes: class names; None if they are not known.
    """

    model: nn.Module
    name: str
    example: Example
    output: Any
    preprocessing: Preprocessing | None
    classes: tuple[str, ...] | None


def prepare(
    model: nn.Module,
    example: Example | None,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
) -> Network:
    """Check a network and its inputs, and run it once.

    Args:
        model: the network; it is not modified.
        example: its inputs; an image of its size by default.
        preprocessing: that of its `pretrained_cfg` by default, with the size of the example.
        classes: names; those of its `pretrained_cfg` by default.

    Raises:
        MissingExampleError: it does not run on a made-up image, and there is no example.
        NonFiniteError: it returns NaN or infinity.
        TypeError: it is no network, or the example is no input.
        ValueError: it cannot be deployed (see `senet.deploy`), is not in float32, does not run on the example, or the
            example, preprocessing and classes do not fit each other.
    """
    check_deployable(model)
    _check_dtype(model)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a senet.data.Preprocessing, got {type(preprocessing).__name__}")
    model = on_cpu(model)
    given = example is not None
    if example is None:
        size = None if preprocessing is None else (len(preprocessing.mean), *preprocessing.size)
        example = (torch.randn(1, *size) if size else random_image(model, 1).float(),)
    example = tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, example)
    output = _run(model, example, given)
    example = in_order(model, example)
    return Network(
        model,
        _name(model),
        example,
        output,
        _preprocessing(model, example, preprocessing),
        _classes(model, output, classes),
    )


def refuse_text(network: Network) -> None:
    """Check that no output is text, with which PyTorch does not load its file.

    Raises:
        ValueError: an output is text.
    """
    text = next((leaf for leaf in tree_leaves(network.output) if isinstance(leaf, str)), None)
    if text is not None:
        raise ValueError(
            f"{network.name} returns the text {text!r}, and a .pt2 file holds none: return tensors, or export .onnx or "
            f".xml, which leave it out"
        )


def on_cpu(model: nn.Module) -> nn.Module:
    """Return a network that is on the CPU, otherwise a copy of it there."""
    if all(tensor.device.type == "cpu" for tensor in model.state_dict().values() if isinstance(tensor, Tensor)):
        return model
    import copy

    return copy.deepcopy(model).cpu()


def _check_dtype(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name!r} is {kind}, and networks are exported from float32: call model.float(); "
                f"{argument('precision')} chooses that of the file"
            )


def _run(model: nn.Module, example: Example, given: bool) -> Any:
    """Run a network on its example.

    Raises:
        MissingExampleError, ValueError: it does not run.
        NonFiniteError: it returns NaN or infinity.
        TypeError: the example is no input.
    """
    split_example(example)
    kind = type(model).__name__
    try:
        with torch.no_grad():
            output = call(model, example)
    except Exception as error:  # of the network's own code
        if is_out_of_memory(error):
            raise
        if not given:
            raise MissingExampleError(
                f"{kind} does not run on an image {describe(example)}: {first_line(error)}; give "
                f"{argument('example')}, an input of the network"
            ) from error
        raise ValueError(
            f"{kind} does not run on the example {describe(example)}: {first_line(error)}; give inputs as it takes them"
        ) from error
    if not tensors_in(output):
        raise ValueError(
            f"{kind} returns a {type(output).__name__} without tensors: export a network that returns tensors, alone "
            f"or in a tuple, list or dict"
        )
    if any(tensor.is_complex() for tensor in tensors_in(output)):
        raise ValueError(f"{kind} returns complex numbers, which cannot be compared: return torch.view_as_real of them")
    if not all_finite(tensors_in(output)):
        raise NonFiniteError(f"{kind} returns NaN or infinity; load other weights, or give real images as the example")
    return output


def _name(model: nn.Module) -> str:
    """Return the name of a network: of senet's table, of timm, or of its class."""
    architecture = getattr(model, "architecture", None)
    cfg = getattr(model, "pretrained_cfg", None)
    for found in (architecture, cfg):
        name = found.get("name", found.get("architecture")) if isinstance(found, Mapping) else None
        if isinstance(name, str):
            return name
    return type(model).__name__


def _image(example: Example) -> Tensor | None:
    """Return the only input if it is an image (N, C, H, W)."""
    tensors = input_tensors(example)
    return tensors[0] if len(tensors) == 1 and tensors[0].ndim == 4 and tensors[0].is_floating_point() else None


def _preprocessing(model: nn.Module, example: Example, given: Preprocessing | None) -> Preprocessing | None:
    """Return the preprocessing for an example.

    Raises:
        ValueError: it has another size or number of channels than the example.
    """
    image = _image(example)
    if given is not None:
        wanted = (len(given.mean), *given.size)
        if image is None or tuple(image.shape[1:]) != wanted:
            raise ValueError(
                f"preprocessing makes images {wanted}, and the example is {describe(example)}; give an example of that "
                f"size, or another crop"
            )
        return given
    cfg = getattr(model, "pretrained_cfg", None)
    if image is None or not isinstance(cfg, Mapping) or any(cfg.get(key) is None for key in _CFG):
        return None
    if not len(cfg["mean"]) == image.shape[1] in (1, 3):
        return None
    size = (int(image.shape[2]), int(image.shape[3]))
    same = size == tuple(cfg["input_size"][1:])
    return Preprocessing.of(cfg, None if same else PreprocessingOptions(crop=size))


def _classes(model: nn.Module, output: Any, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the class names.

    Raises:
        TypeError, ValueError: see `senet.data.class_names.check_names`; or the output is not (N, K).
    """
    cfg = getattr(model, "pretrained_cfg", None)
    own = cfg.get("label_names") if isinstance(cfg, Mapping) else None
    tensors = tensors_in(output)
    logits = tensors[0].shape[1] if len(tensors) == 1 and tensors[0].ndim == 2 else None
    if given is None:
        return tuple(own) if own is not None and len(own) == logits else None
    if logits is None:
        raise ValueError(
            "classes are the names of logits (N, K), and the network returns something else; leave them out"
        )
    return tuple(check_names(given, own, logits))


def with_pixels(network: Network, model: nn.Module) -> PixelInput:
    """Return a network that normalizes pixels.

    Raises:
        ValueError: the input is not one image of 1 or 3 channels, or its preprocessing is not known.
    """
    if _image(network.example) is None:
        raise ValueError(
            f"{argument_name('with_preprocessing')} needs a network of one image (N, C, H, W), and the inputs are "
            f"{describe(network.example)}; leave it out"
        )
    if network.preprocessing is None:
        raise ValueError(
            f"{argument_name('with_preprocessing')} needs mean and std, which {network.name} does not state in its "
            f"pretrained_cfg; give {in_python_or('preprocessing=', '--crop, --mean and --std')}"
        )
    return PixelInput(model, network.preprocessing)
