import inspect
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from senet import DataError
from senet.data import ImageData, open_data, open_splits
from senet.data.sources.torchvision_sets import _REFUSED
from tests.data.torchvision_layouts import BOTH, LAYOUTS, OPTIONS, Truth, write
from tests.images import corrupt_jpeg, write_classes

# Sets whose split is not one of training and validation, and those that are opened at a split of their own.
ONE_SPLIT = {"Caltech101", "Caltech256", "EuroSAT", "INaturalist_2018", "INaturalist_kingdom", "ImageFolder"}
ONE_SPLIT |= {"Omniglot", "SEMEION", "SUN397"}


def contents(pairs: list[tuple[Image.Image, str]]) -> list[tuple[str, bytes]]:
    return sorted((name, np.asarray(image.convert("RGB")).tobytes()) for image, name in pairs)


def assert_same_images(data: ImageData, expected: list[tuple[Image.Image, str]]) -> None:
    """The same images with the same names of classes, in any order; and labels that agree with the images."""
    pairs = [data[index] for index in range(len(data))]
    assert [label for _, label in pairs] == data.labels.tolist()
    assert contents([(image, data.classes[label]) for image, label in pairs]) == contents(expected)


@pytest.fixture(params=LAYOUTS)
def laid_out(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Truth]:
    """The name of a data set, its spec, and its true content."""
    name = request.param
    truth = LAYOUTS[name](tmp_path, monkeypatch)
    return name, f"torchvision:{name.partition('_')[0]}?root={tmp_path}{OPTIONS[name]}", truth


@pytest.mark.parametrize("split", BOTH)
def test_every_data_set(laid_out: tuple[str, str, Truth], split: str) -> None:
    name, spec, truth = laid_out
    data = open_data(spec, split)
    assert_same_images(data, truth[split])
    assert data.has_splits == (name not in ONE_SPLIT)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0][0], data[0][0])


def test_labels_need_no_image(laid_out: tuple[str, str, Truth], monkeypatch: pytest.MonkeyPatch) -> None:
    _, spec, truth = laid_out

    def refused(*args: object, **options: object) -> Any:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refused)
    data = open_data(spec)
    assert sorted(data.classes[n] for n in data.labels) == sorted(name for _, name in truth["val"])


def test_every_data_set_is_read_or_refused() -> None:
    classes = {n for n in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, n))}
    read = {name.partition("_")[0] for name in LAYOUTS} | {"PCAM"}
    refused = {name for names in _REFUSED.values() for name in names}
    assert read | refused == classes | {"LSUNClass"}
    assert not read & refused


@pytest.mark.parametrize("name", [name for names in _REFUSED.values() for name in names if name != "LSUNClass"])
def test_data_that_are_not_for_classification(name: str) -> None:
    with pytest.raises(DataError, match=f"torchvision's {name} is not for classification here: "):
        open_data(f"torchvision:{name}?root=x")


