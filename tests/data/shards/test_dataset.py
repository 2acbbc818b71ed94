"""Shards written and read: nothing lost, nothing changed, and every kind of damage named."""

import errno
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from senet import DataError
from senet.data import ImageData, open_data, open_splits
from senet.data.shards import shard_files
from senet.data.shards import writing as shard_writing
from senet.data.shards.index import make_rows, parse_index
from senet.data.shards.scanning import read_shards
from senet.data.shards.writing import damaged_shards, write_shards
from senet.utils.progress import no_progress
from tests.data.shard_sets import COUNTS, contents, foreign, png, write_set, write_source
from tests.images import corrupt_jpeg, picture, write_classes


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_same_images_and_classes(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    data = open_data(f"wds:{folder}", "train")
    assert contents(data) == contents(source)
    assert data.classes == source.classes
    assert not data.has_splits
    assert sorted(path.name for path in folder.glob("*.tar")) == [f"train-00000{n}.tar" for n in range(5)]
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_order_of_the_source(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path, keep_order=True)
    data = open_data(f"wds:{folder}", "train")
    assert data.labels.tolist() == source.labels.tolist()
    for index in range(len(source)):
        assert np.array_equal(np.asarray(data[index][0]), np.asarray(source[index][0]))
        assert data.name(index) == f"{folder}/train-{index // 5:06d}.tar/{index:08d}.png"


def test_random_order_mixes_classes(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    data = open_data(f"wds:{folder}", "train")
    assert data.labels.tolist() != sorted(data.labels.tolist())
    assert all(len(set(part.tolist())) > 1 for part in np.array_split(data.labels, 5))


def test_webdataset_reads_them(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    source, folder = write_set(tmp_path)
    shards = [{"url": str(path), "stream": io.BytesIO(path.read_bytes())} for path in sorted(folder.glob("*.tar"))]
    samples = list(group_by_keys(tar_file_expander(shards)))
    assert {sample["png"]: source.classes[int(sample["cls"])] for sample in samples} == contents(source)


@pytest.mark.parametrize("jobs", [1, 2])
def test_same_bytes_every_time(tmp_path: Path, jobs: int) -> None:
    source, folder = write_set(tmp_path)
    write_shards(source, tmp_path / "again", "train", images_per_shard=5, jobs=jobs)
    assert read_all(tmp_path / "again") == read_all(folder)


def test_pixels_become_png(tmp_path: Path) -> None:
    class Pixels:
        def read(self, index: int) -> Image.Image:
            return picture(index).convert(["RGB", "L", "CMYK"][index])

        def name(self, index: int) -> str:
            return f"pixels[{index}]"

    source = ImageData("pixels", Pixels(), np.array([0, 1, 0]), ["a", "b"])
    write_shards(source, tmp_path, "x", keep_order=True)
    data = open_data(f"wds:{tmp_path}")
    assert [data.read(index).mode for index in range(3)] == ["RGB", "L", "RGB"]
    for index in range(3):
        assert np.array_equal(np.asarray(data[index][0]), np.asarray(source[index][0]))


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("WEBP", "webp"), ("BMP", "bmp"), ("ICO", "png")])
def test_files_keep_their_bytes(tmp_path: Path, kind: str, extension: str) -> None:
    file = io.BytesIO()
    picture(0, 16, 16).save(file, kind)
    (tmp_path / "in" / "a").mkdir(parents=True)
    # Data sets name files as they like; the content says what they are.
    (tmp_path / "in" / "a" / "0.png").write_bytes(file.getvalue())
    source = open_data(str(tmp_path / "in"))
    write_shards(source, tmp_path / "out", "x")
    data = open_data(f"wds:{tmp_path / 'out'}")
    assert data.name(0).endswith(f"00000000.{extension}")
    assert np.array_equal(np.asarray(data[0][0]), np.asarray(source[0][0]))
    assert (extension == "png") != (file.getvalue() in contents(data))


def test_both_splits(tmp_path: Path) -> None:
    write_set(tmp_path, "train")
    write_set(tmp_path, "val", per=4)
    training, validation = open_splits(f"wds:{tmp_path / 'shards'}")
    assert training.has_splits
    assert (len(training), len(validation)) == (23, 23)
    assert "/val-000000.tar/" in validation.name(0)


def test_some_of_the_shards(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    whole, some = open_data(f"wds:{folder}"), open_data(f"wds:{folder}/train-{{000003..000001}}.tar")
    expected = [*range(15, 20), *range(10, 15), *range(5, 10)]
    assert [some.name(i) for i in range(15)] == [whole.name(i) for i in expected]
    assert some.labels.tolist() == whole.labels[expected].tolist()


@pytest.mark.parametrize(("megabytes", "shards"), [(0.004, 12), (1000, 1), (None, 8)])
def test_size_of_shards(tmp_path: Path, megabytes: float | None, shards: int) -> None:
    # An image of noise takes 300 bytes, and 1.5 kB with what a .tar adds: two to a shard of 4 kB.
    write_shards(write_source(tmp_path / "in"), tmp_path / "out", megabytes=megabytes)
    assert len(list((tmp_path / "out").glob("*.tar"))) == shards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_shard": 0}, "must be 1 or more.*got 1, 0"),
        ({"jobs": 0}, "must be 1 or more.*got 0"),
        ({"megabytes": -1}, "megabytes above 0 and below 1e\\+09; got 1, None and -1"),
        ({"megabytes": float("inf")}, "megabytes above 0 and below 1e\\+09; got 1, None and inf"),
        ({"megabytes": 1, "images_per_shard": 1}, "not both"),
        ({"name": "../x"}, "letters, digits.*got '../x'"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, object], message: str) -> None:
    source = write_source(tmp_path / "in", {"a": 1})
    with pytest.raises(ValueError, match=message):
        write_shards(source, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """SIGKILL while shards are written by two processes; the same call comes to the same bytes."""
    source, folder = write_set(tmp_path, per=2)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from senet.data import open_data\n"
        "from senet.data.shards import shard_files\n"
        "from senet.data.shards.writing import write_shards\n"
        "encoded = shard_files.encoded\n"
        "def slow(*a):\n    time.sleep(0.02)\n    return encoded(*a)\n"
        "shard_files.encoded = slow\n"
        "write_shards(open_data(sys.argv[1], 'train'), sys.argv[2], 'train', images_per_shard=2, jobs=2)\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, program, tmp_path / "source-train", out])
    while not list(out.glob("train-*.tar")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in out.glob("train-*.tar")}
    assert 0 < len(there) < 12
    write_shards(source, out, "train", images_per_shard=2)
    assert read_all(out) == read_all(folder)
    first = min(there, key=lambda path: there[path])
    assert first.stat().st_mtime_ns == there[first]  # it was not written again


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    (folder / ".train-000002-abcdefgh.tar").write_bytes(b"half")
    assert write_shards(source, folder, "train", images_per_shard=5).kept == 5
    assert not (folder / ".train-000002-abcdefgh.tar").exists()


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damaged_shard_is_named_and_repaired(tmp_path: Path, how: str) -> None:
    source, folder = write_set(tmp_path)
    before, path = read_all(folder), folder / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[1700] ^= 1
    if how == "flip":
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-512])
    else:
        path.unlink()
    said = {"flip": "its checksum is wrong", "cut": "instead of", "remove": "No such file"}[how]
    index, wrong = damaged_shards(folder, "train")
    assert len(index.shards) == 5
    assert len(wrong) == 1
    assert wrong[0].startswith(f"{path}: ")
    assert said in wrong[0]
    written = write_shards(source, folder, "train", images_per_shard=5)
    assert written.repaired == ("train-000001.tar",)
    assert written.kept == 4
    assert read_all(folder) == before
    assert damaged_shards(folder, "train")[1] == []


