import os
import socket
import stat
from pathlib import Path

import pytest

from senet.utils import files
from senet.utils.files import atomic_path, restored_on_error


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


def _write(path: Path | str, text: str = "new") -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "model").write_text("old")
    (tmp_path / "link").symlink_to("disk/model")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    _write(tmp_path / "second")
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "model").read_text() == "new"
    assert os.listdir(tmp_path / "disk") == ["model"]


def test_link_to_a_file_that_is_yet_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("model")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "model").read_text() == "new"


@pytest.mark.parametrize(
    ("target", "message"), [("link", "form a loop"), ("missing/model", "there is no folder .*missing")]
)
def test_link_that_leads_nowhere_is_refused(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match=message):
        _write(tmp_path / "link")
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.skipif(not os.path.isdir("/proc/self") or os.geteuid() != 0, reason="needs /proc, as root")
def test_folder_that_holds_no_files_is_named_with_the_output() -> None:
    """Without the temporary name, which the user has never seen."""
    with pytest.raises(OSError, match=r"'/proc/model'$"):
        _write(Path("/proc/model"))


def test_named_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    _write(pipe)
    assert os.read(handle, 100) == b"new"
    os.close(handle)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_pipe_without_a_reader_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: no process reads it; give the name of a file"):
        _write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_character_device_is_written_through(tmp_path: Path) -> None:
    """A node of its own, as /dev/null is: never the machine's."""
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        node.write_bytes(b"")
    except OSError:
        pytest.skip("device nodes cannot be made here")
    _write(node)
    assert stat.S_ISCHR(node.stat().st_mode)
    assert os.listdir(tmp_path) == ["null"]
    (tmp_path / "link").symlink_to(node)
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISCHR(node.stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_open_file_of_a_process_is_written_through(tmp_path: Path) -> None:
    """/dev/stdout, where it is redirected: the file behind it is not replaced under its writer."""
    with (tmp_path / "redirected").open("wb") as file:
        inode = os.fstat(file.fileno()).st_ino
        _write(f"/proc/self/fd/{file.fileno()}")
    assert (tmp_path / "redirected").read_text() == "new"
    assert (tmp_path / "redirected").stat().st_ino == inode


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the paths of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="cannot write to .*socket: it is a socket; give the name of a file"):
            _write("socket")
    assert stat.S_ISSOCK(Path("socket").stat().st_mode)


def test_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("old")
    path.chmod(0o640)
    _write(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_output_is_checked_before_work_starts(tmp_path: Path) -> None:
    files.check_output(tmp_path / "model")
    for path, message in (
        ("", "the name of the file to write is empty"),
        (tmp_path, "is a folder"),
        (f"{tmp_path}/new/", "is a folder"),
        (tmp_path / "missing" / "model", "there is no folder"),
        (tmp_path / ("n" * 300), "too long"),
        (f"{tmp_path}/a\0b", "null byte"),
    ):
        with pytest.raises(OSError, match=message):
            files.check_output(path)
    assert os.listdir(tmp_path) == []


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".model-abcd_123.onnx", ".model-abcd_123.pt2", ".models-abcd_123.onnx", ".model-short.onnx"):
        (tmp_path / name).write_text("")
    with atomic_path(tmp_path / "model.onnx") as running:
        files.sweep_stale(tmp_path / "model.onnx")
        assert running.exists()
    left = [".model-abcd_123.pt2", ".model-short.onnx", ".models-abcd_123.onnx", "model.onnx"]
    assert sorted(os.listdir(tmp_path)) == left


def test_temporary_files_stay_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".model-abcd_123.onnx").write_text("")
    monkeypatch.setattr(files, "_lock", lambda handle: False)
    files.sweep_stale(tmp_path / "model.onnx")
    with atomic_path(tmp_path / "model.onnx") as path:
        path.write_text("new")
    assert sorted(os.listdir(tmp_path)) == [".model-abcd_123.onnx", "model.onnx"]


@pytest.mark.parametrize("links", [True, False])
def test_files_are_restored_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("old")

    def replace() -> None:
        with restored_on_error(old, new):
            with atomic_path(old) as path:
                path.write_text("new")
            new.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"old.txt": "old"}
    with restored_on_error(old):
        old.write_text("new")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"old.txt": "new"}
