"""Model cards: metadata, costs, errors, and how to load the network."""

from typing import Any

import yaml

import senet
from senet.cards import model_card
from senet.tasks.detection import DetectionEvaluation
from tests.test_hub import ERRORS, network


def test_card() -> None:
    model = network()
    card = model_card(model, "someone/small", evaluation=ERRORS, data="four kinds of things", license="mit")
    _, front, text = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "senet"
    assert metadata["license"] == "mit"
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 8.13
    parameters = sum(p.numel() for p in model.parameters())
    of_se = sum(p.numel() for key, p in model.named_parameters() if ".se." in key)
    assert f"| whole network | {parameters:,} |" in text
    assert f"| SE blocks | {of_se:,} |" in text
    assert 'senet.load("hf-hub:someone/small")' in text
    assert "| 8.13 % | 0.40 % |" in text
    assert "3 blocks, squeeze avg, gate sigmoid; 4 classes" in text
    plain = model_card(senet.remove(model), "someone/plain")
    assert "Squeeze" not in plain
    assert "| SE blocks | 0 |" in plain


def test_card_of_a_detector() -> None:
    options = {"fpn_channels": 8, "box_channels": 16}
    model: Any = senet.create_model("faster_rcnn:se_resnet20", num_classes=2, min_size=40, max_size=64, **options)
    sizes = {"ap_small": -1.0, "ap_medium": 39.0, "ap_large": 42.0}
    found = DetectionEvaluation(ap=40.0, ap50=60.5, ap75=41.0, **sizes, images=7, classes=[], skipped=[])
    card = model_card(model, "someone/cells", evaluation=found, data="cells")
    metadata = yaml.safe_load(card.split("---\n", 2)[1])
    assert metadata["pipeline_tag"] == "object-detection"
    assert metadata["model-index"][0]["results"][0]["task"]["type"] == "object-detection"
    parameters = sum(p.numel() for p in model.backbone.parameters())
    assert f"| backbone with pyramid | {parameters:,} |" in card
    assert "7 images, whole images:" in card
    assert "| 40.00 % | 60.50 % | 41.00 %" in card
    assert "resize the shorter side to 40 pixels, the longer one to at most 64,\nscale to [0, 1]" in card