def test_damaged_image_is_named(tmp_path: Path) -> None:
    """A JPEG with a flipped bit often decodes all the same."""
    _, folder = write_set(tmp_path, keep_order=True)
    path = folder / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    data = open_data(f"wds:{folder}")
    with pytest.raises(
        DataError, match=r"train-000001.tar/00000005.png: its checksum differs from the index; copy this shard again"
    ):
        data[5]
    assert data[6]


@pytest.mark.parametrize("how", ["cut", "remove"])
def test_lost_shard_is_seen_at_once(tmp_path: Path, how: str) -> None:
    _, folder = write_set(tmp_path)
    path = folder / "train-000001.tar"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-512])
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"train-000001.tar.*(has 19,968 bytes, and 20,480 in the index|No such file)"):
        open_data(f"wds:{folder}")


def test_unreadable_image(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "in", {"a": 3, "b": 3})
    (root / "a" / "1.png").write_bytes(corrupt_jpeg())
    source = open_data(str(root))
    options = {"images_per_shard": 2, "keep_order": True}
    with pytest.raises(DataError, match=r"a/1.png.*leave such images out with --skip-bad"):
        write_shards(source, tmp_path / "out", **options)  # type: ignore[arg-type]
    # The same call with skip_bad continues in the same folder.
    written = write_shards(source, tmp_path / "out", skip_bad=True, **options)  # type: ignore[arg-type]
    assert written.index.left_out == (f"{root}/a/1.png",)
    assert [shard.images for shard in written.index.shards] == [1, 2, 2]
    data = open_data(f"wds:{tmp_path / 'out'}")
    assert contents(data) == contents(source.subset(np.array([0, 2, 3, 4, 5])))
    # All of it is kept, but not where none may be left out.
    assert write_shards(source, tmp_path / "out", skip_bad=True, **options).kept == 3  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"a/1.png"):
        write_shards(source, tmp_path / "out", **options)  # type: ignore[arg-type]


