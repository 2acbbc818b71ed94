from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from senet.data import Augmentation, BoxData, Loader, Preprocessing, open_data, open_loader
from senet.data.boxes import unpack
from senet.data.loading.grouping import grouped
from senet.utils.errors import DataError
from tests.data.coco_sets import write_coco

# Torch warns where there are fewer cores than workers, and coverage of a worker that was stopped before it had work.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:No data was collected")

PREPROCESSING = Preprocessing(20, 20, (0.5, 0.25, 0.0), (1.0, 1.0, 1.0), max_size=33)
AUGMENTATION = Augmentation(flip=True, scales=(16, 20, 24, 28))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BoxData:
    opened = open_data(f"coco:{write_coco(tmp_path_factory.mktemp('coco') / 'set', train=22)}", "train")
    assert isinstance(opened, BoxData)
    return opened


def loader(data: BoxData, augmentation: Augmentation | None = AUGMENTATION, **options: Any) -> Loader:
    return open_loader(data, PREPROCESSING, augmentation, **{"batch": 4, "seed": 5, **options})


def own_images(batch: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pixels without padding and target of each image, in the order of their indices."""
    found = [(pixels, unpack(target), target) for pixels, target in zip(*batch, strict=True)]
    found.sort(key=lambda one: one[1].index)
    return [(pixels[:, : target.size[0], : target.size[1]], packed) for pixels, target, packed in found]


def same(batches: list[Any], others: list[Any]) -> bool:
    return len(batches) == len(others) and all(
        torch.equal(one, other)
        for some, rest in zip(batches, others, strict=True)
        for one, other in zip(some, rest, strict=True)
    )


def test_an_evaluation_batch_is_resized_aligned_and_padded(data: BoxData) -> None:
    pixels, targets = next(iter(loader(data, None).epoch()))
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (4, 3, 32, 64))
    for index, (image, packed) in enumerate(zip(pixels, targets, strict=True)):
        target = unpack(packed)
        height, width = target.size
        expected = v2.Resize(20, max_size=33)(data[index][0])  # of the PIL image
        assert (target.index, (width, height)) == (index, expected.size)
        assert np.array_equal(image[:, :height, :width].permute(1, 2, 0).numpy(), np.asarray(expected))
        padding = torch.ones(32, 64, dtype=torch.bool)
        padding[:height, :width] = False
        assert torch.equal(image[:, padding].unique(dim=1), torch.tensor([[128], [64], [0]], dtype=torch.uint8))


@pytest.mark.parametrize("options", [{"workers": 2}, {"memory_limit": 0}, {"memory_limit": 0, "workers": 2}])
def test_batches_are_the_same_from_memory_and_from_workers(data: BoxData, options: dict[str, int]) -> None:
    expected = list(loader(data).epoch(1))
    assert len(expected) == 5
    assert same(list(loader(data, **options).epoch(1)), expected)


def test_batches_are_the_same_for_several_processes(data: BoxData) -> None:
    joint = list(loader(data).epoch(2))
    shares = [list(loader(data, rank=rank, world_size=2).epoch(2)) for rank in range(2)]
    for whole, *parts in zip(joint, *shares, strict=True):
        assert [len(targets) for _, targets in parts] == [2, 2]
        together = sorted((one for part in parts for one in own_images(part)), key=lambda one: float(one[1][0, 0]))
        assert same(together, own_images(whole))


def test_an_epoch_can_start_at_any_batch(data: BoxData) -> None:
    expected = list(loader(data).epoch(3))
    for start in (1, 4):
        assert same(list(loader(data).epoch(3, start)), expected[start:])


def test_images_are_mirrored_with_their_boxes(data: BoxData) -> None:
    plain = {
        int(targets[row, 0, 0]): (pixels[row], unpack(targets[row]))
        for pixels, targets in loader(data, None, batch=1).epoch()
        for row in range(len(targets))
    }
    mirrored = 0
    for batch in loader(data, Augmentation(flip=True)).epoch():
        for pixels, packed in own_images(batch):
            target = unpack(packed)
            before, boxes = plain[target.index]
            height, width = target.size
            expected = before[:, :height, :width]
            if not torch.equal(pixels, expected):
                mirrored += 1
                left, top, right, bottom = boxes.boxes.unbind(1)
                assert torch.equal(pixels, v2.functional.horizontal_flip(expected))
                torch.testing.assert_close(target.boxes, torch.stack((width - right, top, width - left, bottom), 1))
            else:
                assert torch.equal(target.boxes, boxes.boxes)
    assert 4 <= mirrored <= 16


def test_a_batch_has_one_scale_of_the_epoch(data: BoxData) -> None:
    batches = loader(data, Augmentation(scales=(12, 16)))
    drawn = []
    for epoch in range(2):
        sides = [{min(unpack(target).size) for target in targets} for _, targets in batches.epoch(epoch)]
        assert all(len(found) == 1 for found in sides)
        drawn.append([side for found in sides for side in found])
    assert set(drawn[0]) == set(drawn[1]) == {12, 16}
    assert drawn[0] != drawn[1]


def test_a_batch_has_images_of_one_aspect_and_an_epoch_each_image_once(data: BoxData) -> None:
    aspects, seen = [], []
    for _, targets in loader(data).epoch():
        sizes = [unpack(target).original for target in targets]
        aspects.append({height > width for height, width in sizes})
        seen += targets[:, 0, 0].tolist()
    assert sum(len(kinds) > 1 for kinds in aspects) <= 1
    assert len(set(seen)) == len(seen) == 20
    orders = [[float(targets[0, 0, 0]) for _, targets in loader(data).epoch(epoch)] for epoch in (0, 1)]
    assert orders[0] != orders[1]


def test_grouping_is_that_of_torchvisions_reference() -> None:
    """A batch is complete when its last image comes, see GroupedBatchSampler of torchvision's references."""
    order, kinds = torch.tensor([4, 0, 3, 1, 5, 2, 6]), torch.tensor([0, 1, 0, 1, 0, 1, 1])
    buffers: dict[int, list[int]] = {0: [], 1: []}
    expected = []
    for image in order.tolist():
        buffers[int(kinds[image])].append(image)
        if len(buffers[int(kinds[image])]) == 2:
            expected += buffers[int(kinds[image])]
            buffers[int(kinds[image])] = []
    assert grouped(order, kinds, 2).tolist()[: len(expected)] == expected
    assert sorted(grouped(order, kinds, 2).tolist()) == list(range(7))


@pytest.mark.parametrize("memory", [0, 2**30])
def test_unreadable_images_are_skipped_or_named(tmp_path: Path, memory: int) -> None:
    root = write_coco(tmp_path / "set")
    opened = open_data(f"coco:{root}", "train")
    (root / "train" / "2.png").write_bytes((root / "train" / "2.png").read_bytes()[:300])
    assert isinstance(opened, BoxData)
    with pytest.raises(DataError, match=r"2\.png.*--skip-bad"):
        list(loader(opened, None, memory_limit=memory).epoch())
    reading = loader(opened, None, memory_limit=memory, skip_bad=True)
    found = [
        reading.data.image_ids[unpack(target).index]  # type: ignore[attr-defined]
        for _, targets in reading.epoch()
        for target in targets
    ]
    assert found == [10, 11, 13, 14]
    assert [Path(name).name for name in reading.skipped] == ["2.png"]


@pytest.mark.parametrize(
    ("preprocessing", "augmentation", "options", "message"),
    [
        (Preprocessing((20, 30), 20, (0.5,), (1.0,)), None, {}, "resize must be the shorter side"),
        (PREPROCESSING, Augmentation("area"), {}, "crop=area does not apply .* set crop=none"),
        (PREPROCESSING, Augmentation(randaugment="rand-m9"), {}, "randaugment=rand-m9 does not apply"),
        (PREPROCESSING, Augmentation(), {"balanced": True}, "sampling=balanced needs one class"),
    ],
)
def test_what_does_not_apply_to_boxes(
    data: BoxData, preprocessing: Preprocessing, augmentation: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_loader(data, preprocessing, augmentation, batch=2, **options)


def test_blank_images_have_targets(data: BoxData) -> None:
    pixels, targets = loader(data).blank(3)
    assert (pixels.shape, targets.shape) == ((3, 3, 20, 20), (3, 1 + data.rows, 6))
    assert unpack(targets[0]).size == (20, 20)


def test_grey_networks_get_grey_images(data: BoxData) -> None:
    grey = open_loader(data, Preprocessing(20, 20, (0.5,), (1.0,)), batch=2)
    pixels = next(iter(grey.epoch()))[0]
    expected = v2.Resize(20)(data[0][0].convert("L"))
    assert isinstance(expected, Image.Image)
    assert np.array_equal(pixels[0, 0, :20, : expected.width].numpy(), np.asarray(expected))
