"""Every backend in every option, against PyTorch's modules in float64.

Triton's kernels run in a process of their own, see `interpreted`; on a GPU there, too.
"""

from collections import Counter
from typing import Any

import pytest
import torch

from senet.nn.fused import autograd as whole
from senet.nn.fused import dispatch, set_fused
from senet.nn.fused.interface import WholeBackend
from tests.nn.fused.reference_backend import Reference
from tests.nn.fused.whole_cases import Case, check, pairwise

CASES = pairwise()


def count_calls(monkeypatch: pytest.MonkeyPatch, backend: WholeBackend | None = None) -> Counter[str]:
    """Count calls of the whole operation, which `backend` computes, or else the one that was chosen."""
    calls: Counter[str] = Counter()
    select = whole.whole_backend

    def counted(y: torch.Tensor) -> Any:
        found = select(y) if backend is None else backend
        calls["whole"] += found is not None
        return found

    monkeypatch.setattr(whole, "whole_backend", counted)
    return calls


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_whole_operation_by_formulas(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, Reference())
    monkeypatch.setattr(whole, "fused_choice", lambda: "triton")
    check(case)
    assert calls["whole"] == 1


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("how", "case"),
    [
        pytest.param(how, case, id=f"{how} {case}", marks=[pytest.mark.slow] if how == "inductor" else [])
        for how in ("off", "aten", "inductor")
        for case in CASES
        if case.gate is not None
    ],
)
def test_passes_around_the_excitation(how: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "off":  # the passes as they are written
        monkeypatch.setattr(dispatch, "is_followed", lambda *arguments: True)
        how = "aten"
    set_fused(how)
    check(case)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_triton_on_a_gpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused("triton")
    calls = count_calls(monkeypatch)
    for _ in range(2):  # the second time through the direct launch
        check(case, device="cuda")
    assert calls["whole"] == 2
