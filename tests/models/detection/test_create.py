"""Names, options and weights of detectors."""

from pathlib import Path
from typing import Any

import pytest
import torch

from senet import create_model, list_models, load, save
from senet.models import CATALOGUE, is_detector, plain_name
from senet.utils.errors import ModelFileError
from tests.helpers import randomise, shallow_resnet20
from tests.models.detection.small import SMALL


def test_names_of_detectors() -> None:
    assert list_models("retinanet:*resnet18") == ["retinanet:resnet18", "retinanet:se_resnet18"]
    assert list_models("*:timm/resnet26d") == ["faster_rcnn:timm/resnet26d", "retinanet:timm/resnet26d"]
    assert len(list_models("faster_rcnn:*")) == 2 * len(CATALOGUE)
    assert not any(map(is_detector, list_models()))
    assert plain_name("faster_rcnn:se_timm/resnet18") == "faster_rcnn:timm/resnet18"
    with pytest.raises(ValueError, match="unknown network 'se_resnet500'; did you mean 'se_resnet50'"):
        create_model("faster_rcnn:se_resnet500")
    with pytest.raises(ValueError, match="unknown network 'faster_rnn:resnet18'; did you mean 'faster_rcnn:resnet18'"):
        create_model("faster_rnn:resnet18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable_stage": 3}, "did you mean 'trainable_stages'"),
        ({"trainable_stages": 6}, "trainable_stages must be at most 5, got 6"),
        ({"min_size": 0}, "min_size must be 1 or more, got 0"),
        ({"min_size": 900, "max_size": 800}, r"max_size must be at least min_size \(900\), got 800"),
        ({"freeze_bn": "yes"}, "freeze_bn must be true or false, got 'yes'"),
        ({"anchor_sizes": 8}, "anchor_sizes must be a list of sides in pixels, got 8"),
        ({"reduction": 4}, "reduction= is an option of SE, but 'resnet20' is plain"),
        ({"pretrained": True}, "backbone_weights= takes a classifier's file"),
        ({"features_only": True}, "the child `backbone` of 'retinanet:resnet20' returns its maps"),
        ({"weights": "a.safetensors"}, "backbone_weights= loads a classifier's weights"),
        ({"missing": "gates"}, "missing= requires backbone_weights="),
        ({"num_classes": 0}, "num_classes must be 1 or more for a detector, got 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises((TypeError, ValueError), match=message):
        create_model("retinanet:resnet20", **options)


def test_a_detector_is_no_backbone() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="has a detector as its backbone; give a classifier"):
        create_model("faster_rcnn:retinanet:resnet20")


def test_a_backbone_without_maps() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="'torchvision/resnet18' has no `feature_info`"):
        create_model("retinanet:torchvision/resnet18")


def test_weights_of_a_classifier(tmp_path: object) -> None:
    path = f"{tmp_path}/best.safetensors"
    with shallow_resnet20():
        classifier: Any = randomise(create_model("se_resnet20", num_classes=7, reduction=4))
        classifier.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
        save(classifier, path)
        model: Any = create_model("faster_rcnn:se_resnet20", backbone_weights=path, **SMALL)
        own = model.backbone.body.state_dict()
        for name, tensor in classifier.state_dict().items():
            if not name.startswith("fc.") and not name.endswith("num_batches_tracked"):
                assert torch.equal(own[name], tensor), name
        assert model.weights_report.covered == 100
        assert model.transform.image_mean == [0.1, 0.2, 0.3]
        assert model.architecture["options"]["freeze_bn"] is True
        save(model, path)
        assert load(path).transform.image_mean == [0.1, 0.2, 0.3]


def test_weights_of_another_network_are_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/best.safetensors"
    with shallow_resnet20():
        save(create_model("resnet20"), path)
        with pytest.raises((ModelFileError, ValueError), match="gates"):
            create_model("faster_rcnn:se_resnet20", backbone_weights=path, **SMALL)
        model: Any = create_model("faster_rcnn:se_resnet20", backbone_weights=path, missing="gates", **SMALL)
        assert all("se." in name for name in model.weights_report.missing)
        with pytest.raises(ModelFileError, match="resnet20|tensors"):
            create_model("faster_rcnn:resnet18", backbone_weights=path, **SMALL)


def test_weights_of_a_detector(tmp_path: Path) -> None:
    with shallow_resnet20():
        save(create_model("retinanet:se_resnet20", **SMALL), tmp_path / "detector.safetensors")
        message = "has the weights of a detector, .*: give the weights of a classifier"
        with pytest.raises(ModelFileError, match=message):
            create_model("retinanet:se_resnet20", **SMALL, backbone_weights=tmp_path / "detector.safetensors")
