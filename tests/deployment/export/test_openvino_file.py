"""The two files of OpenVINO are replaced together."""

from pathlib import Path

import pytest
import torch
from torch import nn

import senet
from senet.deployment.engines.openvino_engine import INTERRUPTED, weights_of
from senet.deployment.export.openvino_file import atomic_pair, check_pair
from senet.utils.errors import ExportError


@pytest.mark.parametrize("old", [True, False], ids=["replaced", "new"])
def test_at_any_moment_the_files_fit_or_state_that_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    xml, weights = tmp_path / "a.xml", tmp_path / "a.bin"
    if old:
        xml.write_text("old")
        weights.write_text("old")
    states: list[tuple[str, str]] = []

    def look() -> None:
        states.append(tuple(file.read_text() if file.exists() else "" for file in (xml, weights)))  # type: ignore[arg-type]
        check_pair(xml)  # another export is possible

    replace = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        look()
        found = replace(self, target)
        look()
        return found

    monkeypatch.setattr(Path, "replace", replaced)
    with atomic_pair(xml) as path:
        path.write_text("new")
        path.with_suffix(".bin").write_text("new")
    before = ("old", "old") if old else ("", "")
    expected = [before, (INTERRUPTED, before[1]), (INTERRUPTED, "new"), ("new", "new")]
    assert list(dict.fromkeys(states)) == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "a.xml"]


def test_files_of_a_killed_export_are_removed(tmp_path: Path) -> None:
    stale = [".a-1234567_.xml", ".a-1234567_.bin", ".a-abcdefgh.bin"]
    others = [".b-1234567_.xml", ".a-1234567_.onnx", "notes.txt"]
    for name in (*stale, *others):
        (tmp_path / name).write_text("")
    with atomic_pair(tmp_path / "a.xml") as running:
        running.with_suffix(".bin").write_text("")
        with atomic_pair(tmp_path / "a.xml") as path:
            assert running.exists()
            assert running.with_suffix(".bin").exists()
            path.with_suffix(".bin").write_text("")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*others, "a.bin", "a.xml"])


def test_a_symbolic_link_leads_to_both_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    xml = tmp_path / "real" / "a.xml"
    xml.write_text("old")
    xml.with_suffix(".bin").write_text("old")
    (tmp_path / "link.xml").symlink_to(xml)
    with atomic_pair(tmp_path / "link.xml") as path:
        path.write_text("new")
        weights_of(path).write_text("new")
    assert (xml.read_text(), xml.with_suffix(".bin").read_text()) == ("new", "new")
    assert not (tmp_path / "link.bin").exists()


@pytest.mark.parametrize("old", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("fails", range(1, 5))
def test_an_error_at_any_step_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool, fails: int
) -> None:
    xml = tmp_path / "a.xml"
    if old:
        xml.write_text("old")
        xml.with_suffix(".bin").write_text("old")
    replace, count = Path.replace, 0

    def replaced(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == fails:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    def write() -> None:
        with atomic_pair(xml) as path:
            path.write_text("new")
            path.with_suffix(".bin").write_text("new")

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(OSError, match="Input/output error"):
        write()
    assert count >= fails
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == (
        {"a.xml": "old", "a.bin": "old"} if old else {}
    )


@pytest.mark.usefixtures("traced")
def test_shapes_that_openvino_refuses(tmp_path: Path) -> None:
    """A pool whose kernel is larger than the map, which PyTorch takes with `ceil_mode`."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(9, ceil_mode=True)).eval()
    with pytest.raises(
        ExportError, match=r"not take the network with inputs of \[\[1, 3, 4, 4\]\]: Kernel .* larger than the data"
    ):
        senet.export(model, tmp_path / "a.xml", torch.randn(1, 3, 4, 4), rewrite=False)
    assert not list(tmp_path.iterdir())
