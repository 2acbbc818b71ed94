import gzip
import io
import pickle
import sys
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from senet import DataError
from senet.data import ImageData, open_data, open_splits
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


PLACES = ("a/airfield", "a/apartment/outdoor", "b/balcony/indoor", "b/balcony/outdoor", "z/zoo")


@pytest.mark.parametrize("packed", [False, True])
def test_innermost_folders_of_one_name_are_called_by_their_paths(tmp_path: Path, packed: bool) -> None:
    root = write_classes(tmp_path / "data", dict.fromkeys(PLACES, 1))
    data = open_data(str(pack(root, "./") if packed else root))
    assert_images(data, [(picture(n), name) for n, name in enumerate(PLACES)])
    assert data.classes == list(PLACES)


@pytest.mark.parametrize("lacking", ["train", "val", "neither"])
def test_both_splits_call_their_classes_alike(tmp_path: Path, lacking: str) -> None:
    # Innermost names distinguish the classes of one split, but not those of the other.
    for split in ("train", "val"):
        names = [name for name in PLACES if not (split == lacking and name == "a/apartment/outdoor")]
        write_classes(tmp_path / split, dict.fromkeys(names, 1))
    for split in ("train", "val"):
        classes = open_data(str(tmp_path), split).classes
        assert set(classes) == set(PLACES) - ({"a/apartment/outdoor"} if split == lacking else set())


def test_a_split_may_be_nested_and_the_other_not(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"pets/cat": 1, "wild/bear": 1})
    write_classes(tmp_path / "val", {"cat": 1, "bear": 1})
    assert [data.classes for data in open_splits(str(tmp_path))] == [["bear", "cat"]] * 2


def test_validation_may_have_the_class_train_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"car": 1, "train": 1})
    write_classes(tmp_path / "val", {"train": 1})
    assert open_splits(str(tmp_path))[1].labels.tolist() == [1]


def test_classes_of_a_hierarchy_may_share_names(tmp_path: Path) -> None:
    names = ["bike/green", "bike/red", "car/blue", "car/red"]
    assert open_data(str(write_classes(tmp_path, dict.fromkeys(names, 1)))).classes == names


