"""Numbers for a web page: rounded to a few bits, put behind one another, compressed, written as text."""

import base64
import gzip
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Pack"]

_KINDS = {"u1": np.uint8, "u2": np.uint16, "f4": np.float32}


class Pack:
    """Arrays in one run of bytes; a reference to one is a small dictionary that goes into the page's JSON.

    Laid out as: length of the JSON in 4 bytes, the JSON, the arrays; all little-endian.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def whole(self, values: ArrayLike, kind: str) -> dict[str, Any]:
        """An array as it is.

        Args:
            values: of any shape.
            kind: "u1", "u2" or "f4", in which the values must fit.

        Raises:
            ValueError: a value does not fit.
        """
        array = np.asarray(values)
        most = {"u1": 255, "u2": 65535}.get(kind, np.inf)
        if kind != "f4" and array.size and (array.min() < 0 or array.max() > most):
            raise ValueError(f"{array.min()} to {array.max()} do not fit into {kind}; use a wider kind")
        # No image, no extremes: they are infinite then, which JSON and pictures cannot show.
        array = np.nan_to_num(array, posinf=0, neginf=0) if kind == "f4" else array
        return self._add(array.astype(_KINDS[kind]), kind)

    def rounded(self, values: ArrayLike, bits: int) -> dict[str, Any]:
        """An array in steps: each row has 2^bits of them, evenly from its least to its largest value.

        Args:
            values: (..., N); a row is along the last axis.
            bits: from 1 to 16. The error is at most half a step, the row's range / 2 (2^bits - 1); up to 8 bits it is
                more by half a step of the ends of rows, which are rounded to 16 bits over the whole array.
        """
        array = np.atleast_1d(np.asarray(values, np.float64))
        # Not -1: of no numbers at all, how many rows there are cannot be told.
        rows = array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])
        if not array.size:
            rows = np.zeros((len(rows), 1))
        low, high = rows.min(1), rows.max(1)
        if bits <= 8 and len(rows) > 1:
            ends = {"low": self.rounded(low, 16), "high": self.rounded(high, 16)}
            # What is stored is counted from the ends as the page will read them.
            low, high = self._read(low), self._read(high)
        else:
            low, high = low.astype(np.float32).astype(np.float64), high.astype(np.float32).astype(np.float64)
            ends = {"low": self._add(low.astype(np.float32), "f4"), "high": self._add(high.astype(np.float32), "f4")}
        rows = rows[:, : array.shape[-1]]
        span = high - low
        steps = 2**bits - 1
        share = np.divide(rows - low[:, None], span[:, None], out=np.zeros_like(rows), where=span[:, None] > 0)
        kind = "u1" if bits <= 8 else "u2"
        reference = self._add(np.rint(share.clip(0, 1) * steps).astype(_KINDS[kind]).reshape(array.shape), kind)
        return reference | ends | {"bits": bits}

    def text(self, header: dict[str, Any]) -> str:
        """All of it, with a header that refers to the arrays: gzip, then base64."""
        encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        raw = struct.pack("<I", len(encoded)) + encoded + b"".join(self._parts)
        return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()

    def bytes(self, data: bytes) -> dict[str, Any]:
        """Bytes as they are, such as a picture's."""
        return self._add(np.frombuffer(data, np.uint8), "u1")

    @staticmethod
    def _read(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers after they were rounded to 16 bits as one row."""
        low, high = float(np.float32(values.min())), float(np.float32(values.max()))
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
        read: NDArray[np.float64] = low + np.rint(share.clip(0, 1) * 65535) / 65535 * (high - low)
        return read

    def _add(self, array: NDArray[Any], kind: str) -> dict[str, Any]:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        width = array.dtype.itemsize
        if width > 1:
            # All first bytes, then all second ones: those that say the magnitude are alike, and compress well.
            data = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
        reference = {"at": self._length, "kind": kind, "shape": list(array.shape)}
        self._parts.append(data)
        self._length += len(data)
        return reference
