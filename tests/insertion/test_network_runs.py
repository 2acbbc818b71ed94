"""Known blocks in parts of a network that do not run: they get no SE, which would never learn."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from senet import find_sites
from senet.insertion.network_runs import NetworkRuns
from tests.networks import FAMILIES


class Distilled(nn.Module):
    """The second network runs in training only."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x: Tensor) -> object:
        return (self.student(x), self.teacher(x)) if self.training else self.student(x)


def student() -> nn.Module:
    return FAMILIES["ours basic"]()


def vgg() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    with torch.device("meta"):  # its classifier has 120 million weights
        model = torchvision.models.VGG(nn.Sequential(), num_classes=2, init_weights=False)
    model.features = features
    return model


class Upscaler(nn.Module):
    """Residual units whose names are in no table."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.first, self.second = (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first(x)
        return self.head(x + self.second(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("example", [None, torch.randn(1, 3, 16, 16)])
@pytest.mark.parametrize("teacher", [student, vgg])
@pytest.mark.parametrize(("network", "count"), [(student, 3), (Upscaler, 2)])
def test_parts_that_do_not_run_have_no_site(
    network: type[nn.Module], count: int, teacher: type[nn.Module], example: Tensor | None
) -> None:
    sites = find_sites(Distilled(network(), teacher()), example=example)
    assert len(sites) == count
    assert all(site.name.startswith("student.") for site in sites)


def test_such_a_part_is_refused_where_at_names_it() -> None:
    model = Distilled(student(), student())
    with pytest.raises(ValueError, match=r"'teacher.layer1.0.bn2' does not run when Distilled runs in evaluation"):
        find_sites(model, at="teacher.*")
    assert [site.name for site in find_sites(model, at="*.layer2.0")] == ["student.layer2.0.bn2"]
    assert len(find_sites(model.teacher)) == 3


def test_names_the_network_that_needs_an_example() -> None:
    model = nn.ModuleDict({"vgg": vgg()})
    with pytest.raises(
        ValueError, match=r"ModuleDict did not run on an image \(1, 3, 224, 224\).*forward.*give example="
    ):
        NetworkRuns(model, None).maps  # noqa: B018