def test_no_readable_image(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="has no readable image"):
        write_shards(open_data(str(tmp_path / "in")), tmp_path / "out", skip_bad=True)


def test_other_shards_in_the_folder(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    before = read_all(folder)
    with pytest.raises(
        DataError, match=r"in use: it holds other shards named 'train'.*\(23 images in 5\); choose another"
    ):
        write_shards(source, folder, "train", images_per_shard=4)
    (folder / "train.index.json").unlink()
    with pytest.raises(DataError, match=r"in use: it holds train-00000\d.tar, which has no index; choose another"):
        write_shards(source, folder, "train", images_per_shard=5)
    (folder / ".train.plan").write_text("another")
    with pytest.raises(DataError, match=r"in use: it holds a part of other shards; choose another"):
        write_shards(source, folder, "train", images_per_shard=5)
    assert all(read_all(folder)[name] == content for name, content in before.items() if name.endswith(".tar"))


def test_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = write_set(tmp_path)
    monkeypatch.setattr(shard_writing, "_LOCK_TIMEOUT", 0.1)
    lock = FileLock(folder / ".lock")
    with lock, pytest.raises(DataError, match=r"another process is writing to .*shards: wait for it"):
        write_shards(source, folder, "train", images_per_shard=5)


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="out is a file; give a folder"):
        write_shards(write_source(tmp_path / "in", {"a": 1}), tmp_path / "out")


@pytest.mark.parametrize("jobs", [1, 2])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    source, out = write_source(tmp_path / "in"), tmp_path / "out"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Disk(shard_files._HashingFile):
        written = 0

        def write(self, content: bytes) -> int:
            Disk.written += len(content)
            if Disk.written > 30_000:
                raise full
            return super().write(content)

    with monkeypatch.context() as disk:
        disk.setattr(shard_files, "_HashingFile", Disk)
        with pytest.raises(OSError, match=r"cannot write .*out/x-00000\d.tar: No space left on device"):
            write_shards(source, out, "x", images_per_shard=5, jobs=jobs)
    assert 0 < len(list(out.glob("x-*.tar"))) < 5
    assert write_shards(source, out, "x", images_per_shard=5).kept > 0
    assert contents(open_data(f"wds:{out}")) == contents(source)


