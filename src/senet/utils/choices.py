"""Options with fixed choices, which are listed once, in the `Literal` of their annotation.

The types of command-line options are here, so that help needs no import of PyTorch.
"""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from senet.utils.errors import unknown_name

__all__ = [
    "Attention",
    "BenchDevice",
    "BenchEngine",
    "BenchMode",
    "Dtype",
    "ExportAxis",
    "ExportFormat",
    "Gate",
    "HubLibrary",
    "Initialization",
    "Library",
    "LoggerName",
    "Loss",
    "Missing",
    "Placement",
    "Precision",
    "Replacement",
    "Split",
    "Squeeze",
    "TaskName",
    "check_choice",
    "check_choices",
    "literal_values",
]

# Of SE blocks and `senet.insert`.
Placement = Literal["standard", "pre", "post", "identity", "conv3x3"]
Attention = Literal["se", "eca", "ese"]
Squeeze = Literal["avg", "max", "none"]
Gate = Literal["sigmoid", "tanh", "relu", "hard_sigmoid"]
Initialization = Literal["identity", "paper"]
# Of `senet.bench`.
BenchMode = Literal["train", "infer"]
BenchDevice = Literal["auto", "cpu", "cuda"]
BenchEngine = Literal["eager", "compile", "onnxruntime", "openvino"]
Dtype = Literal["float32", "tf32", "bfloat16", "float16"]
# Of `senet.load_weights` and `senet.export_weights`.
Missing = Literal["gates"]
Library = Literal["timm", "torchvision"]
# Of `senet.push_to_hub`.
HubLibrary = Literal["senet", "timm"]
# Of `senet.export`.
ExportFormat = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
ExportAxis = Literal["batch", "size"]
# Of `senet.open_data`.
Split = Literal["train", "val"]
# Of recipes.
TaskName = Literal["classification", "detection", "multilabel"]
Loss = Literal["cross_entropy", "asymmetric"]
# Of `senet.train`.
LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
# Of the ablation of gates.
Replacement = Literal["mean", "one"]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check the value of an option.

    Args:
        name: name of the option.
        value: the given value.
        choices: a `Literal` of the valid values.

    Raises:
        ValueError: the value is invalid; the message names the closest valid one.
    """
    if value not in get_args(choices):
        raise ValueError(unknown_name(name, value, get_args(choices)))


def check_choices(values: Any) -> None:
    """Check the fields of a dataclass that are annotated with a `Literal`.

    Raises:
        ValueError: see `check_choice`.
    """
    for name, choices in _literals(type(values)).items():
        check_choice(name, getattr(values, name), choices)


def _literals(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is Literal}


def literal_values(annotation: Any) -> tuple[Any, ...]:
    """Return the values of a `Literal`, also inside a union or `Annotated`; an empty tuple without a `Literal`."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in literal_values(part))
