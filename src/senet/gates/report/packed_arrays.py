"""Pack arrays for a web page: quantize, concatenate, compress and encode them as text."""

import base64
import gzip
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PackedArrays"]

_KINDS = {"u1": np.uint8, "u2": np.uint16, "f4": np.float32}


class PackedArrays:
    """Concatenated arrays. A reference to an array is a small dictionary for the page's JSON.

    The layout is: length of the JSON in 4 bytes, the JSON, the arrays; all little-endian.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def exact(self, values: ArrayLike, kind: str) -> dict[str, Any]:
        """Add an array without quantization.

        Args:
            values: an array of any shape.
            kind: the type "u1", "u2" or "f4", which must hold the values.

        Returns:
            The reference.

        Raises:
            ValueError: a value does not fit.
        """
        array = np.asarray(values)
        most = {"u1": 255, "u2": 65535}.get(kind, np.inf)
        if kind != "f4" and array.size and (array.min() < 0 or array.max() > most):
            raise ValueError(f"values from {array.min()} to {array.max()} do not fit into {kind}; use a wider kind")
        # Without images the extremes are infinite, which JSON and charts cannot represent.
        array = np.nan_to_num(array, posinf=0, neginf=0) if kind == "f4" else array
        return self._add(array.astype(_KINDS[kind]), kind)

    def quantized(self, values: ArrayLike, bits: int) -> dict[str, Any]:
        """Add an array that is quantized row by row to 2^bits steps between the row's minimum and maximum.

        Args:
            values: (..., N); rows are along the last axis.
            bits: 1 to 16. The error is at most half a step, the row's range / 2 (2^bits - 1). Up to 8 bits, the ends of
                rows are themselves quantized to 16 bits over the whole array, which adds half a step of theirs.

        Returns:
            The reference.
        """
        array = np.atleast_1d(np.asarray(values, np.float64))
        # Not -1, which is ambiguous for empty arrays.
        rows = array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])
        if not array.size:
            rows = np.zeros((len(rows), 1))
        low, high = rows.min(1), rows.max(1)
        if bits <= 8 and len(rows) > 1:
            ends = {"low": self.quantized(low, 16), "high": self.quantized(high, 16)}
            # Steps are relative to the ends as the page decodes them.
            low, high = self._decoded(low), self._decoded(high)
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
        """Return the arrays and a header with references to them, compressed with gzip and encoded as base64."""
        encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        raw = struct.pack("<I", len(encoded)) + encoded + b"".join(self._parts)
        return base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()

    def bytes(self, data: bytes) -> dict[str, Any]:
        """Add bytes, such as an image file."""
        return self._add(np.frombuffer(data, np.uint8), "u1")

    @staticmethod
    def _decoded(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return numbers after quantization to 16 bits as one row."""
        low, high = float(np.float32(values.min())), float(np.float32(values.max()))
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
        read: NDArray[np.float64] = low + np.rint(share.clip(0, 1) * 65535) / 65535 * (high - low)
        return read

    def _add(self, array: NDArray[Any], kind: str) -> dict[str, Any]:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        width = array.dtype.itemsize
        if width > 1:
            # All first bytes, then all second bytes: high bytes are similar and compress well.
            data = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
        reference = {"at": self._length, "kind": kind, "shape": list(array.shape)}
        self._parts.append(data)
        self._length += len(data)
        return reference
