import pytest
import timm
import torch
import torchvision
from torch import nn

from senet import create_model
from senet.graph.example_inputs import LARGE_SIDES, declared_size, example_image, random_image


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: create_model("resnet20"), (2, 3, 32, 32)),
        (lambda: timm.create_model("resnet10t"), (2, 3, 176, 176)),
        (torchvision.models.resnet18, (2, 3, 64, 64)),
        (lambda: nn.Sequential(nn.Conv1d(5, 4, 1)), (2, 5, 64)),
        (lambda: nn.Sequential(nn.Flatten()), (2, 3, 64, 64)),
    ],
)
def test_a_random_image(model: object, shape: tuple[int, ...]) -> None:
    network = model()
    assert random_image(network).shape == shape
    assert torch.equal(random_image(network), random_image(network))


def test_an_image_without_values() -> None:
    model = create_model("resnet20").bfloat16()
    image = example_image(model)
    assert (image.shape, image.dtype, image.device.type) == ((1, 3, 32, 32), torch.bfloat16, "meta")
    assert example_image(model, 4, size=(3, 8, 9)).shape == (4, 3, 8, 9)
    assert example_image(model, sides=LARGE_SIDES).shape == (1, 3, 512, 512)  # the declared size does not count
    assert example_image(nn.Conv3d(2, 4, 1), sides=LARGE_SIDES).shape == (1, 2, 64, 64, 64)
    assert example_image(nn.Linear(4, 4).double(), size=(4,)).dtype == torch.float64
    assert example_image(nn.Flatten()).dtype == torch.float32


def test_the_declared_size() -> None:
    assert declared_size(timm.create_model("resnet10t")) == (3, 176, 176)
    assert declared_size(torchvision.models.resnet18()) is None
