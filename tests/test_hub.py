"""Networks to the hub and back, through a small hub on the loopback interface."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import senet
from senet.evaluation.evaluate import Evaluation
from senet.hub import model_card, push_to_hub
from senet.utils.errors import ModelFileError
from tests.helpers import randomise
from tests.hub_server import Hub, running

ERRORS = Evaluation(top1_error=8.126, top5_error=0.4, loss=0.3, images=5000, classes=[], skipped=[])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with running(Hub("secret")) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def network() -> nn.Module:
    return randomise(senet.create_model("se_resnet20", num_classes=4, stages=3)).eval()


def test_there_and_back(hub: Hub) -> None:
    model = network()
    address = push_to_hub(model, "someone/small", evaluation=ERRORS, data="four kinds of things", token="secret")
    assert address.startswith(f"{hub.address}/someone/small/commit/")
    assert set(hub.repositories["someone/small"]) == {"README.md", "model.safetensors"}
    other = senet.load("hf-hub:someone/small")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(x), model(x))
    # Again into the same repository, which is there by now.
    push_to_hub(model, "someone/small", token="secret")
    assert b"Errors" not in hub.repositories["someone/small"]["README.md"]


def test_what_cannot_be_had(hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"hf-hub:someone/nothing.*check the name"):
        senet.load("hf-hub:someone/nothing")
    hub.repositories["someone/empty"] = {}
    with pytest.raises(ModelFileError, match=r"hf-hub:someone/empty has neither of model\.safetensors"):
        senet.load("hf-hub:someone/empty")
    hub.repositories["someone/text"] = {"model.safetensors": b"no tensors"}
    with pytest.raises(ModelFileError, match="is no model file of senet, or is cut short"):
        senet.load("hf-hub:someone/text")


def test_what_is_refused(hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"the hub did not take someone/small: .*401"):
        push_to_hub(network(), "someone/small", token="wrong")
    with pytest.raises(ValueError, match=r"a repository is OWNER/NAME, .* got 'small'"):
        push_to_hub(network(), "small", token="secret")
    with pytest.raises(ValueError, match="is no repository's name"):
        push_to_hub(network(), "some one/sm??all", token="secret")
    with pytest.raises(ValueError, match="evaluation= and data= go together"):
        push_to_hub(network(), "someone/small", evaluation=ERRORS)
    with pytest.raises(ModelFileError, match="a Linear is not one of senet's named networks"):
        push_to_hub(nn.Linear(2, 2), "someone/small")
    assert not hub.repositories


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
    assert f"| whole | {parameters:,} |" in text
    assert f"| of SE | {of_se:,} |" in text
    assert 'senet.load("hf-hub:someone/small")' in text
    assert "| 8.13 % | 0.40 % |" in text
    assert "3 blocks, squeeze avg, gate sigmoid; 4 classes" in text
    plain = model_card(senet.remove(model), "someone/plain")
    assert "Squeeze" not in plain
    assert "| of SE | 0 |" in plain
