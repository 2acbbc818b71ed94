"""`benchmarks/quantization.py` to its end with a tiny network: what it measures, and the page that it writes."""

import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import senet

PAGE = "before\n\n<!-- measured: written by benchmarks/quantization.py -->\n\nold\n\n<!-- /measured -->\n\nafter\n"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """40 images of 10 classes."""
    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / f"class{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return str(tmp_path / "images")


def tiny() -> nn.Module:
    """A convolution with SE, and a classifier."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    senet.insert(model, at={"1": 8}, reduction=2, init="paper")
    model.pretrained_cfg = senet.create_model("resnet20").pretrained_cfg
    model.num_classes = 10
    return model.eval()


@pytest.mark.usefixtures("traced")
@pytest.mark.slow
def test_cases_are_measured_and_written(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = import_module("quantization")
    model = tiny()
    monkeypatch.setattr(script, "network", lambda *args, **options: model)
    weights, output, page = tmp_path / "weights.pth", tmp_path / "found.jsonl", tmp_path / "page.md"
    weights.write_text("")
    page.write_text(PAGE)
    measuring = ["--data", data, "--val", data, "--weights", f"resnet20={weights}", "--folder", str(tmp_path)]
    cases = ["--cases", "se_resnet20, ranges", "se_resnet20, openvino"]
    arguments = ["--output", str(output), "--write", str(page), "--quick", *measuring, *cases]
    assert script.main(arguments) == 0
    found = import_module("common").read_results(output, None)
    assert list(found) == ["about", "se_resnet20, ranges", "se_resnet20, openvino"]
    for name, case in list(found.items())[1:]:
        if name.endswith("ranges"):
            assert [row["module"] for row in case["effects"]] == ["1"]
            continue
        assert list(case) == ["float32", "none", "gate", "block"]
        assert all(case[level]["decibels"] > 20 and case[level]["time"]["median"] > 0 for level in list(case)[1:])
    text = page.read_text()
    assert text.startswith("before")
    assert "old" not in text
    assert "| `se_resnet20` | squeeze, layers and gate in float32 |" in text
    # Everything that was measured is kept.
    monkeypatch.setattr(script, "_case", lambda *args: pytest.fail("measures again"))
    assert script.main(arguments) == 0


def test_a_value_in_8_bits_has_the_effect_of_its_rounding() -> None:
    ranges, cases = import_module("quantization_cases.ranges"), import_module("quantization_cases.cases")
    model, images = tiny(), torch.randn(8, 3, 16, 16)
    (row,) = ranges.effects(model, images)
    with torch.no_grad():
        exact = model[:2](images).double()
    low, high = float(exact.min()), float(exact.max())
    rounded = ((exact - low) * 255 / (high - low)).round() * (high - low) / 255 + low
    assert row["decibels"]["output"] == pytest.approx(cases.decibels(exact.numpy(), rounded.numpy()), abs=0.1)
    assert row["decibels"]["map"] <= row["decibels"]["map, by channel"]


def test_errors_are_compared_image_by_image() -> None:
    cases = import_module("quantization_cases.cases")
    labels = np.zeros(100, int)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    before = np.array([right] * 90 + [wrong] * 10)
    after = np.array([right] * 87 + [wrong] * 13)
    found = cases.paired(before, after, labels)
    # Three images changed: the variance of (0, ..., 1, 1, 1) in percent.
    half = 1.96 * 100 * math.sqrt((3 - 9 / 100) / 99 / 100)
    assert found == pytest.approx({"mean": 3.0, "low": 3 - half, "high": 3 + half})
    assert cases.decibels(np.ones(4), np.ones(4) * 1.1) == pytest.approx(20)


def test_networks_with_se_are_trained_once_and_plain_ones_not_at_all(data: str, tmp_path: Path) -> None:
    networks = import_module("quantization_cases.networks")
    weights = tmp_path / "weights.pth"
    torch.save(senet.create_model("resnet20").state_dict(), weights)
    options = {"images": 40, "epochs": 1}
    plain = networks.network("resnet20", str(weights), data, data, tmp_path, **options)
    assert not (tmp_path / "resnet20").exists()
    assert networks.images_of(plain, data, 20)[0].shape == (20, 3, 32, 32)
    (tmp_path / "se_resnet20").mkdir()
    given = senet.insert(senet.create_model("resnet20"))
    senet.save(given, tmp_path / "se_resnet20" / "last.safetensors")
    found = networks.network("se_resnet20", "", data, data, tmp_path, **options)
    assert torch.equal(found.conv1.weight, given.conv1.weight)


def test_networks_of_timm_are_trained_once_on_larger_images(data: str, tmp_path: Path) -> None:
    networks = import_module("quantization_cases.networks")
    model = networks.trained("timm/test_efficientnet", data, data, tmp_path, images=40, epochs=1)
    assert (tmp_path / "test_efficientnet" / "last.safetensors").is_file()
    assert networks.images_of(model, data, 4)[0].shape == (4, 3, 64, 64)
    again = networks.trained("timm/test_efficientnet", "none", "none", tmp_path, images=40, epochs=1)
    assert torch.equal(again.conv_stem.weight, model.conv_stem.weight)


def test_levels_are_chosen_on_other_images_than_those_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantized network is wrong on every other image, the first included."""
    cases = import_module("quantization_cases.cases")

    def given(images: np.ndarray) -> np.ndarray:
        return np.eye(2)[images]

    written = SimpleNamespace(bytes=1, runner=lambda: given)
    wrong = SimpleNamespace(bytes=1, runner=lambda: lambda images: given(np.where(images % 2 == 0, 1 - images, images)))
    monkeypatch.setattr(cases, "quantize", lambda *args: wrong)
    labels = np.array([0, 1] * 10)
    found = cases.compare(written, ["none"], cases.Images([], labels, labels, seconds=0))
    assert found["none"]["error"] == 0
    assert found["none"]["agreement"] == 1
    assert math.isinf(found["none"]["decibels"])
    assert found["none"]["choice"] < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data, --val, --folder, and --weights or --scratch are required to measure"),
        (
            ["--data", "x", "--val", "x", "--folder", "x", "--weights", "a=b"],
            "there is no file 'b'; expected NAME=FILE",
        ),
        (["--write", "no.md"], "no.md cannot be read"),
    ],
)
def test_refuses(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        import_module("quantization").main(["--output", str(tmp_path / "x.json"), *arguments])
    assert message in capsys.readouterr().err
