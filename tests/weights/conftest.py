"""Networks of the catalogue's kinds with few units, by names, so that the tests are quick."""

from dataclasses import replace

import pytest

from senet.models import table
from senet.models.table import CATALOGUE, Network

TINY = {
    "tiny18": ("resnet18", (1, 2, 1, 1)),
    "tiny50": ("resnet50", (1, 2, 1, 1)),
    "tinyx50": ("resnext50_32x4d", (1, 2, 1, 1)),
    "tiny154": ("senet154_plain", (2, 1, 1, 1)),
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (like, units) in TINY.items():
        row: Network = CATALOGUE[like]
        spec = replace(row.spec, units=units)
        monkeypatch.setitem(CATALOGUE, name, replace(row, spec=spec, se_name=f"se_{name}"))
        monkeypatch.setitem(table._PLAIN_NAMES, f"se_{name}", name)
