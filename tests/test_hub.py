"""Upload and load networks through a small hub on the loopback interface."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import senet
from senet.evaluation import Evaluation
from senet.hub import push_to_hub
from senet.utils.errors import ModelFileError
from tests.helpers import assert_close, randomise
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
    assert b"## Evaluation" not in hub.repositories["someone/small"]["README.md"]


def test_in_the_form_of_timm(hub: Hub) -> None:
    model = randomise(senet.create_model("se_resnet18", num_classes=4, pool="pad")).eval()
    push_to_hub(model, "someone/of-timm", library="timm", token="secret")
    files = hub.repositories["someone/of-timm"]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b'timm.create_model("hf-hub:someone/of-timm", pretrained=True)' in files["README.md"]
    assert b"library_name: timm" in files["README.md"]
    other = timm.create_model("hf-hub:someone/of-timm", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert_close(other(x), model(x), 1e-5)
    with pytest.raises(ModelFileError, match="timm has no resnet20 with SE"):
        push_to_hub(network(), "someone/small", library="timm", token="secret")
    with pytest.raises(ValueError, match="unknown library 'keras'"):
        push_to_hub(model, "someone/small", library="keras", token="secret")  # type: ignore[arg-type]


def test_what_cannot_be_loaded(hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"hf-hub:someone/nothing.*check the name"):
        senet.load("hf-hub:someone/nothing")
    hub.repositories["someone/empty"] = {}
    with pytest.raises(ModelFileError, match=r"hf-hub:someone/empty has neither of model\.safetensors"):
        senet.load("hf-hub:someone/empty")
    hub.repositories["someone/text"] = {"model.safetensors": b"no tensors"}
    with pytest.raises(ModelFileError, match="is not a model file of senet, or is truncated"):
        senet.load("hf-hub:someone/text")


def test_what_is_refused(hub: Hub) -> None:
    with pytest.raises(ModelFileError, match=r"the hub refused the upload to someone/small: .*401"):
        push_to_hub(network(), "someone/small", token="wrong")
    with pytest.raises(ValueError, match="invalid repository 'small': expected OWNER/NAME"):
        push_to_hub(network(), "small", token="secret")
    with pytest.raises(ValueError, match=r"invalid repository 'some one/sm\?\?all'"):
        push_to_hub(network(), "some one/sm??all", token="secret")
    with pytest.raises(ValueError, match="evaluation= and data= go together"):
        push_to_hub(network(), "someone/small", evaluation=ERRORS)
    with pytest.raises(ModelFileError, match="a Linear is not one of senet's named networks"):
        push_to_hub(nn.Linear(2, 2), "someone/small")
    assert not hub.repositories
