"""The training script of examples/timm, on a few images: it trains, resumes and exports, fused or not."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import senet
from tests.helpers import assert_close
from tests.images import write_classes

SCRIPT = Path(__file__).parents[2] / "examples" / "timm" / "train.py"


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("timm_train", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # of timm's loaders and schedulers
def test_a_run(script: Any, tmp_path: Path, fused: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / "data" / split, {"cat": 3, "dog": 3})
    options = [str(tmp_path / "data"), "--model", "test_efficientnet", "--num-classes", "2", "--img-size", "32"]
    options += ["--batch-size", "3", "--workers", "0", "--lr", "1e-6", "--model-ema", "--layer-decay", "0.9"]
    states = []
    for name, more in (("fused", []), ("plain", ["--no-fuse"])):
        output = tmp_path / name
        script.main([*options, *more, "--epochs", "1", "--output", str(output)])
        script.main(
            [*options, *more, "--epochs", "2", "--output", str(output), "--resume", str(output / "last.pth.tar")]
        )
        saved = torch.load(output / "last.pth.tar", weights_only=False)
        states.append(saved["state_dict"])
        averaged, own = (saved[key]["bn1.running_mean"].abs().sum() for key in ("state_dict_ema", "state_dict"))
        assert averaged < 0.1 * own  # of all epochs
        rates = {group["lr"] / group.get("lr_scale", 1) for group in saved["optimizer"]["param_groups"]}
        assert max(rates) == pytest.approx((1e-6 + 1e-5) / 2)  # halfway to the least one
        assert ("SE modules fused" in capsys.readouterr().out) == (name == "fused")
    assert fused
    for key, value in states[0].items():
        if key.endswith("running_var"):
            assert_close(value, states[1][key], 1e-2)
    model = senet.fuse(timm.create_model("test_efficientnet", num_classes=2))
    model.load_state_dict(states[0])
    x = torch.randn(1, 3, 32, 32)
    exported = torch.export.export(model.eval(), (x,)).module()
    assert_close(exported(x), model(x), 1e-5)
