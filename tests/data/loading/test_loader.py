import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from senet import DataError
from senet.data import Augmentation, ImageData, Loader, Preprocessing, open_data, open_loader
from senet.data.augmentation import crop_and_flip, draw, seed_of
from senet.data.loading.distributed import shard_batch
from senet.evaluation.evaluate import evaluate_loader
from tests.images import corrupt_jpeg, pack, picture, write_classes
from tests.training.small import small_network

# Torch warns where there are fewer cores than workers, and coverage of a worker that was stopped before it had work.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")

PREPROCESSING = Preprocessing(9, 8, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
AUGMENTATIONS = {
    "evaluation": None,
    "none": Augmentation(),
    "flip": Augmentation("none", True),
    "pad": Augmentation("pad", True, 2),
    "area": Augmentation("area", True),
    "randaugment": Augmentation("pad", True, 2, "rand-m9-mstd0.5-inc1"),
    "area randaugment": Augmentation("area", True, 2, "rand-m9-mstd0.5-inc1"),
}
# In worker processes, or in this one without memory.
UNCACHED: dict[str, int] = {"memory_limit": 0}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The checker of annotations draws from Python's generator which items of a sequence it looks at."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


class Pictures:
    """A source of distinct images of several sizes."""

    def read(self, index: int) -> Image.Image:
        return picture(index, 10 + index % 3, 12)

    def name(self, index: int) -> str:
        return f"picture {index}"


def pictures(images: int) -> ImageData:
    """Each image is a class of its own, so that labels identify the images of a batch."""
    return ImageData("pictures", Pictures(), np.arange(images), [str(n) for n in range(images)])


def uneven(*images: int) -> ImageData:
    """So many images of each class."""
    labels = np.repeat(np.arange(len(images)), images)
    return ImageData("pictures", Pictures(), labels, [str(n) for n in range(len(images))])


def epoch(loader: Loader, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(loader.epoch(number))


def assert_same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[1].dtype == other[1].dtype == torch.long


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["evaluation", "none", "flip", "pad", "randaugment"])
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_workers_give_the_same(kind: str, workers: int) -> None:
    options: dict[str, Any] = {"batch": 4, "seed": 3}
    memory = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], **options)
    read = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], **options, **UNCACHED, workers=workers)
    assert (memory.memory is None, read.memory is None) == (False, True)
    assert_same(epoch(memory, 5), epoch(read, 5))
    assert len(memory) == len(read) == len(epoch(memory))


