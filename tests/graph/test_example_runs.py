from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from senet.graph.example_runs import resized_example, run_network, search_run
from senet.utils.errors import MissingExampleError


class Two(nn.Module):
    """Two images of one size, such as those before and after."""

    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        self.net, self.reads = nn.Conv2d(3, 4, 3), reads

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        if self.reads and float(one.sum()) < 0:
            raise RuntimeError("negative")
        out: Tensor = self.net(one) - self.net(two)
        return out


IMAGE = torch.empty(1, 3, 8, 8, device="meta")


def test_an_image_stands_for_each_input() -> None:
    assert [value.shape for value in run_network(Two(), images=[IMAGE]).inputs] == [(1, 3, 8, 8)] * 2
    assert [value.shape for value in search_run(Two(), None).inputs] == [(1, 3, 512, 512)] * 2


def test_the_first_image_on_which_the_network_runs() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 2))
    assert search_run(model, None).inputs[0].shape == (1, 3, 28, 28)
    with pytest.raises(
        MissingExampleError, match=r"^Two did not run on an image \(1, 2, 8, 8\) \(for each of 2 inputs\): "
    ):
        run_network(Two(), images=[torch.empty(1, 2, 8, 8, device="meta"), torch.empty(1, 2, 9, 9, device="meta")])
    with pytest.raises(MissingExampleError, match=r"Sequential did not run on an image \(1, 3, 512, 512\) to find its"):
        search_run(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), None)


def test_values_where_they_are_read() -> None:
    reason = r"for each of 2 inputs\): the code of Two reads the value of a tensor, and there are shapes only"
    with pytest.raises(MissingExampleError, match=reason):
        run_network(Two(reads=True), images=[IMAGE])
    assert run_network(Two(reads=True), images=[IMAGE], prefer_shapes=True).calls  # random values are not negative
    negative = -torch.ones(1, 3, 8, 8)
    for prefer_shapes in (False, True):
        with pytest.raises(ValueError, match="Two does not run on example .*: negative"):
            run_network(Two(reads=True), (negative, negative), images=[IMAGE], prefer_shapes=prefer_shapes)
    assert run_network(Two(), (negative, negative), prefer_shapes=True).calls


class Keypoints(nn.Module):
    """Its outputs have as many rows as there are positions above a threshold."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 1, 3) if size is None else nn.Sequential(nn.Flatten(), nn.Linear(size, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(self.net(x[:, :, x[0, 0, 0] >= 0]) > 0)


def test_values_where_shapes_depend_on_them() -> None:
    assert search_run(Keypoints(), None).inputs[0].shape == (1, 3, 224, 224)
    with pytest.raises(MissingExampleError, match=r"Keypoints did not run on an image .* to find its sites: mat1"):
        search_run(Keypoints(7), None)


class Boxes(nn.Module):
    """Its outputs have as many rows as there are boxes that overlap with no better one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 5, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x)[0].flatten(1).t()
        return found[nms(found[:, :4], found[:, 4], 0.5)]


def test_values_where_shapes_depend_on_them_in_operators_of_other_libraries() -> None:
    assert search_run(Boxes(), None).inputs[0].shape == (1, 3, 224, 224)
    with pytest.raises(MissingExampleError, match=r": the shape of the output of torchvision.nms.* depends on values$"):
        run_network(Boxes(), images=[IMAGE])


@pytest.mark.parametrize("example", [torch.zeros(0, 3, 8, 8), {"one": torch.zeros(2, 3, 0, 8)}])
def test_an_empty_batch_is_refused(example: Any) -> None:
    with pytest.raises(ValueError, match=r"example is an empty batch .*: give example= with at least one image"):
        run_network(nn.Conv2d(3, 4, 1), example)


def test_an_example_of_another_size() -> None:
    image, mask, step = torch.arange(12.0).reshape(1, 1, 3, 4), torch.arange(12).reshape(1, 3, 4), torch.ones(1)
    found: Any = resized_example({"image": image, "mask": mask, "step": step, "scale": 2}, (6, 2))
    assert found["image"].shape == (1, 1, 6, 2)
    assert found["image"][0, 0].tolist() == [[0, 2], [0, 2], [4, 6], [4, 6], [8, 10], [8, 10]]
    assert torch.equal(found["mask"].float(), found["image"][:, 0])
    assert found["step"] is step
    assert resized_example(image, (3, 4)) is image
    assert resized_example(step, (3, 4)) is step
