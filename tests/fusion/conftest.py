"""What tests of fused networks have in common."""

from typing import Any

import pytest
from torch import Tensor

from senet.fusion import call


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The activations of all fused calls, None for a batch norm alone, "sum" for one with a sum and a ReLU."""
    calls: list[Any] = []
    plain, activated = call.normalize, call.normalize_activate

    def note_plain(*args: Any) -> Tensor:
        calls.append(None if args[6] is None else "sum")
        return plain(*args)

    def note_activated(*args: Any) -> Tensor:
        calls.append(args[5])
        return activated(*args)

    monkeypatch.setattr(call, "normalize", note_plain)
    monkeypatch.setattr(call, "normalize_activate", note_activated)
    return calls
