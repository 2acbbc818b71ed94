"""A part of Places365: its layout and its 365 categories, and file lists of a few images."""

from pathlib import Path

import pytest
import torch

import senet
from senet.data import open_data, open_splits
from senet.utils.errors import DataError
from tests.images import picture

NAMES = [f"/{'abcdefghijklm'[n // 30]}/scene_{n:03}" for n in range(365)]
CLASSES = [name.removeprefix(f"/{name[1]}/") for name in NAMES]
TRAINING = [3, 0, 364, 3]
VALIDATION = [364, 3, 3, 7]


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, 16, 16).save(path, quality=95)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "categories_places365.txt", [f"{name} {number}" for number, name in enumerate(NAMES)])
    training = [f"{NAMES[label]}/{seed:08}.jpg" for seed, label in enumerate(TRAINING)]
    validation = [f"Places365_val_{seed:08}.jpg" for seed in range(len(VALIDATION))]
    for files, labels, list_, folder in (
        (training, TRAINING, "places365_train_standard.txt", "data_256_standard"),
        (validation, VALIDATION, "places365_val.txt", "val_256"),
    ):
        write(tmp_path / list_, [f"{file} {label}" for file, label in zip(files, labels, strict=True)])
        for seed, file in enumerate(files):
            save(tmp_path / folder / file.lstrip("/"), seed)
    return tmp_path


def test_both_splits(root: Path) -> None:
    training, validation = open_splits(f"torchvision:Places365?root={root}&small=true")
    assert training.classes == validation.classes == CLASSES
    assert (training.labels.tolist(), validation.labels.tolist()) == (TRAINING, VALIDATION)
    assert [image.size for image, _ in validation] == [(16, 16)] * 4
    assert senet.data.check_data(training, workers=1).bad == ()  # worker processes get the data set as a pickle


def test_the_figures_of_table_6(root: Path) -> None:
    """Top-1 and top-5 error of a network that prefers scenes 3, 0, 1, 2 and 364, in this order, on every image."""
    model = senet.create_model("se_resnet20", num_classes=365)
    model.fc.weight.data.zero_()
    model.fc.bias.data.zero_()[[3, 0, 1, 2, 364]] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    found = senet.evaluate(model, f"torchvision:Places365?root={root}&small=true", resize=16, crop=16)
    assert (found.top1_error, found.top5_error, found.images) == (50.0, 25.0, 4)


def test_categories_in_any_order(root: Path) -> None:
    lines = [f"{name} {number}" for number, name in enumerate(reversed(NAMES))]
    write(root / "categories_places365.txt", lines)
    data = open_data(f"torchvision:Places365?root={root}&small=true")
    assert [data.classes[label] for label in data.labels] == [CLASSES[364 - label] for label in VALIDATION]
    write(root / "categories_places365.txt", lines[1:])
    with pytest.raises(
        DataError, match=r"Places365 in .*: categories_places365\.txt must number its categories from 0"
    ):
        open_data(f"torchvision:Places365?root={root}&small=true")


def test_missing_files_are_named(root: Path) -> None:
    (root / "places365_val.txt").unlink()
    with pytest.raises(DataError, match=r"cannot open torchvision's Places365 .*there is no file .*places365_val\.txt"):
        open_data(f"torchvision:Places365?root={root}&small=true")


def test_the_network_of_table_6_has_its_classes() -> None:
    with torch.device("meta"):
        model = senet.create_model("se_resnet152", num_classes=365)
    assert model.fc.out_features == 365
