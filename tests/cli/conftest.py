from pathlib import Path

import pytest
import torch

import senet
from senet.cli.common import console
from tests.helpers import randomise
from tests.images import write_classes


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error as on a terminal of 160 columns."""
    for name, value in (("_force_terminal", True), ("is_interactive", True), ("_width", 160)):
        monkeypatch.setattr(console.stderr, name, value)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two classes in both splits: six cats and six dogs to train on, three and one to validate."""
    write_classes(tmp_path / "data" / "train", {"cat": 6, "dog": 6})
    write_classes(tmp_path / "data" / "val", {"cat": 3, "dog": 1})
    return tmp_path / "data"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A network that distinguishes cats from dogs, roughly."""
    model = randomise(senet.create_model("se_resnet20", num_classes=2))
    model.pretrained_cfg |= {"label_names": ["cat", "dog"], "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    senet.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def always_cat(tmp_path: Path) -> Path:
    """A network that takes everything for a cat, with a probability of 0.75."""
    model = senet.create_model("resnet20", num_classes=2)
    torch.nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([0.75, 0.25]).log()
    model.pretrained_cfg |= {"label_names": ["cat", "dog"]}
    senet.save(model, tmp_path / "cat.safetensors")
    return tmp_path / "cat.safetensors"
