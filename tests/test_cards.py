"""Model cards: metadata, costs, errors, and how to load the network."""

import yaml

import senet
from senet.cards import model_card
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
