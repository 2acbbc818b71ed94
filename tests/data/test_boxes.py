from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from senet.data import BoxData, ImageBoxes
from senet.data.boxes import pack, unpack
from senet.data.preprocessing import whole_size
from tests.images import picture

SIZES = [(30, 40), (36, 24), (30, 50), (31, 31)]
BOXES = torch.tensor([[1.5, 2.0, 20.25, 21.0], [0.0, 0.0, 24.0, 30.0], [7.0, 3.0, 8.0, 29.5]])


class Pictures:
    """Images of the sizes above."""

    def read(self, index: int) -> Any:
        return picture(index, SIZES[index][1], SIZES[index][0])

    def name(self, index: int) -> str:
        return f"picture {index}"


def data(counts: tuple[int, ...] = (3, 1, 0, 2)) -> BoxData:
    """So many of the boxes in each image; their classes are 0, 1 and 2."""
    annotations = [
        ImageBoxes(
            100 + index,
            SIZES[index],
            BOXES[:count].numpy(),
            np.arange(count),
            np.full(count, 5.0, np.float32),
            np.arange(count) == 1,
        )
        for index, count in enumerate(counts)
    ]
    return BoxData("boxes", Pictures(), annotations, ["a", "b", "c"])


def test_unpack_inverts_pack() -> None:
    classes, crowd = torch.tensor([2, 0, 2]), torch.tensor([False, True, False])
    packed = pack(7, (40, 64), (80, 127), BOXES, classes, crowd, 5)
    assert (packed.shape, packed.dtype) == ((6, 6), torch.float32)
    target = unpack(packed)
    assert (target.index, target.size, target.original) == (7, (40, 64), (80, 127))
    for found, given in ((target.boxes, BOXES), (target.classes, classes), (target.crowd, crowd)):
        assert torch.equal(found, given)


def test_an_image_without_boxes_has_a_target() -> None:
    target = unpack(data()[2][1])
    assert (target.index, target.boxes.shape, target.classes.shape) == (2, (0, 4), (0,))
    blank = [unpack(one) for one in data().blank_targets(2, (8, 9))]
    assert [(one.size, len(one.boxes)) for one in blank] == [((8, 9), 0)] * 2
    assert data().blank_targets(2, (8, 9)).shape[1:] == data().target(0).shape


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("side", "most"), [(17, 1333), (30, 33), (45, 60)])
@pytest.mark.parametrize("index", range(4))
def test_boxes_are_those_of_torchvision(index: int, side: int, most: int, mirrored: bool) -> None:
    """Resize and RandomHorizontalFlip of torchvision.transforms.v2, on bounding boxes."""
    boxes, (height, width) = data((3, 3, 3, 3)), SIZES[index]
    given = BoundingBoxes(BOXES.double(), format="XYXY", canvas_size=(height, width))  # type: ignore[call-arg]
    expected = v2.Resize(side, max_size=most, antialias=True)(given)
    size = whole_size((height, width), side, most)
    assert size == expected.canvas_size
    expected = v2.functional.horizontal_flip(expected) if mirrored else expected
    target = unpack(boxes.resized_target(index, size, mirrored=mirrored))
    assert (target.size, target.original) == (size, (height, width))
    torch.testing.assert_close(target.boxes, expected.as_subclass(Tensor).float(), rtol=3e-7, atol=2e-6)
    if not mirrored:
        torch.testing.assert_close(target.in_original(target.boxes), BOXES, rtol=1e-6, atol=1e-5)


def test_sizes_of_whole_images_are_those_of_torchvision() -> None:
    generator = np.random.default_rng(0)
    image = torch.zeros(1, 1, 1)
    for _ in range(200):
        height, width, side = (int(number) for number in generator.integers(1, 300, 3))
        most = side + int(generator.integers(1, 100))
        expected = v2.functional.resize(image.expand(1, height, width), [side], max_size=most).shape[1:]
        assert whole_size((height, width), side, most) == tuple(max(1, one) for one in expected)


def test_a_subset_and_other_classes_keep_boxes() -> None:
    some = data().subset(np.array([3, 0]))
    assert isinstance(some, BoxData)
    assert (some.image_ids, some.rows, some.sizes) == ([103, 100], 3, [(31, 31), (30, 40)])
    assert unpack(some[0][1]).index == 0
    other = some.with_classes(["c", "new", "a", "b"])
    assert [one.tolist() for one in other.categories] == [[2, 3], [2, 3, 0]]
    assert other.labels.tolist() == [[0, 0, 1, 1], [1, 0, 1, 1]]
    assert [one.tolist() for one in other.crowd] == [[False, True], [False, True, False]]
    assert other.box_counts.tolist() == [1, 0, 2, 2]


def test_data_with_other_boxes_are_other_data() -> None:
    moved = data()
    moved.annotations[0].boxes[0, 0] += 0  # the same
    assert moved.label_values() == data().label_values()
    assert data((3, 1, 0, 1)).label_values() != data().label_values()
