"""Hints to install: a command that works, since senet is not on PyPI."""

import re
import shlex
from pathlib import Path

import pytest

from senet.data import open_data
from senet.utils import extras
from senet.utils.errors import DataError
from tests.test_packaging import EXTRAS, ROOT, names


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_in_a_checkout_its_extra_is_installed(extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "__file__", str(ROOT / "src" / "senet" / "utils" / "extras.py"))
    monkeypatch.chdir(ROOT)
    assert extras.install_command(extra) == f"pip install -e '.[{extra}]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(extras.install_command(extra)) == ["pip", "install", "-e", f"{ROOT}[{extra}]"]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_elsewhere_its_packages_are_named(extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "lib" / "senet" / "utils" / "extras.py"))
    needed = [f'{name}; extra == "{extra}"' for name in EXTRAS[extra]]
    monkeypatch.setattr(extras, "requires", lambda name: ["torch>=2.9", 'ruff; extra == "dev"', *needed])
    pip, install, *packages = shlex.split(extras.install_command(extra))
    assert (pip, install, names(packages)) == ("pip", "install", names(EXTRAS[extra]))


def test_no_message_names_a_package_that_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"'digits' need scikit-learn \(.+\): pip install (-e|'?scikit-learn)"):
        open_data("digits", "train")
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "extras.py":
            assert not re.search(r"pip install '?senet\[", path.read_text(encoding="utf-8")), path


def test_an_optional_package_that_cannot_be_imported_is_named_with_the_reason() -> None:
    with (
        pytest.raises(DataError, match=r"^blue data need azure \(libazure.so is damaged\): pip install") as caught,
        extras.optional_import("demo", "blue data need azure", DataError),
    ):
        raise ImportError("libazure.so is damaged\nsecond line")
    assert isinstance(caught.value.__cause__, ImportError)
    with pytest.raises(KeyError), extras.optional_import("demo", "blue data need azure"):
        raise KeyError("an error of another kind")
