"""Read what `torch.save` wrote without calling anything that a file names."""

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

# Bytes of the pickle in an archive: it has the names and shapes, and the tensors lie next to it.
_MOST_PICKLED = 2**26
_GLOBAL = re.compile(r"GLOBAL ([\w.<>]+)")
# struct's codes of NumPy's scalars of a fixed size.
_CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?"}
for _kind, _row in (("i", "bhiq"), ("u", "BHIQ")):
    _CODES |= {f"{_kind}{size}": code for size, code in zip((1, 2, 4, 8), _row, strict=True)}


class Record:
    """Stands for an object that training scripts save next to weights; holds its attributes and has no behaviour."""

    def __new__(cls, *_: object, **__: object) -> "Record":
        """Ignore the arguments: nothing is built from them."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: object) -> None:
        """Keep attributes under their names, and nothing else."""
        if isinstance(state, dict):
            self.__dict__.update({key: value for key, value in state.items() if isinstance(key, str)})


class _Dict(Record):
    """Stands for a subclass of dict, and gives a dict, which is filled later."""

    def __new__(cls, *_: object, **__: object) -> "dict[object, object]":  # type: ignore[misc]
        return {}


class _List(Record):
    """Stands for a sequence, and gives a list, which is filled later."""

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
    """The Python number that a NumPy scalar is; None for one that is no number."""
    code = _CODES.get(dtype.code) if isinstance(dtype, _DType) else None
    if code is None or not isinstance(dtype, _DType) or not isinstance(data, bytes):
        return None
    return struct.unpack(dtype.order + code, data)[0] if len(data) == struct.calcsize(dtype.order + code) else None


def _nothing(*_: object) -> None:
    """Stands for a function whose result is of no use here."""


_STANDS_FOR: dict[Any, tuple[str, ...]] = {
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
    # Lightning keeps a model's hyperparameters so.
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
# What a file may name next to tensors. None of these names is imported or called: what stands for it runs.
_HARMLESS: list[Any] = [(stand_in, name) for stand_in, names in _STANDS_FOR.items() for name in names]


def read_pickle(path: Path) -> Any:
    """Give the tensors and plain values of a file of `torch.save`; the tensors lie in the file where that can be.

    `argparse.Namespace`, NumPy scalars, paths and times become plain numbers or a `Record`.

    Args:
        path: of the file.

    Raises:
        ModelFileError: the file names anything else, which reading might run, and the message names it; or it is a
            TorchScript archive, or unpacks to more than it is.
    """
    archive = zipfile.is_zipfile(path)  # files of torch older than 1.6 are no archives, and cannot be mapped
    if archive:
        _check_sizes(path)
    if archive and _is_torchscript(path):
        raise ModelFileError(
            f"{path} is a TorchScript archive, which holds code, so it was not read: save the state dict alone, with "
            f"torch.save(torch.jit.load(...).state_dict(), ...)"
        )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # of pickle's protocols: it reads the file, or it does not
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        names = _offending(path, archive) or _GLOBAL.findall(str(error))
        what = f"names {', '.join(names)}, and" if names else "is no checkpoint of plain tensors, or"
        remedy = "save its state_dict alone, with torch.save(model.state_dict(), ...)"
        raise ModelFileError(f"{path} {what} would run code to be read, so it was not: {remedy}") from error


def _check_sizes(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is: a file of kilobytes can hold gigabytes of zeros.

    Raises:
        ModelFileError: parts are compressed or overlap, or the pickle is no description of tensors by its size.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    if unpacked > size:
        raise ModelFileError(
            f"{path} has {size:,} bytes and unpacks to {unpacked:,}, so it was not read: torch.save compresses "
            f"nothing; save its state_dict with it"
        )
    pickled = max((part.file_size for part in parts if part.filename.endswith("/data.pkl")), default=0)
    if pickled > _MOST_PICKLED:
        raise ModelFileError(
            f"{path} has {pickled:,} bytes next to its tensors, and {_MOST_PICKLED:,} are the limit, so it was not "
            f"read: save its state_dict alone, with torch.save(model.state_dict(), ...)"
        )


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _offending(path: Path, archive: bool) -> list[str]:
    """All globals of a file that are neither PyTorch's nor harmless; empty where they cannot be listed."""
    if not archive:
        return []
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is damaged: what is wrong with it is reported already
        return []
    found = sorted(set(named) - {name for _, name in _HARMLESS})
    return found[:5] + [f"{len(found) - 5} more"] * (len(found) > 5)