def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source(tmp_path / "in", {"a": 2})
    monkeypatch.setattr(shard_files, "sha256_of", lambda path: "another")
    with pytest.raises(DataError, match=r"images-000000.tar does not read back as written"):
        write_shards(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, encoded = write_source(tmp_path / "in"), tmp_path / "out", shard_files.encoded

    def deadly(data: ImageData, index: int) -> tuple[bytes, str]:
        if index == 7:
            for _ in range(1200):  # the records of the shards with images 0 to 5
                if len(list(out.glob(".*.tar.json"))) >= 3:
                    break
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return encoded(data, index)

    with monkeypatch.context() as death:
        death.setattr(shard_files, "encoded", deadly)
        with pytest.raises(DataError, match=r"a process that writes shards died: DataLoader worker"):
            write_shards(source, out, images_per_shard=2, jobs=2, keep_order=True)
    assert write_shards(source, out, images_per_shard=2, keep_order=True).kept >= 3
    assert contents(open_data(f"wds:{out}")) == contents(source)


# Shards of others


def test_foreign_shards_with_class_names(tmp_path: Path) -> None:
    foreign(
        tmp_path / "x-0.tar",
        {"a/1": {"png": png(1), "cls": b"dog\n", "json": b"{}"}, "a/b.c/2": {"cls": b"cat", "PNG": png(2)}},
    )
    foreign(
        tmp_path / "x-1.tar",
        {"__meta__/k": {"txt": b"-"}, "3": {"txt": b"no image"}, "4": {"jpg": png(4), "cls": b"cat"}},
    )
    data = open_data(f"wds:{tmp_path}/x-{{0..1}}.tar")
    assert data.classes == ["cat", "dog"]
    assert contents(data) == {png(1): "dog", png(2): "cat", png(4): "cat"}
    assert data.name(1) == f"{tmp_path}/x-0.tar/a/b.c/2.PNG"


def test_foreign_shards_with_class_indices(tmp_path: Path) -> None:
    foreign(tmp_path / "x-0.tar", {"1": {"png": png(1), "cls": b"2"}, "2": {"png": png(2), "cls": b"0"}})
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    spec = f"wds:{tmp_path}/x-0.tar"
    data = open_data(f"{spec}?classes={tmp_path}/names.txt")
    assert data.classes == ["ant", "bee", "cat"]
    assert data.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"class indices from 0 to 2 and no class names: give classes=FILE"):
        open_data(spec)
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"the class index 2, and .*names.txt names 2 classes"):
        open_data(f"{spec}?classes={tmp_path}/names.txt")
    with pytest.raises(DataError, match=r"cannot read the class list .*nowhere"):
        open_data(f"{spec}?classes={tmp_path}/nowhere")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"1": {"png": b"-"}}, r"1.png of the shard .* has no label \(KEY.cls\)"),
        ({"1": {"cls": b"0"}, "2": {"png": b"-"}}, r"2.png of the shard .* has no label"),
        ({"1": {"png": b"-", "jpg": b"-", "cls": b"0"}}, r"two images with the key '1'"),
        ({"1": {"png": b"-", "cls": b"x" * 1001}}, r"the label 1.cls .* has 1001 bytes"),
        ({"1": {"txt": b"-"}}, r"has no images \(.jpg, .png, .webp, .tif and other formats of Pillow\)"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, samples: dict[str, dict[str, bytes]], message: str) -> None:
    path = foreign(tmp_path / "x.tar", samples)
    with pytest.raises(DataError, match=message):
        open_data(f"wds:{path}")


@pytest.mark.parametrize("cut", [100, 512, 600, 3000])
def test_foreign_shard_cut_short(tmp_path: Path, cut: int) -> None:
    path = foreign(tmp_path / "x.tar", {str(n): {"png": png(n), "cls": b"a"} for n in range(3)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot read the shard .*x.tar: .*; give a complete, uncompressed .tar"):
        open_data(f"wds:{path}")


@pytest.mark.parametrize("how", ["{}", "pipe:cat {}"])
@pytest.mark.parametrize("damage", ["flip", "wipe", "cut", "no end"])
def test_foreign_shard_with_a_damaged_header(tmp_path: Path, damage: str, how: str) -> None:
    """Python takes it for the end of the archive, and the images behind it were left out in silence."""
    path = foreign(tmp_path / "x.tar", {str(n): {"png": png(n), "cls": b"a"} for n in range(5)})
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    content, third = bytearray(path.read_bytes()), members[4].offset
    if damage == "flip":
        content[third + 100] ^= 1
    elif damage == "wipe":
        content[third : third + 512] = b"x" * 512
    elif damage == "cut":
        content = content[:third]
    else:
        content = content[: members[-1].offset_data + 512]
    path.write_bytes(content)
    spec = f"wds:{how.format(path)}"
    with pytest.raises(DataError, match="x.tar: at byte [0-9,]+ it has neither a member nor the zeros that end a .tar"):
        read_shards(spec, [spec.removeprefix("wds:")], None, no_progress)


def test_a_command_outlives_its_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(2, 10_000))
    monkeypatch.setattr(os, "getppid", lambda: next(numbers))  # another parent whenever it looks
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("it ended"))
    source, folder = write_set(tmp_path)
    assert contents(open_data(f"wds:{folder}", "train")) == contents(source)