def write_nothing(root: Path, folders: list[str], suffix: str) -> None:
    """Empty files: what is opened is not read."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(2):
            (root / folder / f"{folder.rpartition('/')[2]}_{number}{suffix}").touch()


WNIDS = [f"n{number:08}" for number in range(1000)]


def test_imagenet(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_nothing(tmp_path / split, WNIDS, ".JPEG")
    training, validation = open_splits(str(tmp_path))
    for data in (training, validation):
        assert data.classes == WNIDS
        assert data.labels.tolist() == [n for n in range(1000) for _ in range(2)]
    assert validation.name(1999) == str(tmp_path / "val" / WNIDS[-1] / f"{WNIDS[-1]}_1.JPEG")


def test_imagenets_tar_of_tars(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for seed, wnid in enumerate(WNIDS[:30]):
            image = io.BytesIO()
            picture(seed).save(image, "PNG")
            member = tarfile.TarInfo(f"{wnid}_7.JPEG")
            member.size = len(image.getvalue())
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as file:
                file.addfile(member, io.BytesIO(image.getvalue()))
            member = tarfile.TarInfo(f"{wnid}.tar")
            member.size = len(inner.getvalue())
            outer.addfile(member, io.BytesIO(inner.getvalue()))
    data = open_data(str(tmp_path / "ILSVRC2012_img_train.tar"))
    assert_images(data, [(picture(seed), wnid) for seed, wnid in enumerate(WNIDS[:30])])


def test_places365_in_its_easy_format(tmp_path: Path) -> None:
    names = ["airfield", "apartment_building-outdoor", "balcony-exterior"]
    for split in ("train", "val"):
        write_classes(tmp_path / split, dict.fromkeys(names, 1), ".jpg")
    assert [data.classes for data in open_splits(str(tmp_path))] == [names, names]


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


def nested_splits(root: Path) -> str:
    for split in ("Train", "Test"):
        write_classes(root / "set" / split, {"pets/cat": 1, f"wild/{split}": 1})
    return str(root)


def splits_of_other_names(root: Path) -> str:
    for split in ("seen", "unseen"):
        write_classes(root / split, {"a": 1, "b": 1})
    return str(root)


def flat(root: Path) -> str:
    picture(0).save(root / "ILSVRC2012_val_00000001.png")
    return str(root)


def flat_split(root: Path) -> str:
    write_classes(root, {"train/a": 1, "val": 2})
    return str(root)


def only_flat_split(root: Path) -> str:
    return str(write_classes(root, {"val": 2}))


def packed_flat(root: Path) -> str:
    return str(pack(write_classes(root / "data", {"": 2})))


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
        (empty_folder, "found no images", "(.jpg, .png, .webp, .tif and other formats of Pillow) in class folders of"),
        (other_file, "data.tar.gz' is a file of another kind", "an uncompressed .tar of class folders"),
        (
            class_without_images,
            "the class 'b' of",
            "has no readable image (.jpg, .png, .webp, .tif and other formats of Pillow); add some or remove",
        ),
        (split_without_images, "found no images", "in class folders of"),
        (stray_image, "stray.png is in no class folder", "must contain one folder for each class"),
        (only_train, "has train/ but no val/; add it", "/train itself and the validation data as --val-data"),
        (only_val, "has val/ but no train/; add it", "/val itself"),
        (
            two_folders,
            "two folders for the class 'a', training/a and validation/a",
            "rename one, or give them separately",
        ),
        (
            packed_splits,
            "two folders for the class 'a', train/a and val/a",
            "give them separately if they are two splits",
        ),
        (
            nested_splits,
            "folders for the class 'cat', set/Test/pets/cat and set/Train/pets/cat",
            "give them separately if",
        ),
        (splits_of_other_names, "two folders for the class 'a', seen/a and unseen/a", "give them separately if"),
        (flat, "holds images without class folders, such as", "put the images of each class into a folder named after"),
        (flat_split, "val holds images without class folders", "is sorted by torchvision:ImageNet?root=DIR, where"),
        (only_flat_split, "holds images without class folders, such as", "into a folder named after it"),
        (packed_flat, "data.tar holds images without class folders, such as", "into a folder named after it"),
        (packed_stray, "data.tar/stray.png is in no class folder", "must contain one folder for each class"),
        (packed_stray_with_dot, "stray.png is in no class folder", "must contain one folder for each class"),
        (
            packed_text,
            "found no images (.jpg, .png, .webp, .tif and other formats of Pillow)",
            "in class folders of the archive",
        ),
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


def test_archive_with_a_damaged_header(tmp_path: Path) -> None:
    archive = pack(write_classes(tmp_path / "data", {"a": 3, "b": 3}))
    with tarfile.open(archive) as file:
        offsets = [member.offset for member in file]
    content = archive.read_bytes()
    for offset in offsets:
        archive.write_bytes(content[: offset + 100] + b"x" + content[offset + 101 :])
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
    with pytest.raises(DataError, match=r"need scikit-learn \(.+\): pip install -e '\.\[demo\]'"):
        open_data("digits")


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


def test_images_next_to_folders_of_images_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "cat/sub": 1, "dog": 1})
    with pytest.raises(DataError, match="the folder cat/sub of .* holds images, and so does a folder that contains it"):
        open_data(str(root))


def test_an_empty_name_is_not_this_folder() -> None:
    with pytest.raises(DataError, match="the data spec is empty; give digits, a folder"):
        open_data("")


def with_header(path: Path, **headers: str) -> Path:
    """An archive of two classes whose second member has extended headers."""
    file = io.BytesIO()
    picture(0).save(file, "PNG")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("ant", "bee"):
            member = tarfile.TarInfo(f"{name}/0.png")
            member.size = len(file.getvalue())
            member.pax_headers = headers if name == "bee" else {}
            archive.addfile(member, io.BytesIO(file.getvalue()))
    return path


@pytest.mark.parametrize("how", ["{}", "wds:{}", "wds:pipe:cat {}"])
@pytest.mark.parametrize("size", ["99999999999999999999", "100000000000000", "-5"])
def test_size_that_no_archive_has(tmp_path: Path, size: str, how: str) -> None:
    """Python's reader of streams runs through the range."""
    from senet.data.shards.dataset import index_spec

    spec = how.format(with_header(tmp_path / "data.tar", size=size))
    with pytest.raises(
        DataError, match=r"cannot read the (archive|shard) .*data.tar.*(bee/0.png|unexpected end|at byte)"
    ):
        index_spec(spec, progress=lambda steps, *_: steps) if "pipe" in spec else open_data(spec)


def test_sparse_member_is_refused(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.size": "9" * 9, "GNU.sparse.map": "0,1"}
    with pytest.raises(DataError, match="cannot read the archive .*data.tar"):
        open_data(str(with_header(tmp_path / "data.tar", **headers)))


def test_folders_whose_names_differ_in_their_unicode_form_alone(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD")]
    write_classes(tmp_path / "train", {names[0]: 1, "ant": 1})
    write_classes(tmp_path / "val", {names[1]: 1, "ant": 1})
    training, validation = open_splits(str(tmp_path))
    assert training.classes == validation.classes == ["ant", names[0]]
    assert pack(tmp_path / "val").exists()
    assert open_data(f"{tmp_path}/val.tar", classes=[names[1], "ant"]).labels.tolist() == [1, 0]
    write_classes(tmp_path / "train", {names[1]: 1})
    with pytest.raises(DataError, match="two folders for the class .* different Unicode forms: 'Ka.u0308fer' and"):
        open_data(str(tmp_path), "train")
