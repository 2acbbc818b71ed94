import pytest
import torch

import senet
from senet.recipes import create_network, load_recipe


def test_a_network_without_values_reads_no_weights() -> None:
    recipe = load_recipe("digits", ["network.weights=nowhere.pth", "network.missing=gates", "network.init=paper"])
    model = create_network("se_resnet20", recipe, num_classes=5, meta=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.num_classes == 5


def test_the_network_of_a_recipe() -> None:
    settings = ["mean=[0.5]", "std=[0.5]", "network.reduction=4", "network.init=identity"]
    model = create_network("se_resnet20", load_recipe("digits", settings), num_classes=5)
    torch.manual_seed(0)
    expected = senet.create_model("se_resnet20", in_channels=1, num_classes=5, reduction=4, init="identity")
    assert (model.num_classes, model.in_channels) == (5, 1)
    assert [(k, v.shape) for k, v in model.state_dict().items()] == [
        (k, v.shape) for k, v in expected.state_dict().items()
    ]


def test_the_recipe_overrides_classes_and_channels() -> None:
    recipe = load_recipe("digits", ["network.num_classes=7", "network.in_channels=2"])
    model = create_network("resnet20", recipe, num_classes=5, meta=True)
    assert (model.num_classes, model.in_channels) == (7, 2)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="unknown option 'reducton'; did you mean 'reduction'"):
        create_network("se_resnet20", load_recipe("digits", ["network.reducton=4"]), meta=True)