def test_images_that_have_changed_are_written_anew(tmp_path: Path) -> None:
    """Their names and labels are as they were, and shards of other pixels were taken for theirs."""
    source = write_source(tmp_path / "in")
    write_shards(source, tmp_path / "out", "train", images_per_shard=5)
    path = next((tmp_path / "in").rglob("1.png"))
    picture(99).save(path)
    written = write_shards(source, tmp_path / "out", "train", images_per_shard=5)
    assert (written.kept, len(written.repaired)) == (4, 1)
    assert contents(open_data(f"wds:{tmp_path}/out", "train")) == contents(source)
    assert write_shards(source, tmp_path / "out", "train", images_per_shard=5).kept == 5


@pytest.mark.parametrize("remote", [False, True])
def test_shards_of_others_are_verified_image_by_image(tmp_path: Path, remote: bool) -> None:
    path = foreign(tmp_path / "x-000000.tar", {str(n): {"png": png(n), "cls": b"a"} for n in range(5)})
    spec = f"wds:pipe:cat {path}" if remote else f"wds:{path}"
    index = read_shards(spec, [spec.removeprefix("wds:")], None, no_progress, "x", checksums=True)
    index.write(tmp_path)
    assert damaged_shards(tmp_path, "x")[1] == []
    content = bytearray(path.read_bytes())
    content[int(index.rows["offset"][3]) + 50] ^= 1
    path.write_bytes(content)
    assert damaged_shards(tmp_path, "x")[1] == [f"{path}: the checksum of 3.png is wrong"]
    index.rows["crc"] = -1
    index.write(tmp_path)
    assert "the index has no checksum of 0.png" in damaged_shards(tmp_path, "x")[1][0]


def test_a_key_with_a_dot(tmp_path: Path) -> None:
    samples = {"a": {"png": png(0), "cls": b"a"}, "b.001": {"png": png(1), "cls": b"a"}}
    with pytest.raises(DataError, match=r"no image for the key of b.001.png: a key ends at the first dot"):
        open_data(f"wds:{foreign(tmp_path / 'x.tar', samples)}")
    samples = {"a": {"png": png(0), "mask.png": png(2), "cls": b"a"}, "b": {"png": png(1), "cls": b"a"}}
    assert len(open_data(f"wds:{foreign(tmp_path / 'y.tar', samples)}")) == 2  # next to an image of its own


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_an_image_that_is_a_link(tmp_path: Path, kind: bytes) -> None:
    path = foreign(tmp_path / "x.tar", {"a": {"png": png(0), "cls": b"a"}})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("b.png")
        member.type, member.linkname = kind, "a.png"
        archive.addfile(member)
    with pytest.raises(DataError, match="the image b.png of the shard .*x.tar is a link"):
        open_data(f"wds:{path}")


