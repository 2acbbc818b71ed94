from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from senet.data import BadImage, ClassCount, ImageData, check_data, open_data
from tests.images import corrupt_jpeg, pack, picture, write_classes

# Torch warns where there are fewer cores than workers, and coverage of a worker that was stopped before it had work.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class a: 3 good images of several modes; b: a good and two broken ones; c: a broken one."""
    root = write_classes(tmp_path / "data", {"a": 1, "b": 1, "c": 0})
    picture(0, 30, 5).convert("L").save(root / "a" / "1.png")
    picture(0, 3, 40).convert("P").save(root / "a" / "2.png")
    (root / "b" / "1.jpg").write_bytes(corrupt_jpeg())
    (root / "b" / "2.png").write_bytes(b"no image")
    (root / "c" / "0.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_report(root: Path, workers: int, packed: bool) -> None:
    spec = str(pack(root) if packed else root)
    report = check_data(open_data(spec), workers=workers)
    assert report.spec == spec
    assert report.classes == (ClassCount("a", 3, 0), ClassCount("b", 3, 2), ClassCount("c", 1, 1))
    assert [bad.name for bad in report.bad] == [f"{spec}/b/1.jpg", f"{spec}/b/2.png", f"{spec}/c/0.png"]
    assert report.bad[0].reason.startswith("image file is truncated")
    assert [bad.reason for bad in report.bad[1:]] == ["it is not an image, or has an unknown format"] * 2
    assert (report.widths, report.heights) == ((3, 30), (5, 40))
    assert (report.grey, report.palette, report.images, report.ok) == (1, 1, 7, False)


def test_subsets_and_classes_of_others(root: Path) -> None:
    data = open_data(str(root)).subset(np.array([5, 0])).with_classes(["d", "a", "b"])
    report = check_data(data, workers=0)
    assert report.classes == (ClassCount("d", 0, 0), ClassCount("a", 1, 0), ClassCount("b", 1, 1))
    assert report.bad == (BadImage(f"{root}/b/2.png", "it is not an image, or has an unknown format"),)
    good = check_data(data.subset(np.array([1])), workers=0)
    assert (good.ok, good.widths, good.heights) == (True, (10, 10), (8, 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_readable_and_nothing_at_all(root: Path, workers: int) -> None:
    data = open_data(str(root))
    for keep in ([6], []):
        report = check_data(data.subset(np.array(keep, dtype=np.int64)), workers=workers)
        assert (report.widths, report.heights) == (None, None)
        assert (report.images, len(report.bad), report.ok) == (len(keep), len(keep), not keep)


def test_images_that_are_no_files() -> None:
    class Modes:
        """A source of decoded images."""

        modes = ("1", "L", "LA", "I", "F", "I;16", "P", "PA", "RGB", "RGBA", "CMYK")

        def read(self, index: int) -> Image.Image:
            return Image.new(self.modes[index], (4, 3))

        def name(self, index: int) -> str:
            return self.modes[index]

    report = check_data(ImageData("modes", Modes(), np.zeros(11, dtype=np.int64), ["x"]), workers=0)
    assert (report.grey, report.palette, report.images, report.bad) == (6, 2, 11, ())


def test_mode_without_a_way_to_rgb_is_bad(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(image: Image.Image, mode: str) -> Image.Image:
        raise ValueError(f"conversion from {image.mode} to {mode} not supported")

    monkeypatch.setattr(Image.Image, "convert", convert)
    bad = check_data(open_data(str(root)), workers=0).bad
    assert bad[1] == BadImage(f"{root}/a/1.png", "conversion from L to RGB not supported")


def test_progress(root: Path) -> None:
    reported: list[object] = []

    def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        reported.extend((total, what))
        for step in steps:
            reported.append(step)
            yield step

    check_data(open_data(str(root)), workers=1, progress=progress)
    assert reported == [7, f"check {root}", *range(7)]


@pytest.mark.parametrize("workers", [0, 2])
def test_other_random_numbers_are_left_alone(root: Path, workers: int) -> None:
    before = torch.get_rng_state()
    check_data(open_data(str(root)), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_negative_workers(root: Path) -> None:
    with pytest.raises(ValueError, match="workers must be 0 or more, got -1"):
        check_data(open_data(str(root)), workers=-1)


def test_every_image_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    class Counted:
        """A source that remembers what was read."""

        def read(self, index: int) -> Image.Image:
            read.append(index)
            return picture(index)

        def name(self, index: int) -> str:
            return str(index)

    check_data(ImageData("counted", Counted(), np.zeros(40, dtype=np.int64), ["x"]), workers=0)
    assert read == list(range(40))
