"""Read `torch.save` files without calling any function that they name."""

import re
import struct
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from senet.utils.errors import ModelFileError

__all__ = ["Record", "read_pickle"]

# Bytes of the pickle in an archive, which holds names and shapes; the tensors are separate entries.
_MOST_PICKLED = 2**26
_GLOBAL = re.compile(r"GLOBAL ([\w.<>]+)")
# struct codes of NumPy's fixed-size scalars.
_CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
for _kind, _row in (("i", "bhiq"), ("u", "BHIQ")):
    _CODES |= {f"{_kind}{size}": code for size, code in zip((1, 2, 4, 8), _row, strict=True)}


class Record:
    """Replaces an object that training scripts save with weights; holds its attributes and has no behaviour."""

    def __new__(cls, *_: object, **__: object) -> "Record":
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: object) -> None:
        """Store the attributes."""
        if isinstance(state, dict):
            self.__dict__.update({key: value for key, value in state.items() if isinstance(key, str)})


class _Dict(Record):
    """Replaces a subclass of dict by a dict, which is filled later."""

    def __new__(cls, *_: object, **__: object) -> "dict[object, object]":  # type: ignore[misc]
        return {}


class _List(Record):
    """Replaces a sequence by a list, which is filled later."""

    def __new__(cls, *_: object, **__: object) -> "list[object]":  # type: ignore[misc]
        return []


class _DType(Record):
    code, order = "", "<"

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code if isinstance(code, str) else ""

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
        self.order = ">" if order == ">" else "<"


def _scalar(dtype: object = None, data: object = b"", *_: object) -> object:
    """Convert a NumPy scalar to a Python number; None if it is not a number."""
    code = _CODES.get(dtype.code) if isinstance(dtype, _DType) else None
    if code is None or not isinstance(dtype, _DType) or not isinstance(data, bytes):
        return None
    return struct.unpack(dtype.order + code, data)[0] if len(data) == struct.calcsize(dtype.order + code) else None


def _nothing(*_: object) -> None:
    """Replaces a function whose result is not needed."""


_REPLACEMENTS: dict[Any, tuple[str, ...]] = {
    Record: (
        *("argparse.Namespace", "types.SimpleNamespace", "numpy.ndarray", "torch.torch_version.TorchVersion"),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
        *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
        *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone"),
    ),
    _scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _DType: ("numpy.dtype",),
    _List: ("collections.deque",),
    # Lightning's class for hyperparameters.
    _Dict: (
        *("collections.defaultdict", "pytorch_lightning.utilities.parsing.AttributeDict"),
        *("lightning.pytorch.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
        "lightning_fabric.utilities.data.AttributeDict",
    ),
    _nothing: tuple(
        f"builtins.{name}"
        for name in ("dict", "list", "int", "float", "str", "bool", "tuple", "frozenset", "range", "slice")
    ),
}
# Names that a file may contain. None of them is imported or called: their replacements are.
_ALLOWED: list[Any] = [(stand_in, name) for stand_in, names in _REPLACEMENTS.items() for name in names]


def read_pickle(path: Path) -> Any:
    """Read the tensors and plain values of a `torch.save` file, memory-mapped if possible.

    `argparse.Namespace`, NumPy scalars, paths and times become plain numbers or a `Record`.

    Args:
        path: path of the file.

    Raises:
        ModelFileError: the file names any other function, which reading might run; is a TorchScript archive; or
            unpacks to more than its size.
    """
    archive = zipfile.is_zipfile(path)  # files of torch before 1.6 are not archives, and cannot be mapped
    if archive:
        _check_sizes(path)
    if archive and _is_torchscript(path):
        raise ModelFileError(
            f"{path} is a TorchScript archive, which holds code, so it was not read: save only the state dict, with "
            f"torch.save(torch.jit.load(...).state_dict(), ...)"
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        names = _offending(path, archive) or _GLOBAL.findall(str(error))
        what = f"names {', '.join(names)}, and" if names else "is not a checkpoint of plain tensors, or"
        remedy = "save only its state_dict, with torch.save(model.state_dict(), ...)"
        raise ModelFileError(f"{path} {what} reading it would run code, so it was not read: {remedy}") from error


def _check_sizes(path: Path) -> None:
    """Check that an archive does not unpack to more than its size: kilobytes can hold gigabytes of zeros.

    Raises:
        ModelFileError: entries are compressed or overlap, or the pickle is too large.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    if unpacked > size:
        raise ModelFileError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}, so it was not read: torch.save does not "
            f"compress; save its state_dict with torch.save"
        )
    pickled = max((part.file_size for part in parts if part.filename.endswith("/data.pkl")), default=0)
    if pickled > _MOST_PICKLED:
        raise ModelFileError(
            f"{path} has {pickled:,} bytes next to its tensors, and {_MOST_PICKLED:,} are the limit, so it was not "
            f"read: save only its state_dict, with torch.save(model.state_dict(), ...)"
        )


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _offending(path: Path, archive: bool) -> list[str]:
    """Return the disallowed globals of a file; empty if they cannot be listed."""
    if not archive:
        return []
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is damaged, which is already reported
        return []
    found = sorted(set(named) - {name for _, name in _ALLOWED})
    return found[:5] + [f"{len(found) - 5} more"] * (len(found) > 5)
