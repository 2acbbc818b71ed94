import pytest
import torch

from senet.nn.fused import inductor
from senet.utils.notices import announce, listening
from tests.cli.helpers import invoke


def test_compiling_is_announced_once_and_only_where_it_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(inductor, "_compiled", {})
    monkeypatch.setattr(inductor, "_direct", {})
    monkeypatch.setattr(inductor, "_Compiled", lambda formula, numbers: lambda tensors: ((torch.zeros(()),), None))
    with listening(lines.append):
        for compiled in (inductor.stats, inductor.elemt):
            compiled(torch.zeros(2, 3, 4), torch.zeros(3))
    assert lines == ["compiling batch norm with SE for cpu: the first step takes some seconds longer"]
    announce("nobody listens")
    assert len(lines) == 1


def test_the_command_line_prints_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from senet import models

    def slow(pattern: str = "*") -> list[str]:
        announce("compiling")
        return ["resnet20"]

    monkeypatch.setattr(models, "list_models", slow)
    # A pattern: for a name, the command imports `senet.costs`, which would keep the slow function and call it again.
    assert invoke("models", "resnet2?").stderr == "compiling\n"
    monkeypatch.setenv("RANK", "1")
    assert invoke("models", "resnet2?").stderr == ""
