import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from senet import DataError
from senet.data import Augmentation, ImageData, Loader, Preprocessing, open_data, open_loader
from senet.data.preprocessing import crop_and_flip, draw
from tests.images import corrupt_jpeg, pack, picture, write_classes

# Torch warns where there are fewer cores than workers, and coverage of a worker that was stopped before it had work.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")

PREPROCESSING = Preprocessing(9, 8, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
AUGMENTATIONS = {
    "evaluation": None,
    "none": Augmentation(),
    "flip": Augmentation("none", True),
    "pad": Augmentation("pad", True, 2),
    "area": Augmentation("area", True),
}
# In worker processes, or in this one without memory.
UNCACHED: dict[str, int] = {"memory_limit": 0}


class Pictures:
    """A source of distinct images of several sizes."""

    def read(self, index: int) -> Image.Image:
        return picture(index, 10 + index % 3, 12)

    def name(self, index: int) -> str:
        return f"picture {index}"


def pictures(images: int) -> ImageData:
    """Each image is a class of its own, so that labels tell which images a batch has."""
    return ImageData("pictures", Pictures(), np.arange(images), [str(n) for n in range(images)])


def epoch(loader: Loader, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(loader.epoch(number))


def assert_same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[1].dtype == other[1].dtype == torch.long


@pytest.mark.parametrize("kind", ["evaluation", "none", "flip", "pad"])
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_workers_give_the_same(kind: str, workers: int) -> None:
    options: dict[str, Any] = {"batch": 4, "seed": 3}
    memory = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], **options)
    read = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], **options, **UNCACHED, workers=workers)
    assert (memory.memory is None, read.memory is None) == (False, True)
    assert_same(epoch(memory, 5), epoch(read, 5))
    assert len(memory) == len(read) == len(epoch(memory))


def test_areas_do_not_depend_on_workers() -> None:
    loaders = [
        open_loader(pictures(7), PREPROCESSING, AUGMENTATIONS["area"], batch=3, workers=workers)
        for workers in (0, 1, 2)
    ]
    assert all(loader.memory is None for loader in loaders)  # an area is of the whole image
    first, *others = [epoch(loader, 2) for loader in loaders]
    for other in others:
        assert_same(first, other)


def test_batches_of_evaluation_are_the_images_in_order() -> None:
    data = pictures(5)
    batches = epoch(open_loader(data, PREPROCESSING, batch=2))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    expected = torch.stack([PREPROCESSING.pixels(data[index][0]) for index in range(5)])
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(5))


def test_batches_of_training_are_what_is_drawn() -> None:
    data, augmentation = pictures(10), Augmentation("pad", True, 3)
    batches = epoch(open_loader(data, PREPROCESSING, augmentation, batch=4, seed=8), 6)
    draws = draw(augmentation, 8, 6, 10)
    assert [labels.tolist() for _, labels in batches] == [draws.order[:4].tolist(), draws.order[4:8].tolist()]
    images = torch.stack([PREPROCESSING.pixels(data[index][0]) for index in range(10)])
    expected = crop_and_flip(images, draws.offsets, draws.flips, 3, [102.0, 127.5, 153.0])
    for pixels, labels in batches:
        assert torch.equal(pixels, expected[labels])


@pytest.mark.parametrize("kind", ["pad", "area"])
@pytest.mark.parametrize("limit", [UNCACHED, {}])
def test_image_does_not_depend_on_its_batch(kind: str, limit: dict[str, int]) -> None:
    seen: list[dict[int, bytes]] = []
    for batch in (1, 3, 12):
        loader = open_loader(pictures(12), PREPROCESSING, AUGMENTATIONS[kind], batch=batch, seed=1, **limit)
        images = [pair for pixels, labels in epoch(loader, 4) for pair in zip(pixels, labels, strict=True)]
        seen.append({int(label): pixels.numpy().tobytes() for pixels, label in images})
    assert len(seen[0]) == 12
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("kind", ["none", "pad", "area"])
def test_epochs_and_seeds_differ_and_repeat(kind: str) -> None:
    def batches(seed: int, number: int) -> list[bytes]:
        loader = open_loader(pictures(12), PREPROCESSING, AUGMENTATIONS[kind], batch=4, seed=seed)
        return [pixels.numpy().tobytes() for pixels, _ in epoch(loader, number)]

    assert batches(0, 1) == batches(0, 1)
    assert len({tuple(batches(seed, number)) for seed in (0, 1) for number in (0, 1)}) == 4


@pytest.mark.parametrize("kind", ["pad", "area"])
def test_order_of_an_epoch_takes_each_image_at_most_once(kind: str) -> None:
    loader = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], batch=3)
    labels = torch.cat([labels for _, labels in epoch(loader)])
    assert len(labels) == 9  # the smaller last batch is left out
    assert len(labels.unique()) == 9


