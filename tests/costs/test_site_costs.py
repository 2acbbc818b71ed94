import pytest
import torch
from torch import Tensor, nn

import senet
from senet.costs.site_costs import cost_of_sites, example_run


class Gated(nn.Module):
    """A network of two inputs that reads the values of one, which tensors without values do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)

    def forward(self, image: Tensor, switch: Tensor) -> Tensor:
        return self.conv(image) if bool(switch.reshape(1)) else image


def test_costs_are_those_of_the_network_with_se() -> None:
    model = senet.create_model("resnet20")
    found = cost_of_sites(model, senet.find_sites(model), example_run(model), reduction=4)
    assert found.inputs == ((1, 3, 32, 32),)
    assert [cost.resolution for cost in found.sites] == [(size, size) for size in (32, 16, 8) for _ in range(3)]
    assert [cost.hidden for cost in found.sites] == [hidden for hidden in (4, 8, 16) for _ in range(3)]
    plain = senet.cost(model, (3, 32, 32))
    with_se = senet.cost(senet.insert(model, reduction=4), (3, 32, 32))
    assert (found.params, found.macs) == (plain.params, plain.macs)
    assert (found.se_params, found.se_macs) == (with_se.se_params, with_se.se_macs)


@pytest.mark.parametrize(("batch", "squeeze"), [(1, "none"), (3, "avg")])
def test_costs_of_one_input(batch: int, squeeze: str) -> None:
    model, options = senet.create_model("resnet20"), {"squeeze": squeeze, "bias": False, "gate": "hard_sigmoid"}
    sites = senet.find_sites(model, "identity", stages=3)
    found = cost_of_sites(model, sites, example_run(model, torch.rand(batch, 3, 32, 32)), **options)
    with_se = senet.cost(senet.insert(model, "identity", stages=3, **options), (3, 32, 32))
    assert (found.se_params, found.se_macs) == (with_se.se_params, with_se.se_macs)
    assert found.macs == with_se.macs - with_se.se_macs
    assert found.inputs == ((batch, 3, 32, 32),)


def test_a_network_that_reads_values() -> None:
    model = Gated()
    assert example_run(model) is None  # no image is a switch
    site = senet.find_sites(model, at="conv")
    unknown = cost_of_sites(model, site, None, squeeze="none")
    assert (unknown.inputs, unknown.macs, unknown.se_macs, unknown.sites[0].resolution) == ((), None, None, None)
    assert cost_of_sites(model, site, None).se_macs == 2 * 32 * 2
    run = example_run(model, (torch.rand(1, 3, 8, 8), torch.ones(1)))
    found = cost_of_sites(model, site, run)
    assert found.macs == 27 * 32 * 64
    assert found.sites[0].resolution == (8, 8)
    with pytest.raises(ValueError, match="Gated does not run on example"):
        example_run(model, torch.rand(1, 3, 8, 8))


def test_a_network_of_one_input_that_reads_values() -> None:
    class Checked(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            assert bool(x.isfinite().all())
            return super().forward(x)

    model = Checked(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    found = cost_of_sites(model, senet.find_sites(model, at="0"), example_run(model))
    assert (found.inputs, found.macs) == (((1, 3, 224, 224),), 27 * 4 * 112**2)
