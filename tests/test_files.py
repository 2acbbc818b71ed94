import os
from pathlib import Path

import pytest

from senet.files import atomic_path


def test_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")
    with atomic_path(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".png")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["curves.png"]


def _write_half(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_what_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "model"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        _write_half(temporary, error)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_text("text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_missing_folder_is_named(tmp_path: Path) -> None:
    # The message was that of a temporary name, which nobody had given.
    with (
        pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/out to write grid.png to; make it first"),
        atomic_path(tmp_path / "out" / "grid.png"),
    ):
        pass


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"), atomic_path(tmp_path / "taken") as temporary:
        temporary.write_text("text")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file"), atomic_path(tmp_path):
        pass


def test_folders_are_flushed_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems cannot; what was written is there nevertheless."""
    for name in ("open", "fsync"):
        with monkeypatch.context() as patch:
            real = getattr(os, name)

            def refuse(what: object, *rest: object, real: object = real) -> object:
                if what == tmp_path or (isinstance(what, int) and os.path.isdir(f"/proc/self/fd/{what}")):
                    raise OSError("not here")
                return real(what, *rest)  # type: ignore[operator]

            patch.setattr(os, name, refuse)
            with atomic_path(tmp_path / name) as temporary:
                temporary.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
