import pytest
import torch
import torchvision
from torch import nn

from senet.shapes import Seen, meta_shapes, shapes_of


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(5, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_shapes_of_a_run_on_an_example() -> None:
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = {"conv": model[0], "flat": model[3], "not reached": nn.ReLU()}
    assert shapes_of(model, modules, torch.randn(2, 5, 10, 6)) == {
        "conv": Seen(10, (2, 5, 10, 6), (2, 8, 5, 3)),
        "flat": Seen(10, (2, 8, 1, 1), (2, 8)),
    }
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_run_without_an_example_computes_nothing() -> None:
    model = network().half()
    seen: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    before = model.state_dict(keep_vars=True)
    assert meta_shapes(model, {"conv": model[0]}) == {"conv": Seen(512, (1, 5, 512, 512), (1, 8, 256, 256))}
    assert (seen[0].device.type, seen[0].dtype) == ("meta", torch.float16)
    after = model.state_dict(keep_vars=True)
    assert all(after[key] is before[key] for key in before)


def test_tells_which_network_needs_an_example() -> None:
    model = nn.ModuleDict({"vgg": torchvision.models.squeezenet1_1()})
    with pytest.raises(ValueError, match=r"ModuleDict did not run on an image \(1, 3, 512, 512\).*give example="):
        meta_shapes(model, {"vgg": model["vgg"]})
