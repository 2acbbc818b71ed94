"""The example with the Trainer of transformers, where transformers and accelerate are installed: both are large."""

import json
from pathlib import Path

import pytest

import senet
from tests.helpers import shallow_resnet20
from tests.integrations.scripts import load_script

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of transformers


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("transformers", "accelerate"):
        pytest.importorskip(library, exc_type=ImportError)
    with shallow_resnet20():
        load_script("train_transformers").main(["--epochs", "1", "--images", "200", "--output", str(tmp_path)])
        assert senet.load(tmp_path / "se_resnet20.safetensors").num_classes == 10
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "gates/layer3.0.bn2.se/mean" in row] == [1]
    assert any("eval_accuracy" in row for row in history)
    assert "accuracy" in capsys.readouterr().out