def test_fewer_images_than_a_batch_still_train() -> None:
    loader = open_loader(pictures(3), PREPROCESSING, Augmentation(), batch=8)
    assert [len(labels) for _, labels in epoch(loader)] == [3]
    assert len(loader) == 1


@pytest.mark.parametrize(("images", "batch"), [(1, 1), (7, 3), (9, 3)])
def test_number_of_batches(images: int, batch: int) -> None:
    loader = open_loader(pictures(images), PREPROCESSING, batch=batch)
    assert len(loader) == len(epoch(loader)) == math.ceil(images / batch)
    assert loader.images == images


@pytest.mark.parametrize(("limit", "fits"), [(3 * 3 * 64, True), (3 * 3 * 64 - 1, False)])
def test_memory_limit_is_of_decoded_bytes(limit: int, fits: bool) -> None:
    loader = open_loader(pictures(3), PREPROCESSING, batch=2, memory_limit=limit)
    assert (loader.memory is not None) == fits


@pytest.mark.parametrize("limit", [UNCACHED, {}])
def test_other_random_numbers_are_left_alone(limit: dict[str, int]) -> None:
    # DataLoader took one from the global generator each epoch, and dropout then was another one.
    loader = open_loader(pictures(6), PREPROCESSING, Augmentation("pad", True), batch=2, **limit)
    before = torch.get_rng_state()
    epoch(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_decoding_is_tracked() -> None:
    told: list[object] = []

    def track(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        told.extend((total, what))
        for step in steps:
            told.append(step)
            yield step

    open_loader(pictures(3), PREPROCESSING, batch=2, track=track)
    assert told == [3, "decode pictures", 0, 1, 2]


def test_grey_batches() -> None:
    grey = Preprocessing(8, 8, (0.5,), (0.5,))
    loaders = [
        open_loader(pictures(4), grey, Augmentation("pad", True, 2), batch=2, memory_limit=limit)
        for limit in (0, 10**6)
    ]
    assert epoch(loaders[0])[0][0].shape == (2, 1, 8, 8)
    assert_same(epoch(loaders[0]), epoch(loaders[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be 1 or more and workers 0 or more, got 0 and 0"),
        ({"batch": 2, "workers": -1}, "batch must be 1 or more and workers 0 or more, got 2 and -1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_loader(pictures(3), PREPROCESSING, **options)  # type: ignore[arg-type]


def test_data_without_images() -> None:
    with pytest.raises(DataError, match="pictures has no images"):
        open_loader(pictures(3).subset(np.array([], dtype=np.int64)), PREPROCESSING, batch=1)


@pytest.fixture(params=["folder", "tar"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> ImageData:
    """Classes a and b of four images; the third of a and the first of b are cut short."""
    root = write_classes(tmp_path / "data", {"a": 4, "b": 4})
    for name in ("a/2", "b/0"):
        (root / f"{name}.png").rename(root / f"{name}.jpg")
        (root / f"{name}.jpg").write_bytes(corrupt_jpeg())
    return open_data(str(pack(root) if request.param == "tar" else root))


# In memory, in this process, and in worker processes.
READING = pytest.mark.parametrize(
    "options", [{}, UNCACHED, {**UNCACHED, "workers": 2}], ids=["memory", "here", "workers"]
)


@READING
def test_corrupt_image_stops(broken: ImageData, options: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"cannot read the image .*a/2.jpg: .*; leave such images out with --skip-bad"):
        epoch(open_loader(broken, PREPROCESSING, batch=3, **options))


@READING
def test_corrupt_images_are_left_out_and_counted_once(broken: ImageData, options: dict[str, int]) -> None:
    loader = open_loader(broken, PREPROCESSING, batch=3, skip_bad=True, **options)
    for number in (0, 1):
        batches = epoch(loader, number)
        assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1]
        expected = [PREPROCESSING.pixels(picture(seed)) for seed in (0, 1, 3, 5, 6, 7)]
        assert torch.equal(torch.cat([pixels for pixels, _ in batches]), torch.stack(expected))
    assert [name.rsplit("/data", 1)[1][-8:] for name in loader.skipped] == ["/a/2.jpg", "/b/0.jpg"]


def test_batch_of_corrupt_images_alone_is_no_batch(broken: ImageData) -> None:
    loader = open_loader(broken, PREPROCESSING, batch=1, skip_bad=True, **UNCACHED)
    assert [len(labels) for _, labels in epoch(loader)] == [1] * 6


def test_class_that_loses_all_its_images(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 2, "b": 0})
    (root / "b" / "0.jpg").write_bytes(corrupt_jpeg())
    with pytest.raises(DataError, match="the class 'b' of .* has no readable image; add some, or remove the class"):
        open_loader(open_data(str(root)), PREPROCESSING, batch=1, skip_bad=True)