class FakeFile:
    """What torchvision uses of h5py, on NumPy's own files."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path)

    def __enter__(self) -> Any:
        return self._arrays

    def __exit__(self, *error: object) -> None:
        self._arrays.close()


@pytest.fixture
def pcam(tmp_path: Path) -> str:
    for seed, part in enumerate(("train", "valid", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
        labels = np.array([0, 1, 1], dtype=np.uint8).reshape(3, 1, 1, 1)
        (tmp_path / "pcam").mkdir(exist_ok=True)
        for key, value in (("x", pixels), ("y", labels)):
            with (tmp_path / "pcam" / f"camelyonpatch_level_2_split_{part}_{key}.h5").open("wb") as file:
                np.savez(file, **{key: value})
    return f"torchvision:PCAM?root={tmp_path}"


@pytest.mark.parametrize("split", BOTH)
def test_pcam(pcam: str, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = types.ModuleType("h5py")
    h5py.File = FakeFile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    data = open_data(pcam, split)
    pixels = np.random.default_rng(BOTH.index(split)).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    assert (data.classes, data.labels.tolist()) == (["0", "1"], [0, 1, 1])
    for sent in (data, pickle.loads(pickle.dumps(data))):  # it holds a module, which does not pickle
        for index in range(3):
            np.testing.assert_array_equal(sent[index][0], pixels[index])


def test_missing_packages_are_named(pcam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="torchvision's PCAM needs h5py: pip install h5py"):
        open_data(pcam)
    LAYOUTS["SVHN"](tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match="torchvision's SVHN needs scipy.io: pip install scipy"):
        open_data(f"torchvision:SVHN?root={tmp_path}")


def test_split_that_the_spec_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = LAYOUTS["SVHN"](tmp_path, monkeypatch)
    for split in BOTH:
        data = open_data(f"torchvision:SVHN?root={tmp_path}&split=test", split)
        assert_same_images(data, truth["val"])
        assert not data.has_splits
    assert data.name(1) == "SVHN test[1]"
    with pytest.raises(DataError, match="has no validation split; give --val-data SPEC"):
        open_splits(f"torchvision:SVHN?root={tmp_path}&split=train")


@pytest.mark.parametrize(
    ("name", "option"), [("MNIST", "train=false"), ("QMNIST", "what=test"), ("CIFAR10", "train=0")]
)
def test_split_that_the_spec_names_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: str
) -> None:
    truth = LAYOUTS[name](tmp_path, monkeypatch)
    data = open_data(f"torchvision:{name}?root={tmp_path}&{option}", "train")
    assert data.name(0) == f"{name} test[0]"
    assert_same_images(data, truth["val"])
    assert not data.has_splits


def test_own_split_is_not_replaced_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the validation split could not be read, the test split was taken.
    LAYOUTS["Country211"](tmp_path, monkeypatch)
    (tmp_path / "country211" / "valid").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="cannot open torchvision's Country211 in .*, split 'val': .*valid"):
        open_data(f"torchvision:Country211?root={tmp_path}")


def test_two_classes_of_one_name_stay_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ImageNet has two cranes; the validation images of the machine were given the label of the bird.
    LAYOUTS["ImageNet"](tmp_path, monkeypatch)
    _, validation = open_splits(f"torchvision:ImageNet?root={tmp_path}")
    assert validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert validation.classes == ["tench, Tinca tinca", "crane", "crane"]


@pytest.mark.parametrize("name", ["INaturalist_2018", "SUN397"])
def test_order_is_not_that_of_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS[name](tmp_path, monkeypatch)
    spec = f"torchvision:{name.partition('_')[0]}?root={tmp_path}{OPTIONS[name]}"
    expected = [image.tobytes() for image, _ in open_data(spec)]
    listed, found = torchvision.datasets.inaturalist.os.listdir, Path.rglob
    monkeypatch.setattr(torchvision.datasets.inaturalist.os, "listdir", lambda path: listed(path)[::-1])
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: list(found(path, pattern))[::-1])
    assert [image.tobytes() for image, _ in open_data(spec)] == expected


@pytest.mark.parametrize("name", ["DTD", "Caltech101", "OxfordIIITPet", "INaturalist"])
def test_broken_image_is_a_data_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS[name](tmp_path, monkeypatch)
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"no image")
    data = open_data(f"torchvision:{name}?root={tmp_path}{OPTIONS[name]}")
    with pytest.raises(DataError, match="cannot read the image "):
        data[0]


def test_image_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["DTD"](tmp_path, monkeypatch)
    data = open_data(f"torchvision:DTD?root={tmp_path}&partition=2")
    (tmp_path / "dtd/dtd/images/woven/woven_1.jpg").write_bytes(corrupt_jpeg())
    (tmp_path / "dtd/dtd/images/banded/banded_1.jpg").unlink()
    with pytest.raises(DataError, match="cannot read the image .*woven/woven_1.jpg: .*truncated"):
        data[0]
    with pytest.raises(DataError, match="cannot read the image .*banded/banded_1.jpg: No such file"):
        data[1]


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 997).reshape(6, 11)
    (tmp_path / "a").mkdir()
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a" / "0.png")
    image, _ = open_data(f"torchvision:ImageFolder?root={tmp_path}")[0]
    np.testing.assert_array_equal(np.asarray(image)[:, :, 0], values // 256)


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SEMEION and others fetch unless download=False.
    def refused(*args: object, **options: object) -> Any:
        raise AssertionError("a download")

    monkeypatch.setattr("torchvision.datasets.semeion.download_url", refused)
    with pytest.raises(DataError, match=r"to download it: torchvision.datasets.SEMEION\('.*', download=True\)"):
        open_data(f"torchvision:SEMEION?root={tmp_path}")


def test_labels_that_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["CLEVRClassification"](tmp_path, monkeypatch)
    with pytest.raises(DataError, match="split 'test', has images without labels; give another split"):
        open_data(f"torchvision:CLEVRClassification?root={tmp_path}&split=test")
    LAYOUTS["STL10"](tmp_path, monkeypatch)
    write(tmp_path / "stl10_binary" / "unlabeled_X.bin", bytes(3 * 96 * 96))
    with pytest.raises(DataError, match="STL10, split 'unlabeled', has images without labels"):
        open_data(f"torchvision:STL10?root={tmp_path}&split=unlabeled")


def test_a_plus_in_a_folder(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "c++ & co", {"a": 1})
    assert len(open_data(f"torchvision:ImageFolder?root={str(root).replace('&', '%26')}")) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar10?root=ROOT", "unknown data set of torchvision 'cifar10'; did you mean 'CIFAR10'?"),
        ("", "invalid spec 'torchvision:': expected torchvision:NAME?root=DIR: unknown data set of torchvision ''"),
        ("wrap_dataset_for_transforms_v2?root=ROOT", "unknown data set of torchvision 'wrap_dataset"),
        ("CIFAR10", "'torchvision:CIFAR10' lacks root: add ?root=DIR"),
        ("EMNIST?root=ROOT", "lacks split: add &split=VALUE"),
        ("CIFAR10?root", "has an invalid option 'root': expected key=value"),
        ("CIFAR10?root=ROOT&root=b", "gives root twice; give it once"),
        ("DTD?root=ROOT&partion=2", "unknown option of torchvision:DTD 'partion'; did you mean 'partition'?"),
        ("DTD?root=ROOT&download=true", "unknown option of torchvision:DTD 'download'"),
        ("DTD?root=ROOT&loader=eval", "unknown option of torchvision:DTD 'loader'"),
        ("DTD?root=ROOT&partition=two", "partition must be a whole number, got 'two'"),
        ("STL10?root=ROOT&folds=x", "folds must be a whole number, got 'x'"),
        ("MNIST?root=ROOT&train=maybe", "train must be true or false, got 'maybe'"),
        ("SVHN?root=ROOT&split=tset", "Unknown value 'tset' for argument split. Valid values are {'train', 'test',"),
        ("Caltech101?root=ROOT&target_type=annotation", "target_type=annotation gives no class for an image"),
        ("CIFAR10?root=nowhere", "cannot open torchvision's CIFAR10 in nowhere, split 'val': there is no such folder"),
        ("CIFAR10?root=nowhere", "to download it: torchvision.datasets.CIFAR10('nowhere', train=False, download=True)"),
        ("CIFAR10?root=ROOT", "in ROOT, split 'val': Dataset not found or corrupted."),
        ("EMNIST?root=nowhere&split=letters", "EMNIST('nowhere', split='letters', train=False, download=True)"),
    ],
)
def test_bad_spec(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data(f"torchvision:{spec.replace('ROOT', str(tmp_path))}")
    assert message in str(caught.value).replace(str(tmp_path), "ROOT")


def test_what_cannot_be_fetched_is_not_offered(tmp_path: Path) -> None:
    for name in ("LFWPeople", "StanfordCars", "FER2013"):
        with pytest.raises(DataError, match=f"cannot open torchvision's {name}") as caught:
            open_data(f"torchvision:{name}?root={tmp_path}")
        assert "to fetch it" not in str(caught.value)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({}, "its labels are available only by decoding every image"),
        ({"labels": []}, "split 'val', has no images"),
        ({"labels": [0, 2], "classes": ["a", "b"]}, "has the label 2, but only 2 class names"),
    ],
)
def test_data_set_that_says_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: dict[str, object], message: str
) -> None:
    class Later:
        """A data set of a later version of torchvision."""

        def __init__(self, root: str) -> None:
            vars(self).update(kept)

    monkeypatch.setattr(torchvision.datasets, "EuroSAT", Later)
    with pytest.raises(DataError, match=message):
        open_data(f"torchvision:EuroSAT?root={tmp_path}")
