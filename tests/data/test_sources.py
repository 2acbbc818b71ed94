import gzip
import hashlib
import pickle
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from sklearn.datasets import load_digits

from senet import DataError
from senet.data import ImageData, open_data
from tests.images import corrupt_jpeg, pack, picture, write_classes


def assert_images(data: ImageData, expected: list[tuple[Image.Image, str]]) -> None:
    """Every image and the name of its class."""
    assert len(data) == len(expected)
    for (image, label), (picture_, name) in zip(data, expected, strict=True):
        np.testing.assert_array_equal(image, picture_.convert("RGB"))
        assert data.classes[label] == name


@pytest.fixture(params=["folder", "tar", "tar of .", "tar of tars"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two images of the class 10 and one of 9, in every form."""
    root = write_classes(tmp_path / "data", {"10": 2, "9": 1})
    if request.param == "folder":
        return str(root)
    if request.param == "tar of tars":
        inner = [pack(root / name) for name in ("10", "9")]
        with tarfile.open(tmp_path / "data.tar", "w") as file:
            for path in inner:
                file.add(path, arcname=path.name)
        return str(tmp_path / "data.tar")
    return str(pack(root, prefix="./" if request.param == "tar of ." else ""))


def test_class_folders(container: str) -> None:
    data = open_data(container)
    assert data.classes == ["9", "10"]  # in natural order
    in_order = sorted(data, key=lambda pair: -pair[1])
    expected = [(picture(0), 1), (picture(1), 1), (picture(2), 0)]
    for (image, label), (picture_, index) in zip(in_order, expected, strict=True):
        np.testing.assert_array_equal(image, picture_)
        assert label == index
    assert not data.has_splits
    assert all(data.name(i).startswith(container) and data.name(i).endswith(".png") for i in range(3))
    assert len(open_data(container, "train")) == 3


def test_data_can_be_sent_to_another_process(container: str) -> None:
    # Where processes are spawned, as on macOS, pickling failed at a lambda.
    data = open_data(container)
    np.testing.assert_array_equal(data[0][0], pickle.loads(pickle.dumps(data))[0][0])


@pytest.mark.parametrize("split", ["train", "val"])
def test_folder_with_splits(tmp_path: Path, split: str) -> None:
    write_classes(tmp_path / "train", {"a": 1, "b": 2})
    write_classes(tmp_path / "val", {"b": 1})  # without the class a, which is no error
    data = open_data(str(tmp_path), split)
    assert data.has_splits
    if split == "train":
        assert_images(data, [(picture(0), "a"), (picture(1), "b"), (picture(2), "b")])
    else:
        assert_images(data, [(picture(0), "b")])


@pytest.mark.parametrize("packed", [False, True])
def test_names_alike_to_the_natural_order_have_an_order(tmp_path: Path, packed: bool) -> None:
    # It was that of a set of texts: another one in each process.
    root = write_classes(tmp_path / "data", {"Cat": 1, "01": 1, "cat": 1, "1": 1})
    data = open_data(str(pack(root) if packed else root))
    assert data.classes == ["01", "1", "Cat", "cat"]
    expected = {"Cat": 0, "01": 1, "cat": 2, "1": 3}
    for image, label in data:
        np.testing.assert_array_equal(image, picture(expected[data.classes[label]]))


def test_nested_class_folders_are_called_by_the_innermost(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"cat": 1})
    write_classes(tmp_path / "wild", {"bear": 1})
    assert open_data(str(tmp_path)).classes == ["bear", "cat"]


def test_class_may_be_called_train(tmp_path: Path) -> None:
    # It was taken for a split whose other half is missing.
    assert open_data(str(write_classes(tmp_path, {"car": 1, "train": 2}))).classes == ["car", "train"]


def missing(root: Path) -> str:
    return str(root / "nowhere")


def empty_folder(root: Path) -> str:
    return str(root)


def other_file(root: Path) -> str:
    (root / "data.tar.gz").write_bytes(b"")
    return str(root / "data.tar.gz")


def class_without_images(root: Path) -> str:
    write_classes(root, {"a": 1, "b": 0})
    (root / "b" / "notes.txt").write_text("none")
    return str(root)


def split_without_images(root: Path) -> str:
    write_classes(root / "train", {"a": 1})
    (root / "val").mkdir()
    return str(root)


def stray_image(root: Path) -> str:
    picture(0).save(write_classes(root, {"a": 1}) / "stray.png")
    return str(root)


def only_train(root: Path) -> str:
    write_classes(root / "train", {"a": 1})
    return str(root)


def only_val(root: Path) -> str:
    write_classes(root / "val", {"a": 1})
    return str(root)


def two_folders(root: Path) -> str:
    write_classes(root / "training", {"a": 1})
    write_classes(root / "validation", {"a": 1})
    return str(root)


def packed_splits(root: Path) -> str:
    write_classes(root / "data" / "train", {"a": 1})
    write_classes(root / "data" / "val", {"a": 1})
    return str(pack(root / "data"))


def packed_stray(root: Path) -> str:
    picture(0).save(write_classes(root / "data", {"a": 1}) / "stray.png")
    return str(pack(root / "data"))


def packed_stray_with_dot(root: Path) -> str:
    # Python's and tar's names begin with "./" there; the class was called ".".
    picture(0).save(write_classes(root / "data", {"a": 1}) / "stray.png")
    return str(pack(root / "data", prefix="./"))


def packed_text(root: Path) -> str:
    (root / "data" / "a").mkdir(parents=True)
    (root / "data" / "a" / "notes.txt").write_text("none")
    return str(pack(root / "data"))


def compressed(root: Path) -> str:
    archive = pack(write_classes(root / "data", {"a": 1}))
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    return str(archive)


def no_archive(root: Path) -> str:
    (root / "data.tar").write_text("no archive" * 200)
    return str(root / "data.tar")


def empty_archive(root: Path) -> str:
    (root / "data.tar").write_bytes(b"")
    return str(root / "data.tar")


@pytest.mark.parametrize(
    ("make", "what", "remedy"),
    [
        (missing, "nowhere' does not exist", "give digits, a folder with train/ and val/ of class folders, an"),
        (empty_folder, "found no images", "(.png, .jpg, .jpeg) in class folders of"),
        (other_file, "data.tar.gz' is a file of another kind", "an uncompressed .tar of class folders"),
        (class_without_images, "the class 'b' of", "has no readable image (.png, .jpg, .jpeg); add some or remove"),
        (split_without_images, "found no images", "in class folders of"),
        (stray_image, "stray.png lies in no class folder", "is to hold folders named by class"),
        (only_train, "has train/ but no val/; add it", "/train itself and the validation data as --val-data"),
        (only_val, "has val/ but no train/; add it", "/val itself"),
        (two_folders, "two folders for the class 'a', training/a and validation/a", "rename one, or give them apart"),
        (packed_splits, "two folders for the class 'a', train/a and val/a", "give them apart if they are two splits"),
        (packed_stray, "data.tar/stray.png lies in no class folder", "is to hold folders named by class"),
        (packed_stray_with_dot, "stray.png lies in no class folder", "is to hold folders named by class"),
        (packed_text, "found no images (.png, .jpg, .jpeg)", "in class folders of the archive"),
        (compressed, "cannot read the archive", "; give a whole, uncompressed .tar"),
        (no_archive, "cannot read the archive", "data.tar: invalid header; give a whole, uncompressed .tar"),
        (empty_archive, "cannot read the archive", "data.tar: empty file; give a whole, uncompressed .tar"),
    ],
)
def test_bad_data(tmp_path: Path, make: Any, what: str, remedy: str) -> None:
    spec = make(tmp_path)
    with pytest.raises(DataError) as caught:
        open_data(spec)
    assert what in str(caught.value)
    assert remedy in str(caught.value)


def test_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    # Python takes an archive that ends in a header for a whole one: its last images were missing in silence.
    archive = pack(write_classes(tmp_path / "data", {"a": 3, "b": 3}))
    content = archive.read_bytes()
    with tarfile.open(archive) as file:
        end = max(member.offset_data + 512 * -(-member.size // 512) for member in file)
    for length in {*range(0, end + 1, 128), end, end - 1}:
        archive.write_bytes(content[:length])
        with pytest.raises(DataError, match="data.tar"):
            open_data(str(archive))


@pytest.mark.parametrize("packed", [False, True])
def test_corrupt_image_is_named(tmp_path: Path, packed: bool) -> None:
    root = write_classes(tmp_path / "data", {"a": 2, "b": 2})
    (root / "a" / "1.jpg").write_bytes(corrupt_jpeg())
    (root / "a" / "1.png").unlink()
    spec = str(pack(root) if packed else root)
    data = open_data(spec)
    with pytest.raises(DataError, match=f"cannot read the image {spec}/a/1.jpg: "):
        data[1]
    np.testing.assert_array_equal(data[2][0], picture(2))  # those behind it are as they should be


@pytest.mark.parametrize("packed", [False, True])
def test_image_that_is_gone(tmp_path: Path, packed: bool) -> None:
    root = write_classes(tmp_path / "data", {"a": 1})
    path = pack(root) if packed else root / "a" / "0.png"
    data = open_data(str(path if packed else root))
    path.unlink()
    with pytest.raises(DataError, match="cannot read the image .*/a/0.png: No such file or directory"):
        data[0]


def test_digits_are_scikit_learns() -> None:
    training, validation = (open_data("digits", split) for split in ("train", "val"))
    images, labels = load_digits(return_X_y=True)
    assert len(training) + len(validation) == len(images) == 1797
    place = np.empty(1797, dtype=int)
    for data in (training, validation):
        assert (data.classes, data.has_splits) == (list("0123456789"), True)
        for position, index in enumerate(data.indices):
            small = Image.fromarray(np.rint(images[index].reshape(8, 8) * 255 / 16).astype(np.uint8))
            np.testing.assert_array_equal(
                data[position][0], small.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
            )
            assert data[position][1] == labels[index]
            place[index] = data is validation
    for digit in range(10):
        assert int(place[labels == digit].sum()) == (labels == digit).sum() // 5
    assert sorted([*training.indices, *validation.indices]) == list(range(1797))
    assert validation.name(0) == f"digits[{validation.indices[0]}]"


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"need scikit-learn: pip install 'senet\[demo\]'"):
        open_data("digits")


def write_pickle(path: Path, value: object) -> list[str]:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray[Any, Any], list[int]]]:
    """A CIFAR-10 of five images for training and three for validation, of three classes."""
    kind, folder = torchvision.datasets.CIFAR10, tmp_path / "cifar-10-batches-py"
    parts = {}
    for part, images in (("train", 5), ("test", 3)):
        pixels = np.random.default_rng(images).integers(0, 256, (images, 3, 32, 32), dtype=np.uint8)
        labels = [(2 * n) % 3 for n in range(images)]
        entry = write_pickle(folder / part, {"data": pixels.reshape(images, -1), "labels": labels})
        monkeypatch.setattr(kind, f"{part}_list", [entry])
        parts["train" if part == "train" else "val"] = (pixels.transpose(0, 2, 3, 1), labels)
    name, md5 = write_pickle(folder / "batches.meta", {"label_names": ["airplane", "automobile", "bird"]})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return parts


@pytest.mark.parametrize("split", ["train", "val"])
def test_torchvision_cifar(cifar: dict[str, Any], tmp_path: Path, split: str) -> None:
    data = open_data(f"torchvision:CIFAR10?root={tmp_path}", split)
    pixels, labels = cifar[split]
    assert_images(data, [(Image.fromarray(p), data.classes[n]) for p, n in zip(pixels, labels, strict=True)])
    assert data.classes == ["airplane", "automobile", "bird"]
    assert data.labels.tolist() == labels
    assert data.has_splits
    assert data.name(1) == f"CIFAR10 {split}[1]"


@pytest.mark.parametrize("split", ["train", "val"])
def test_torchvision_grey(tmp_path: Path, split: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 28, 28), dtype=np.uint8)
    labels = np.array([[3, 0, 1], [2, 2, 9]], dtype=np.uint8)
    for part, images, numbers in zip(("train", "t10k"), pixels, labels, strict=True):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 3, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 3) + numbers.tobytes())
    data = open_data(f"torchvision:MNIST?root={tmp_path}", split)
    at = ["train", "val"].index(split)
    assert data.labels.tolist() == labels[at].tolist()
    for index in range(3):
        np.testing.assert_array_equal(data[index][0], Image.fromarray(pixels[at, index]).convert("RGB"))


class Splits:
    """A data set in torchvision's form with named splits, without names of classes."""

    names = ("train",)

    def __init__(self, root: str, split: str = "train") -> None:
        if split not in self.names:
            raise ValueError(f"unknown split {split}")
        self.labels = [0, self.names.index(split), 3]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 2:
            raise OSError("image file is truncated")
        return picture(index), 0


@pytest.mark.parametrize(
    ("names", "taken"),
    [(("train", "test"), 1), (("train", "val", "test"), 1), (("train", "test", "val"), 2), (("train", "valid"), 1)],
)
def test_torchvision_names_of_splits(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], taken: int) -> None:
    monkeypatch.setattr(Splits, "names", names)
    monkeypatch.setattr(torchvision.datasets, "SVHN", Splits)
    assert open_data("torchvision:SVHN?root=x", "train").labels.tolist() == [0, 0, 3]
    data = open_data("torchvision:SVHN?root=x", "val")
    assert data.labels.tolist() == [0, taken, 3]
    assert data.classes == ["0", "1", "2", "3"]
    assert data.has_splits
    np.testing.assert_array_equal(data[1][0], picture(1))
    with pytest.raises(DataError, match=r"cannot read the image SVHN val\[2\]: image file is truncated"):
        data[2]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:cifar10?root=x", "unknown data set of torchvision 'cifar10'; did you mean 'CIFAR10'?"),
        ("torchvision:", "'torchvision:' is to read torchvision:NAME?root=DIR: unknown data set of torchvision ''"),
        ("torchvision:wrap_dataset_for_transforms_v2?root=x", "unknown data set of torchvision 'wrap_dataset"),
        ("torchvision:CIFAR10", "is to read torchvision:CIFAR10?root=DIR, with root and nothing else"),
        ("torchvision:CIFAR10?root=x&train=1", "is to read torchvision:CIFAR10?root=DIR, with root and nothing else"),
        ("torchvision:CIFAR10?root=nowhere", "to fetch it: torchvision.datasets.CIFAR10('nowhere', download=True)"),
        ("torchvision:CIFAR10?root=nowhere", "cannot open torchvision's CIFAR10 in nowhere, split 'val': Dataset not"),
        ("torchvision:FakeData?root=x", "cannot open torchvision's FakeData in x, split 'val': "),
        ("torchvision:VisionDataset?root=x", "its labels are not to be had without decoding every image"),
    ],
)
def test_bad_torchvision_spec(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data(spec)
    assert message in str(caught.value)


def test_torchvision_folder_without_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 1, "b": 2})
    data = open_data(f"torchvision:ImageFolder?root={tmp_path}")
    assert_images(data, [(picture(0), "a"), (picture(1), "b"), (picture(2), "b")])
    assert not data.has_splits


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 1, ".ipynb_checkpoints": 1})
    (root / "cat" / "._0.png").write_bytes(b"of macOS")
    (root / ".cache").mkdir()
    for spec in (root, pack(root)):
        data = open_data(str(spec))
        assert data.classes == ["cat", "dog"]
        assert data.labels.tolist() == [0, 0, 1]


def test_a_tar_of_hidden_files_has_no_images(tmp_path: Path) -> None:
    archive = pack(write_classes(tmp_path / "data", {".cache": 1}))
    with pytest.raises(DataError, match="found no images .* in class folders of the archive"):
        open_data(str(archive))


def test_images_beside_folders_of_images_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "cat/sub": 1, "dog": 1})
    with pytest.raises(DataError, match="the folder cat/sub of .* holds images, and so does a folder that it is in"):
        open_data(str(root))


def test_an_empty_name_is_not_this_folder() -> None:
    with pytest.raises(DataError, match="the data have no name; give digits, a folder"):
        open_data("")
