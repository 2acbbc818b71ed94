"""Write OpenVINO's `.xml` and `.bin` files with `openvino.convert_model`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from senet.deployment.engines.openvino_engine import INTERRUPTED, weights_of
from senet.deployment.metadata import Metadata, write_openvino
from senet.utils.errors import ExportError, first_line
from senet.utils.files import atomic_path, check_output, restored_on_error, sweep_stale

__all__ = ["atomic_pair", "check_pair", "openvino_model", "write_openvino_model"]


def openvino_model(program: ExportedProgram, inputs: list[str], outputs: list[str]) -> Any:
    """Convert a captured network.

    Args:
        program: the network.
        inputs: names of the inputs.
        outputs: names of the outputs.

    Returns:
        An `openvino.Model`.

    Raises:
        ExportError: an operation has no counterpart in OpenVINO, or is invalid there for these inputs.
    """
    import openvino

    try:
        model = openvino.convert_model(program)
    except Exception as error:  # OpenVINO's own classes, and those of its plugins
        raise ExportError(f"openvino.convert_model cannot convert the network: {first_line(error)}") from error
    for ports, names in ((model.inputs, inputs), (model.outputs, outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    # The conversion leaves open what the program fixes; fixed shapes are faster, and checked.
    placeholders = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    values = [placeholders[name] for name in program.graph_signature.user_inputs if name in placeholders]
    shapes = [[side if isinstance(side, int) else -1 for side in value.shape] for value in values]
    try:
        model.reshape(dict(zip(range(len(model.inputs)), map(openvino.PartialShape, shapes), strict=True)))
    except RuntimeError as error:  # the last line is the reason, after places in OpenVINO's source
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"OpenVINO does not take the network with inputs of {shapes}: {reason}") from error
    return model


def write_openvino_model(model: Any, path: Path, metadata: Metadata, *, fp16: bool) -> None:
    """Write an `openvino.Model` with its metadata to a file, and its weights to the file `weights_of(path)`.

    Args:
        model: the network.
        path: the `.xml` file.
        metadata: of the network.
        fp16: store weights in float16; OpenVINO computes in the precision that the device prefers.
    """
    import openvino

    write_openvino(model, metadata)
    openvino.save_model(model, str(path), compress_to_fp16=fp16)


def check_pair(path: str | PathLike[str]) -> None:
    """Check that an `.xml` file and its file of weights can be written.

    Raises:
        OSError: see `senet.utils.files.check_output`.
        ValueError: there is a `.bin` file without the `.xml` file, which is probably something else.
    """
    weights = weights_of(path)
    check_output(path)
    check_output(weights)
    if weights.exists() and not Path(path).exists():
        raise ValueError(
            f"OpenVINO's weights would replace {weights}, which belongs to no {Path(path).name}; choose another name"
        )


@contextmanager
def atomic_pair(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary `.xml` path; it and its weights replace the files at `path` if the block ends without an error.

    Two files cannot be renamed at once. So that an `.xml` never has the weights of another, the `.xml` states that the
    export is incomplete while the `.bin` is replaced, which `load_exported` reports and another export replaces. After
    an error the old files are back.
    """
    sweep_stale(weights_of(path), with_suffix=Path(path).suffix)
    sweep_stale(path)
    with ExitStack() as old, atomic_path(path) as xml:
        written = weights_of(xml)
        try:
            with atomic_path(weights_of(path)) as weights:
                yield xml
                written.replace(weights)
                old.enter_context(restored_on_error(weights_of(path), path))
                with atomic_path(path) as marked:
                    marked.write_text(INTERRUPTED)
        finally:
            written.unlink(missing_ok=True)