def test_an_empty_line_among_classes(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.tar", {str(n): {"png": png(n), "cls": b"%d" % n} for n in range(2)})
    (tmp_path / "names").write_text("zero\n\none\n")
    with pytest.raises(DataError, match="line 2 of .*names is empty"):
        open_data(f"wds:{path}?classes={tmp_path}/names")
    (tmp_path / "names").write_text("zero\none\n\n")
    assert open_data(f"wds:{path}?classes={tmp_path}/names").classes == ["zero", "one"]


def test_remote_shards_keep_their_order(tmp_path: Path) -> None:
    source, folder = write_set(tmp_path)
    remote = open_data(f"wds:pipe:cat {folder}/train-{{000000..000004}}.tar?index={folder}/train.index.json")
    with pytest.raises(ValueError, match="can only be read in order.*--keep-order"):
        write_shards(remote, tmp_path / "copy")
    written = write_shards(remote, tmp_path / "copy", keep_order=True, images_per_shard=6)
    assert len(written.index.shards) == 4
    assert set(contents(open_data(f"wds:{tmp_path}/copy"))) == set(contents(source))


def rewritten(rows: np.ndarray, **kinds: str) -> np.ndarray:
    """Rows with fields of other kinds."""
    fields = {name: kinds.get(name, rows.dtype[name].str) for name in rows.dtype.names or ()}
    return rows.astype(list(fields.items()))


def overflowing(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows["offset"], rows["size"] = 2**62, 2**62  # whose sum is below zero
    return rows


@pytest.mark.parametrize(
    ("change", "table", "message"),
    [
        (lambda found: found | {"format": float("inf")}, None, "infinity"),
        (lambda found: found | {"shards": [found["shards"][0] | {"images": float("inf")}]}, None, "infinity"),
        (lambda found: [[[]]], None, "list indices"),
        (lambda found: found | {"shards": [found["shards"][0]] * 2}, None, "twice|images"),
        (None, lambda rows: b"PK\x03\x04", "cannot read the index here: "),
        (None, lambda rows: rewritten(rows, size="<f8"), "other fields"),
        (None, lambda rows: rewritten(rows, name="<U20"), "other fields"),
        (None, overflowing, "outside of its shard"),
        (None, lambda rows: np.concatenate([rows, rows]), "images"),
    ],
)
def test_hostile_index(tmp_path: Path, change: Any, table: Any, message: str) -> None:
    _, folder = write_set(tmp_path, per=23)
    text, rows = (folder / "train.index.json").read_bytes(), np.load(folder / "train.rows.npy")
    found = json.loads(text)
    if table is not None:
        made = table(rows)
        file = io.BytesIO()
        if isinstance(made, bytes):
            file.write(made)
        else:
            np.save(file, made)
        found["rows"]["sha256"] = hashlib.sha256(file.getvalue()).hexdigest()
        rows_text = file.getvalue()
    else:
        rows_text, found = (folder / "train.rows.npy").read_bytes(), change(found)
    with pytest.raises(DataError, match=message):
        parse_index(json.dumps(found).encode(), rows_text, "here")


def test_images_that_are_larger_than_their_shard(tmp_path: Path) -> None:
    """Of an index that does not say how large its shards are."""
    _, folder = write_set(tmp_path, per=23)
    found = json.loads((folder / "train.index.json").read_bytes())
    rows = np.load(folder / "train.rows.npy")
    rows["size"][3] = 2**61
    np.save(folder / "train.rows.npy", rows)
    found["rows"]["sha256"] = hashlib.sha256((folder / "train.rows.npy").read_bytes()).hexdigest()
    found["shards"][0]["bytes"] = 0
    (folder / "train.index.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="and more in the index: it is truncated"):
        open_data(f"wds:{folder}", "train")


def test_index_that_is_too_deep_or_too_large() -> None:
    with pytest.raises(DataError, match="cannot read the index here: it is nested too deeply; copy it"):
        parse_index(b"[" * 100_000, b"", "here")
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    found = {"format": 1, "name": "x", "rows": {"sha256": hashlib.sha256(file.getvalue()).hexdigest()}}
    with pytest.raises(DataError, match="here: an array is not of its size"):
        parse_index(json.dumps(found).encode(), file.getvalue(), "here")


def test_compressed_shard(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"cannot read the shard .*a compressed one as wds:pipe:zcat"):
        open_data(f"wds:{tmp_path}/x.tar")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wds:", r"expected wds:FOLDER"),
        ("wds:{tmp}", r"the folder .* has no index of shards \(\*.index.json\): write shards with senet shard"),
        ("wds:{tmp}/x-{{000000..000002}}.tar", r"3 of 3 shards do not exist, such as .*x-000000.tar"),
        ("wds:{tmp}/x-{{0..2.tar", r"has braces that do not match|are not there"),
        ("wds:{tmp}/x.tar?clases=a", r"unknown option of wds: 'clases'; did you mean 'classes'"),
        ("wds:{tmp}?classes=a", r"a folder of senet's own shards takes no classes"),
        ("wds:{tmp}/x.tar?streams=2", r"streams= is for shards over HTTP or a pipe"),
        ("wds:{tmp}/x.tar?streams=0", r"streams must be a whole number above 0, got '0'"),
        ("wds:x-{{0..9999999}}.tar", r"more than 100,000 shards"),
    ],
)
def test_specs_that_cannot_be(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(spec.format(tmp=tmp_path))


def test_several_sets_in_a_folder(tmp_path: Path) -> None:
    write_set(tmp_path, "a")
    write_set(tmp_path, "b")
    with pytest.raises(DataError, match=r"has shards named a, b; choose one, as in wds:.*/a-\{000000..000127\}.tar"):
        open_data(f"wds:{tmp_path / 'shards'}")


def test_shard_that_the_index_does_not_have(tmp_path: Path) -> None:
    _, folder = write_set(tmp_path)
    (folder / "train-000009.tar").write_bytes((folder / "train-000000.tar").read_bytes())
    with pytest.raises(DataError, match=r"train.index.json has 5 shards, .*, and none named 'train-000009.tar'"):
        open_data(f"wds:{folder}/train-{{000004,000009}}.tar")


# An index of a stranger


def spoil(folder: Path, change: object) -> None:
    index = json.loads((folder / "train.index.json").read_text())
    change(index)  # type: ignore[operator]
    (folder / "train.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "file", ["../x.tar", "/etc/passwd", "pipe:touch x", "http://host/x.tar", "a/b.tar", ".x", "a\nb"]
)
def test_index_names_only_files_in_its_folder(tmp_path: Path, file: str) -> None:
    _, folder = write_set(tmp_path)
    spoil(folder, lambda index: index["shards"][1].update(file=file))
    with pytest.raises(
        DataError, match=r"cannot read the index .*train.index.json: it names .*, which is not a file in its folder"
    ):
        open_data(f"wds:{folder}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.pop("classes"), r"it lacks 'classes'; copy it and its rows again"),
        (lambda index: index["classes"].pop(), r"it has 2 classes, and labels from 0 to 2"),
        (lambda index: index["shards"].pop(), r"its shards have 20 images, and its rows are 23"),
        (lambda index: index["rows"].update(sha256="0"), r"the checksum of train.rows.npy is wrong"),
        (lambda index: index.update(format=2, senet="9.0"), r"is of senet 9.0: upgrade"),
        (lambda index: index["shards"][0].update(bytes=100), r"an image lies outside of its shard"),
    ],
)
def test_damaged_index(tmp_path: Path, change: object, message: str) -> None:
    _, folder = write_set(tmp_path)
    spoil(folder, change)
    with pytest.raises(DataError, match=message):
        open_data(f"wds:{folder}")


def test_index_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/boom",)

    _, folder = write_set(tmp_path)
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    text = json.loads((folder / "train.index.json").read_text())
    for table in (file.getvalue(), pickle.dumps(Bomb())):
        text["rows"]["sha256"] = hashlib.sha256(table).hexdigest()
        with pytest.raises(DataError, match="cannot read the index x.index.json: "):
            parse_index(json.dumps(text).encode(), table, "x.index.json")
    assert not (tmp_path / "boom").exists()


def test_shards_run_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/boom",)

    bomb = pickle.dumps(Bomb())
    path = foreign(tmp_path / "x.tar", {"1": {"png": png(1), "cls": b"a", "pyd": bomb, "pickle": bomb, "pth": bomb}})
    assert open_data(f"wds:{path}")[0][1] == 0
    assert not (tmp_path / "boom").exists()


def test_rows_outside_of_the_shard() -> None:
    assert make_rows([(b"a", 0, 5, 7, -1)])["offset"].tolist() == [5]


def test_counts() -> None:
    assert sum(COUNTS.values()) == 23


@pytest.mark.parametrize(
    "name", ["{0..999999999}.tar", "{0..99999}-{0..99999}.tar", "{0.." + "9" * 100 + "}.tar", "{-99999999..0}.tar"]
)
def test_ranges_of_too_many_shards_are_refused_before_they_are_made(name: str) -> None:
    with pytest.raises(DataError, match=r"expands to more than 100,000 shards, which is the limit"):
        open_data(f"wds:{name}")


def test_range_with_a_step(tmp_path: Path) -> None:
    for number in (0, 500_000):
        foreign(tmp_path / f"{number}.tar", {"1": {"png": png(number), "cls": b"a"}})
    assert len(open_data(f"wds:{tmp_path}/{{0..500000..500000}}.tar")) == 2


def test_class_list_of_another_editor(tmp_path: Path) -> None:
    """A mark before the text, Windows' line ends, and letters in another Unicode form."""
    names = ["ant", "Käfer"]
    foreign(tmp_path / "x.tar", {"1": {"png": png(1), "cls": "Käfer".encode()}, "2": {"png": png(2), "cls": b"ant"}})
    text = "\r\n".join(unicodedata.normalize("NFD", name) for name in names)
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = open_data(f"wds:{tmp_path}/x.tar?classes={tmp_path}/names.txt")
    assert data.classes == names
    assert data.labels.tolist() == [1, 0]
    (tmp_path / "names.txt").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=r"cannot read the class list .*names.txt: it is UTF-16 text; save it as UTF-8"):
        open_data(f"wds:{tmp_path}/x.tar?classes={tmp_path}/names.txt")
