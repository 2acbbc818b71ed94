import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import senet
from senet import DataError, open_data
from senet.data import check_data, list_images
from senet.data.shards.dataset import index_spec
from tests.cli.helpers import answer, invoke
from tests.data.shard_sets import foreign
from tests.images import pack, picture, write_classes

# Of each kind an extension or two; the last are the same files by other names.
KINDS = [
    "jpg",
    "png",
    "webp",
    "bmp",
    "tif",
    "gif",
    "avif",
    "jp2",
    "ppm",
    "tga",
    "ico",
    "JPG",
    "jfif",
    "jpe",
    "TIFF",
    "Webp",
]
OTHERS = ["labels.csv", "README", "notes.txt", "x.npy", "x.eps", "x.h5"]


def write_kinds(root: Path) -> Path:
    """Two classes: of each kind an image in one and of PNG one in the other; and files that are no images."""
    write_classes(root, {"b": 1, "a": 0})
    for kind in KINDS:
        name = {"JPG": "jpg", "jfif": "jpg", "jpe": "jpg", "TIFF": "tif", "Webp": "webp"}.get(kind, kind)
        picture(0, 32, 32).save(root / "a" / f"x.{name}")
        (root / "a" / f"x.{name}").rename(root / "a" / f"{kind}.{kind}")
    for name in OTHERS:
        (root / "a" / name).write_text("none")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x.png", ".hidden/x.png", "__MACOSX/x.png"):
        (root / "a" / name).parent.mkdir(exist_ok=True)
        (root / "a" / name).write_text("none")
    return root


def test_all_kinds_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    # All but PNG and JPEG were passed over, and nothing said so.
    root = write_kinds(tmp_path)
    with pytest.warns(
        UserWarning, match=r"skipped 6 files, which are not images.*: .*a/README, .*labels.csv, .*, \.\.\.$"
    ):
        data = open_data(str(root))
    names = {Path(data.name(index)).name for index in range(len(data))}
    assert names == {f"{kind}.{kind}" for kind in KINDS} | {"0.png"}
    report = check_data(data, workers=0)
    assert report.ok
    assert (report.images, report.skipped_files.count) == (len(KINDS) + 1, len(OTHERS))
    for image, _ in data:
        assert image.mode == "RGB"
        assert 100 < np.asarray(image).mean() < 150


def test_command_line_reports_files_that_are_passed_over(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_kinds(tmp_path / split)
    result = invoke("train", "--data", tmp_path, "--check")
    assert result.exit_code == 0
    lines = "".join(result.stdout.splitlines())
    assert lines.count("skipped 6 files, which are not images by their extensions (.jpg, .png, .webp, ") == 2
    assert "a/README" in lines
    found = answer("train", "--data", tmp_path, "--check")
    assert found["validation"]["skipped_files"]["count"] == 6
    model = senet.create_model("resnet20", num_classes=2)
    model.pretrained_cfg["label_names"] = ["a", "b"]
    senet.save(model, tmp_path / "m.safetensors")
    for command in (
        ["evaluate", tmp_path / "m.safetensors", "--data", tmp_path],
        ["predict", tmp_path / "m.safetensors", tmp_path / "val"],
    ):
        result = invoke(*command)
        assert result.exit_code == 0, result.stderr
        assert result.stderr.startswith("warning: ")
        assert "skipped 6 files" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert len(answer("predict", tmp_path / "m.safetensors", tmp_path / "val", "--top", 1)) == len(KINDS) + 1


def test_links_to_folders_around_them_end(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"a": 1, "b": 1})
    (root / "a" / "again").symlink_to(root)
    (root / "c").symlink_to(write_classes(tmp_path / "elsewhere" / "c", {".": 1}))
    assert [Path(name).name for name in open_data(str(root)).classes] == ["a", "b", "c"]


def test_folder_of_torchvision_has_the_same_images(tmp_path: Path) -> None:
    # avif and jfif were passed over.
    with pytest.warns(UserWarning, match="skipped 6 files"):
        data = open_data(f"torchvision:ImageFolder?root={write_kinds(tmp_path)}")
    assert len(data) == len(KINDS) + 1
    assert all(isinstance(image, Image.Image) for image, _ in data)


def test_archives_have_the_same_images_and_count_the_rest(tmp_path: Path) -> None:
    root = write_kinds(tmp_path / "data")
    (root / "a" / "linked.png").hardlink_to(root / "a" / "png.png")
    with pytest.warns(UserWarning, match="skipped 7 files.*a/"):  # the second name of a file is a link in a tar
        data = open_data(str(pack(root)))
    assert len(data) == len(KINDS) + 1
    with pytest.warns(UserWarning, match="skipped 6 files"):
        folder = open_data(str(root))
    assert data.classes == folder.classes


def test_shards_have_the_same_images_and_count_the_rest(tmp_path: Path) -> None:
    # Images of other kinds were passed over, and nothing said so.
    samples = {}
    for number, kind in enumerate(("png", "avif", "jfif", "jp2", "webp")):
        file = io.BytesIO()
        picture(0, 32, 32).save(file, {"jfif": "JPEG", "jp2": "JPEG2000"}.get(kind, kind))
        samples[f"{number}"] = {kind: file.getvalue(), "cls": b"cat"}
    samples["7"] = {"npy": b"none", "cls": b"cat"}
    samples["8"] = {"json": b"{}"}
    samples["9"] = {"txt": b"none", "cls": b"cat"}
    foreign(tmp_path / "x-0.tar", samples)
    with pytest.warns(UserWarning, match=r"skipped 2 files.*: .*x-0.tar/7.npy, .*x-0.tar/9.txt$"):
        data = open_data(f"wds:{tmp_path}/x-0.tar")
    assert len(data) == 5
    assert check_data(data, workers=0).ok
    index = index_spec(f"wds:{tmp_path}/x-0.tar", progress=lambda steps, total, what: steps)
    index.write(tmp_path)
    with pytest.warns(UserWarning, match="skipped 2 files"):
        assert len(open_data(f"wds:{tmp_path}/x-{{0..0}}.tar")) == 5


def test_list_images(tmp_path: Path) -> None:
    write_classes(tmp_path, {"b": 2, "a": 1})
    (tmp_path / "a" / "notes.txt").write_text("")
    (tmp_path / "a" / "UPPER.JPG").write_text("")
    (tmp_path / "a" / "folder.png").mkdir()  # was taken for a file
    with pytest.warns(senet.DataWarning, match=r"skipped 1 file, .*: .*a/notes.txt$"):
        files = list_images([str(tmp_path / "b" / "1.png"), tmp_path / "a" / "notes.txt", tmp_path])
    names = [str(file.relative_to(tmp_path)) for file in files]
    assert names == ["b/1.png", "a/notes.txt", "a/0.png", "a/UPPER.JPG", "b/0.png", "b/1.png"]


def test_paths_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        DataError, match=rf"the folder {tmp_path} contains no images \(.jpg, .png, .webp, .tif and other"
    ):
        list_images([tmp_path])
    with pytest.raises(DataError, match=f"no image or folder at {tmp_path}/nowhere"):
        list_images([tmp_path / "nowhere"])
    for empty in ("", " "):  # the empty path was the working directory
        with pytest.raises(DataError, match=f"the name of an image or folder is empty, got '{empty}'; give one"):
            list_images([empty])
