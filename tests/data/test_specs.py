from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from hypothesis import given
from hypothesis import strategies as st

from senet import DataError
from senet.data import ImageData, open_data, open_splits
from senet.data.specs import _split
from tests.images import pack, picture, write_classes


class Nothing:
    """A source that is not read."""

    def read(self, index: int) -> object:
        raise NotImplementedError

    def name(self, index: int) -> str:
        return str(index)


def names(data: ImageData) -> list[str]:
    return [data.name(index) for index in range(len(data))]


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="unknown split 'vall'; did you mean 'val'. Choose from: train, val."):
        open_data("digits", "vall")


def test_classes_of_training(tmp_path: Path) -> None:
    spec = str(write_classes(tmp_path, {"a": 1, "c": 1}))
    assert open_data(spec, classes=["c", "b", "a"]).labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="1 of 2 classes that training lacks: a; the 2 known classes are b, c"):
        open_data(spec, classes=["b", "c"])


def test_validation_data_elsewhere_follow_training(tmp_path: Path) -> None:
    training = write_classes(tmp_path / "t", {"a": 1, "b": 1, "c": 1})
    validation = write_classes(tmp_path / "v", {"c": 2, "b": 1})
    first, second = open_splits(str(training), str(pack(validation)))
    assert first.classes == second.classes == ["a", "b", "c"]
    assert second.labels.tolist() == [1, 2, 2]


def test_validation_split_of_the_elsewhere(tmp_path: Path) -> None:
    training = write_classes(tmp_path / "t", {"a": 2})
    write_classes(tmp_path / "v" / "train", {"a": 3})
    write_classes(tmp_path / "v" / "val", {"a": 1})
    assert [len(data) for data in open_splits(str(training), str(tmp_path / "v"))] == [2, 1]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_validation_class_that_training_lacks(tmp_path: Path, elsewhere: bool) -> None:
    write_classes(tmp_path / "train", {"a": 1})
    write_classes(tmp_path / "val", {"a": 1, "z": 1})
    specs = [str(tmp_path / "train"), str(tmp_path / "val")] if elsewhere else [str(tmp_path)]
    with pytest.raises(DataError, match="has 1 of 2 classes that training lacks: z; the 1 known classes are a"):
        open_splits(*specs)


def test_own_splits(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 3})
    write_classes(tmp_path / "val", {"b": 1})  # without the class a
    training, validation = open_splits(str(tmp_path))
    assert training.labels.tolist() == [0, 0, 1, 1, 1]
    assert validation.labels.tolist() == [1]
    np.testing.assert_array_equal(validation[0][0], picture(0))


def test_no_validation_split(tmp_path: Path) -> None:
    spec = str(write_classes(tmp_path, {"a": 2}))
    with pytest.raises(DataError, match=f"{spec} has no validation split; give --val-data SPEC or --val-fraction 0.1"):
        open_splits(spec)


def test_two_kinds_of_validation_data() -> None:
    with pytest.raises(ValueError, match="validation data or a fraction of the training data, not both"):
        open_splits("digits", "digits", 0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_fraction_that_cannot_be(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction for validation must be between 0 and 1, got {fraction}"):
        open_splits("digits", val_fraction=fraction)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.floats(0.001, 0.999))
def test_fraction_is_of_each_class(sizes: list[int], fraction: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    data = ImageData("data", Nothing(), labels, [str(n) for n in range(len(sizes))])  # type: ignore[arg-type]
    training, validation = _split(data, fraction)
    assert sorted([*names(training), *names(validation)]) == sorted(names(data))
    for label, size in enumerate(sizes):
        kept = int((validation.labels == label).sum())
        assert 1 <= kept < size
        assert abs(kept - fraction * size) <= 1
    again = _split(data, fraction)
    assert [names(part) for part in again] == [names(training), names(validation)]


def test_fraction_is_no_run_of_files() -> None:
    data = ImageData("data", Nothing(), np.zeros(100, dtype=int), ["a"])  # type: ignore[arg-type]
    kept = _split(data, 0.2)[1].indices
    assert len(kept) == 20
    assert set(np.diff(kept)) != {1}


def test_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    spec = str(write_classes(tmp_path, {"a": 3, "b": 1}))
    with pytest.raises(
        DataError, match="the class 'b' of .* has a single image, .*; add some, or give validation data"
    ):
        open_splits(spec, val_fraction=0.5)


def test_class_of_no_image_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Data sets of torchvision may list classes that they have no image of; it was "too few to split".
    class Listed:
        classes = ("a", "b", "c")
        targets = (0, 0, 2, 2)

        def __init__(self, root: str) -> None:
            assert root == str(tmp_path)

    monkeypatch.setattr(torchvision.datasets, "SEMEION", Listed)
    training, validation = open_splits(f"torchvision:SEMEION?root={tmp_path}", val_fraction=0.5)
    assert training.labels.tolist() == validation.labels.tolist() == [0, 2]
