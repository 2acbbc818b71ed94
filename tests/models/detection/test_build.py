"""Detectors against torchvision's own, with the same weights."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet

from senet import create_model, load, save
from tests.helpers import assert_close, shallow_resnet20
from tests.models.detection.small import SMALL, images, losses_of, of_torchvision, shallow_resnet18

KINDS = {"faster_rcnn": FasterRCNN, "retinanet": RetinaNet}


def detected(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    if isinstance(model, RetinaNet):
        model.score_thresh = 0.005  # an untrained RetinaNet is certain of nothing
    with torch.no_grad():
        return model.eval()(images())


def assert_same(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert len(other["boxes"]) > 0
        for key, value in other.items():
            assert torch.equal(one[key], value)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_gradients_and_detections_are_those_of_torchvision(kind: str, frozen: bool) -> None:
    with shallow_resnet18():
        ours = create_model(f"{kind}:resnet18", pool="pad", freeze_bn=frozen, **SMALL)
    theirs = of_torchvision(kind, frozen=frozen)
    theirs.load_state_dict(ours.state_dict())
    losses = [losses_of(model) for model in (ours, theirs)]
    assert losses[0] == losses[1]
    for one in losses:
        sum(one.values()).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient is not None
        assert_close(gradient, expected[name], 1e-4)
    assert_same(detected(ours), detected(theirs))


@pytest.mark.parametrize("backbone", ["se_resnet20", "timm/mobilenetv3_small_050", "shufflenet"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind: str, backbone: str) -> None:
    with shallow_resnet20():
        model = create_model(f"{kind}:{backbone}", **SMALL)
    assert isinstance(model, KINDS[kind])
    sum(losses_of(model).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_strides_double_up_to_the_deepest_map() -> None:
    expected = {
        "faster_rcnn:resnet18": [4, 8, 16, 32],
        "retinanet:resnet18": [8, 16, 32],
        "faster_rcnn:shufflenet": [8, 16, 32],  # it has no map of stride 4
        "faster_rcnn:resnet20": [1, 2, 4],
        "retinanet:timm/resnet18": [8, 16, 32],
    }
    with torch.device("meta"):
        assert {name: create_model(name).backbone.strides for name in expected} == expected


def test_anchors_follow_the_strides() -> None:
    with torch.device("meta"):
        faster, retina = create_model("faster_rcnn:resnet18"), create_model("retinanet:resnet18")
        small = create_model("retinanet:resnet18", anchor_sizes=[4, 8, 16, 32, 64])
        theirs = of_torchvision("retinanet", frozen=False)
        with pytest.raises(ValueError, match="a size for each of the 5 maps, of the strides 4, 8, 16, 32, 64, got"):
            create_model("faster_rcnn:resnet18", anchor_sizes=[32, 64])
    assert faster.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert retina.anchor_generator.sizes == theirs.anchor_generator.sizes
    assert small.anchor_generator.sizes[0] == (4, 5, 6)


@pytest.mark.parametrize("name", ["faster_rcnn:se_resnet20", "retinanet:se_timm/mobilenetv2_035"])
def test_a_file_restores_the_detector(name: str, tmp_path: object) -> None:
    path = f"{tmp_path}/detector.safetensors"
    options = {"anchor_sizes": [8, 16, 32, 64]} if "faster" in name else {}
    with shallow_resnet20():
        model = create_model(
            name, placement="post", reduction=4, freeze_bn=True, trainable_stages=1, **SMALL, **options
        )
        model.pretrained_cfg["label_names"] = ["red", "white", "platelet"]
        save(model, path)
        again = load(path)
    assert again.pretrained_cfg == model.pretrained_cfg
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    assert again.transform.min_size == (64,)
    assert_same(detected(again), detected(model))
