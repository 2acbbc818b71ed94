from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of `benchmarks/` can be imported, as one of them imports the others."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