@pytest.mark.parametrize("kind", ["area", "area randaugment"])
@pytest.mark.usefixtures("unchecked")
def test_areas_do_not_depend_on_workers(kind: str) -> None:
    loaders = [
        open_loader(pictures(7), PREPROCESSING, AUGMENTATIONS[kind], batch=3, workers=workers) for workers in (0, 1, 2)
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


@pytest.mark.parametrize("kind", ["pad", "area", "randaugment"])
@pytest.mark.parametrize("limit", [UNCACHED, {}])
@pytest.mark.usefixtures("unchecked")
def test_image_does_not_depend_on_its_batch(kind: str, limit: dict[str, int]) -> None:
    seen: list[dict[int, bytes]] = []
    for batch in (1, 3, 12):
        loader = open_loader(pictures(12), PREPROCESSING, AUGMENTATIONS[kind], batch=batch, seed=1, **limit)
        images = [pair for pixels, labels in epoch(loader, 4) for pair in zip(pixels, labels, strict=True)]
        seen.append({int(label): pixels.numpy().tobytes() for pixels, label in images})
    assert len(seen[0]) == 12
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("kind", ["none", "pad", "area", "randaugment"])
@pytest.mark.usefixtures("unchecked")
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


@pytest.mark.parametrize("limit", [UNCACHED, {}])
@pytest.mark.usefixtures("unchecked")
def test_randaugment_is_of_the_image_that_was_cropped_and_flipped(limit: dict[str, int]) -> None:
    """By timm's own transform, seeded by hand."""
    plain, policy = AUGMENTATIONS["pad"], AUGMENTATIONS["randaugment"]
    loaders = [open_loader(pictures(8), PREPROCESSING, kind, batch=4, seed=2, **limit) for kind in (plain, policy)]
    timms = rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": (102, 128, 153)})
    differing = 0
    for (pixels, labels), (augmented, same) in zip(*(epoch(loader, 6) for loader in loaders), strict=True):
        assert torch.equal(labels, same)
        for image, actual, label in zip(pixels, augmented, labels.tolist(), strict=True):
            random.seed(seed_of(2, 6, label))
            np.random.seed(seed_of(2, 6, label) % 2**32)
            assert torch.equal(actual, pil_to_tensor(timms(to_pil_image(image))))
            differing += not torch.equal(actual, image)
    assert differing > 4


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
@pytest.mark.parametrize("kind", ["pad", "area", "randaugment", "area randaugment"])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.usefixtures("unchecked")
def test_other_random_numbers_are_left_alone(limit: dict[str, int], kind: str, balanced: bool) -> None:
    # DataLoader took one from the global generator each epoch, and dropout then was another one.
    loader = open_loader(pictures(6), PREPROCESSING, AUGMENTATIONS[kind], batch=2, balanced=balanced, **limit)

    def states() -> list[str]:
        return [str(torch.get_rng_state().tolist()), repr(random.getstate()), repr(np.random.get_state())]

    before = states()
    epoch(loader)
    assert states() == before


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["evaluation", "pad", "area", "randaugment"])
@pytest.mark.parametrize("options", [{}, UNCACHED, {"balanced": True}], ids=["memory", "here", "balanced"])
def test_an_epoch_can_begin_at_a_step(kind: str, options: dict[str, Any]) -> None:
    loader = open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], batch=3, seed=4, **options)
    whole = epoch(loader, 7)
    for start in range(len(whole) + 1):
        assert_same(list(loader.epoch(7, start)), whole[start:])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["area", "randaugment"])
def test_worker_processes_can_begin_at_a_step(kind: str) -> None:
    here, workers = (
        open_loader(pictures(11), PREPROCESSING, AUGMENTATIONS[kind], batch=3, workers=workers) for workers in (0, 2)
    )
    assert_same(list(workers.epoch(7, 1)), epoch(here, 7)[1:])


@pytest.mark.parametrize("limit", [UNCACHED, {}])
def test_balanced_sampling_draws_each_class_as_often(limit: dict[str, int]) -> None:
    data = uneven(180, 15, 5)
    loader = open_loader(data, PREPROCESSING, Augmentation("pad", True, 2), batch=20, seed=1, balanced=True, **limit)
    assert len(loader) == 10
    labels = torch.cat([labels for number in range(3) for _, labels in epoch(loader, number)])
    counts = torch.bincount(labels)
    # 200 of each are expected in three epochs of 200 images, with a deviation of 11.5.
    assert int(counts.sum()) == 600
    assert int(counts.min()) > 150
    assert int(counts.max()) < 250


