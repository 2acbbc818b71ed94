"""Tests that run Triton's kernels on the CPU.

Triton reads TRITON_INTERPRET where it is imported and where kernels are decorated, so that these tests need a process
of their own: `TRITON_INTERPRET=1 pytest tests/nn/fused/interpreted`, which `tests/nn/fused/test_interpreted.py` starts.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*"]
_OPERATIONS = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


@pytest.fixture(autouse=True, scope="session")
def _quick_interpreter() -> Iterator[None]:
    """Spare the interpreter half of its time, with the same results and the same check of integers for overflow.

    It patches Triton's language at each call of a function: here, once. And it computes the 64-bit results that show an
    overflow by its own operations: here, by NumPy's.
    """
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    patch_language, patched = interpreter._patch_lang, dict[bool, Any]()

    def patch_once(function: Any) -> Any:
        """Patch for a function's module, and return a scope of no changes, which the end of a kernel undoes."""
        is_core = any(value is interpreter.tl.core for value in function.__globals__.values())
        if is_core not in patched:
            patched[is_core] = patch_language(function)
        return interpreter._LangPatchScope()

    def check_overflow(self: Any, left: Any, right: Any, operation: Any) -> None:
        if left.type.scalar.int_bitwidth < 64:
            assert left.type.scalar == right.type.scalar
            values = (x.handle.data.astype(np.int64) for x in (left, right))
            result, limits = _OPERATIONS[operation.__name__](*values), np.iinfo(left.handle.data.dtype)
            is_within = limits.min <= result.min() and result.max() <= limits.max
            assert is_within, f"int{limits.bits} overflow detected for operation {operation.__name__}"

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
        monkeypatch.setattr(TritonSemantic, "binary_op_sanitize_overflow_impl", check_overflow)
        yield
    for scope in patched.values():
        scope.restore()