@pytest.mark.parametrize("kind", ["pad", "area", "randaugment"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_comes_twice_is_another_each_time(kind: str, workers: int) -> None:
    """What is random about it came from its index alone, and the few images of a rare class were the same all along."""
    options: dict[str, Any] = {"batch": 8, "balanced": True}
    loader = open_loader(uneven(39, 1), PREPROCESSING, AUGMENTATIONS[kind], workers=workers, **options)
    batches = epoch(loader)
    rare = [p.numpy().tobytes() for pixels, labels in batches for p in pixels[labels == 1]]
    assert len(rare) > 10
    assert len(set(rare)) > 0.6 * len(rare)
    assert_same(batches, epoch(open_loader(uneven(39, 1), PREPROCESSING, AUGMENTATIONS[kind], **options)))
    assert_same(list(loader.epoch(0, 2)), batches[2:])


def test_balanced_sampling_draws_each_image_of_a_class_as_often() -> None:
    loader = open_loader(uneven(40, 4), PREPROCESSING, Augmentation(), batch=44, balanced=True)
    drawn = torch.cat([loader._order(number) for number in range(100)])
    counts = torch.bincount(drawn, minlength=44)
    # Of 4,400 draws each class has 2,200: 55 for each of 40 images, and 550 for each of 4.
    assert int(counts[:40].min()) > 20
    assert int(counts[:40].max()) < 95
    assert int(counts[40:].min()) > 440
    assert int(counts[40:].max()) < 660


def test_balanced_sampling_depends_on_seed_and_epoch_alone() -> None:
    def labels(seed: int, number: int, batch: int = 4) -> list[int]:
        loader = open_loader(pictures(12), PREPROCESSING, Augmentation(), batch=batch, seed=seed, balanced=True)
        return [int(label) for _, some in epoch(loader, number) for label in some]

    seen = [labels(seed, number) for seed in (0, 1) for number in (0, 1)]
    torch.rand(3)
    assert seen == [labels(seed, number, 2) for seed in (0, 1) for number in (0, 1)]
    assert len(set(map(tuple, seen))) == 4


def test_balanced_sampling_leaves_out_images_that_cannot_be_read(broken: ImageData) -> None:
    loader = open_loader(broken, PREPROCESSING, Augmentation(), batch=6, skip_bad=True, balanced=True)
    counts = torch.bincount(torch.cat([labels for number in range(50) for _, labels in epoch(loader, number)]))
    assert int(counts.sum()) == 300
    assert 115 < int(counts[0]) < 185


def test_decoding_is_tracked() -> None:
    reported: list[object] = []

    def progress(steps: Iterable[int], total: int, what: str) -> Iterator[int]:
        reported.extend((total, what))
        for step in steps:
            reported.append(step)
            yield step

    open_loader(pictures(3), PREPROCESSING, batch=2, progress=progress)
    assert reported == [3, "decode pictures", 0, 1, 2]


@pytest.mark.parametrize("kind", ["pad", "randaugment"])
@pytest.mark.usefixtures("unchecked")
def test_grey_batches(kind: str) -> None:
    grey = Preprocessing(8, 8, (0.5,), (0.5,))
    loaders = [open_loader(pictures(4), grey, AUGMENTATIONS[kind], batch=2, memory_limit=limit) for limit in (0, 10**6)]
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
    """Classes a and b of four images; the third of a and the first of b are truncated."""
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


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_of_corrupt_images_alone_is_empty(broken: ImageData, workers: int) -> None:
    """A run that resumes at a step knows which one that is."""
    loader = open_loader(broken, PREPROCESSING, batch=1, skip_bad=True, workers=workers, **UNCACHED)
    batches = epoch(loader)
    assert [labels.tolist() for _, labels in batches] == [[0], [0], [], [0], [], [1], [1], [1]]
    assert len(loader) == len(batches)
    assert all(len(pixels) == len(labels) and labels.dtype == torch.long for pixels, labels in batches)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_evaluation_leaves_out_what_cannot_be_read(broken: ImageData, batch: int) -> None:
    model = small_network()
    found = [
        evaluate_loader(model, open_loader(broken, PREPROCESSING, batch=batch, skip_bad=True, **limit))
        for limit in (UNCACHED, {})
    ]
    assert found[0].images == found[1].images == 6
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-5)
    assert found[0].top1_error == found[1].top1_error
    assert [name[-8:] for name in found[0].skipped] == ["/a/2.jpg", "/b/0.jpg"]


def test_evaluation_without_any_readable_image(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 1, "b": 1})
    for path in root.rglob("*.png"):
        path.write_bytes(corrupt_jpeg())
    loader = open_loader(open_data(str(root)), PREPROCESSING, batch=1, skip_bad=True, **UNCACHED)
    with pytest.raises(DataError, match="has no readable image"):
        evaluate_loader(small_network(), loader)


def test_class_that_loses_all_its_images(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 2, "b": 0})
    (root / "b" / "0.jpg").write_bytes(corrupt_jpeg())
    with pytest.raises(DataError, match="the class 'b' of .* has no readable image; add some, or remove the class"):
        open_loader(open_data(str(root)), PREPROCESSING, batch=1, skip_bad=True)


@pytest.mark.parametrize("limit", [{}, UNCACHED], ids=["memory", "read"])
@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("kind", ["evaluation", "pad"])
def test_shares_make_the_batches_of_one_process(kind: str, world: int, limit: dict[str, int]) -> None:
    options: dict[str, Any] = {"batch": 6, "seed": 3, **limit}
    whole = epoch(open_loader(pictures(13), PREPROCESSING, AUGMENTATIONS[kind], **options), 2)
    loaders = [
        open_loader(pictures(13), PREPROCESSING, AUGMENTATIONS[kind], rank=rank, world_size=world, **options)
        for rank in range(world)
    ]
    parts = [epoch(loader, 2) for loader in loaders]
    assert {len(loader) for loader in loaders} == {len(whole)}
    for number, (pixels, labels) in enumerate(whole):
        shares = [part[number] for part in parts]
        # Labels identify images: each is in one share, with the pixels that it has in one process.
        found = {int(label): image for images, classes in shares for image, label in zip(images, classes, strict=True)}
        assert sum(len(classes) for _, classes in shares) == len(labels)
        assert sorted(found) == sorted(labels.tolist())
        assert all(torch.equal(found[int(label)], image) for image, label in zip(pixels, labels, strict=True))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("images", [1, 5, 6, 16, 24, 48])
def test_shares_are_even_and_in_order(images: int, world: int) -> None:
    shares = [shard_batch(images, rank, world).tolist() for rank in range(world)]
    assert sorted(place for some in shares for place in some) == list(range(images))
    assert all(some == sorted(some) for some in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    if images % (2 * world) == 0:
        # An image and the one that mixup mixes it with are in one share, as far from its ends.
        assert all([images - 1 - place for place in reversed(some)] == some for some in shares)


def test_parts_of_shares_are_shares_of_parts() -> None:
    for rank in range(2):
        parts = shard_batch(16, rank, 2).tensor_split(4)
        assert [set((part // 4).tolist()) for part in parts] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("part", [(1, 1), (-1, 2), (2, 2), (0, 0)])
def test_no_such_rank(part: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="rank must be 0 or more and below world_size, got rank="):
        open_loader(pictures(3), PREPROCESSING, batch=1, rank=part[0], world_size=part[1])


@pytest.mark.parametrize("world", [2, 3])
def test_evaluation_in_shares_counts_each_image_once(world: int) -> None:
    model = small_network()
    data = ImageData("pictures", Pictures(), np.array([0, 1, 2, 1, 0, 2, 2]), ["0", "1", "2"])
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3)
    whole = evaluate_loader(model, open_loader(data, preprocessing, batch=3))
    sums: list[Tensor] = []
    for rank in range(world):
        # What another process would add is what it has counted; the last one gets those of the others.
        def total(values: Tensor, last: bool = rank == world - 1) -> Tensor:
            sums.append(values)
            return torch.stack(sums).sum(0) if last else values

        loader = open_loader(data, preprocessing, batch=3, rank=rank, world_size=world)
        found = evaluate_loader(model, loader, total=total)
    assert found.images == whole.images == 7
    assert (found.top1_error, found.top5_error, found.classes) == (whole.top1_error, whole.top5_error, whole.classes)
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_image_too_long_for_its_resizing_is_left_out(memory: int, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"a": 2, "b": 2})
    Image.new("L", (1, 50_000)).save(root / "a" / "2.png")
    options: dict[str, Any] = {"batch": 2, "memory_limit": memory}
    preprocessing = Preprocessing(256, 8, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    with pytest.raises(DataError, match=r"image .*a/2.png: resized from 1x50,000, .*pixels.*--skip-bad"):
        list(open_loader(open_data(str(root)), preprocessing, **options).epoch())
    loader = open_loader(open_data(str(root)), preprocessing, skip_bad=True, **options)
    assert sum(len(labels) for _, labels in loader.epoch()) == 4
    assert [Path(name).name for name in loader.skipped] == ["2.png"]
