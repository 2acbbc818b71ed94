import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import senet
from senet.data import Augmentation, Preprocessing, open_data, open_loader
from senet.data.augmentation import crop_and_flip
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import assert_close
from tests.images import picture, write_classes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cfg(**values: Any) -> dict[str, Any]:
    own = {"input_size": (3, 64, 32), "crop_pct": 0.875, "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    return {**own, "crop_mode": "center", **values}


@pytest.mark.parametrize("size", [(40, 30), (30, 90), (200, 37), (64, 128)])
@pytest.mark.parametrize("input_size", [(3, 64, 32), (3, 24, 48), (3, 33, 17)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.9])
def test_input_of_any_height_and_width_is_timms(
    size: tuple[int, int], input_size: tuple[int, int, int], crop_pct: float
) -> None:
    # It was 32x32 of (3, 64, 32).
    values = cfg(input_size=input_size, crop_pct=crop_pct)
    image = picture(1, *size)
    preprocessing = Preprocessing.of(values)
    assert preprocessing.size == input_size[1:]
    reference = create_transform(**resolve_data_config(pretrained_cfg=values), is_training=False)
    found = preprocessing.normalize(preprocessing.pixels(image)[None])[0]
    assert found.shape == input_size
    assert_close(found, reference(image), 1e-6)


class Probe(nn.Module):
    """Remembers the sizes of what it is given."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.num_classes, self.pretrained_cfg, self.seen = 3, cfg(label_names=None, **values), set[Any]()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(tuple(x.shape[1:]))
        return x.mean((2, 3)) * self.scale


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_classes(tmp_path / "data", {"a": 3, "b": 3, "c": 3}))


@pytest.mark.parametrize(
    ("options", "expected"), [({}, (3, 64, 32)), ({"crop": (16, 24)}, (3, 16, 24)), ({"crop": 20}, (3, 20, 20))]
)
def test_evaluation_and_prediction(folder: str, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    for use in (
        lambda model: senet.evaluate(model, folder, **options),
        lambda model: senet.predict(model, [picture(0)], **options),
    ):
        model = Probe()
        use(model)
        assert model.seen == {expected}


@pytest.mark.parametrize(
    ("resize", "crop", "expected"),
    [
        ((72, 36), (64, 32), (64, 32)),
        ([72, 36], "64x32", (64, 32)),
        (40, (32, 32), (32, 32)),
        (80, (64, 32), (64, 32)),
        ((70, 50), 40, (40, 40)),
    ],
)
def test_cfg_gives_the_same_preprocessing(resize: Any, crop: Any, expected: tuple[int, int]) -> None:
    preprocessing = Preprocessing(resize, crop, MEAN, STD)
    assert preprocessing.size == expected
    as_cfg = preprocessing.as_cfg()
    assert as_cfg["input_size"] == (3, *expected)
    assert Preprocessing.of(as_cfg) == preprocessing
    assert Preprocessing.of(json.loads(json.dumps(as_cfg))) == preprocessing
    assert preprocessing.pixels(picture(0, 90, 61)).shape == (3, *expected)


@pytest.mark.parametrize("value", ["64x", "x32", "a", "1x2x3", [1, 2, 3], [], 1.5, True, [64.0, 32], None, "9" * 5000])
def test_sizes_that_are_none(value: Any) -> None:
    from senet.utils.sizes import parse_size

    with pytest.raises(ValueError, match="--crop must be pixels, such as 224, or height and width, such as 64x32"):
        parse_size(value, "--crop")


@pytest.mark.parametrize("value", [0, -1, (64, 0), (0, 32), "0x32", "64x-1"])
def test_sizes_below_one_pixel(value: Any) -> None:
    with pytest.raises(ValueError, match="resize and crop must be 1 pixel or more"):
        Preprocessing(64, value, MEAN, STD)
    with pytest.raises(ValueError, match="resize and crop must be 1 pixel or more"):
        Preprocessing(value, 64, MEAN, STD)


def test_size_above_the_limit() -> None:
    with pytest.raises(ValueError, match="crop must be at most 8,192, got 100000"):
        Preprocessing(64, (4, 100000), MEAN, STD)


def test_crop_and_flip() -> None:
    pixels = torch.randint(256, (5, 3, 6, 4), dtype=torch.uint8)
    offsets = torch.tensor([[0, 0], [1, 2], [4, 4], [2, 2], [3, 0]])
    flips = torch.tensor([False, True, False, True, False])
    found = crop_and_flip(pixels, offsets, flips, 2, [1.0, 2.0, 3.0])
    assert found.shape == pixels.shape
    padded = np.broadcast_to(np.array([1, 2, 3], np.uint8)[None, :, None, None], (5, 3, 10, 8)).copy()
    padded[:, :, 2:-2, 2:-2] = pixels.numpy()
    for place, (row, column) in enumerate(offsets.tolist()):
        expected = padded[place, :, row : row + 6, column : column + 4]
        expected = expected[:, :, ::-1] if flips[place] else expected
        np.testing.assert_array_equal(found[place].numpy(), expected)


@pytest.mark.parametrize("crop", ["pad", "area", "none"])
@pytest.mark.parametrize("memory", [0, 2**20])
def test_training_batches(folder: str, crop: str, memory: int) -> None:
    augmentation = Augmentation(crop, True, 2, "rand-m5" if crop == "pad" else "")
    preprocessing = Preprocessing((40, 20), (36, 18), MEAN, STD)
    loader = open_loader(open_data(folder), preprocessing, augmentation, batch=4, memory_limit=memory)
    shapes = {tuple(pixels.shape) for pixels, _ in loader.epoch()}
    assert shapes == {(4, 3, 36, 18)}


def test_areas_keep_the_aspect_of_objects() -> None:
    # Of a picture that is a circle, crops of all of the area would be ellipses of twice the height.
    y, x = np.mgrid[:96, :96]
    circle = ((y - 48) ** 2 + (x - 48) ** 2 < 12**2).astype(np.uint8) * 255
    from PIL import Image

    preprocessing, ratios = Preprocessing((64, 32), (64, 32), (0.5,), (0.5,)), []
    for seed in range(200):
        pixels = Augmentation("area").area(Image.fromarray(circle), preprocessing, seed)[0] > 127
        rows, columns = pixels.any(1), pixels.any(0)
        whole = not (rows[[0, -1]].any() or columns[[0, -1]].any())
        if rows.any() and whole:
            ratios.append(math.log(int(rows.sum()) / int(columns.sum())))
    assert len(ratios) > 10
    assert max(map(abs, ratios)) < math.log(4 / 3) + 0.2  # and a pixel more or less


def test_training_and_the_model_file(folder: str, tmp_path: Path) -> None:
    settings = ["epochs=1", "batch=4", "warmup=0.5", "workers=0", "crop_size=48x24", "resize=[54, 30]", "crop=pad"]
    recipe = senet.load_recipe("digits", settings)
    assert (recipe.crop_size, recipe.resize) == ([48, 24], [54, 30])
    data = open_data(folder)
    senet.train("se_resnet20", (data, data), recipe, tmp_path / "run")
    again = senet.load_recipe(tmp_path / "run" / "recipe.toml")
    assert again == recipe
    model = senet.load(tmp_path / "run" / "last.safetensors")
    assert model.pretrained_cfg["input_size"] == (3, 48, 24)
    assert Preprocessing.of(model.pretrained_cfg) == recipe.preprocessing
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert senet.evaluate(model, data).loss == pytest.approx(json.loads(lines[-1])["loss"], rel=1e-6)


def test_recipe_with_a_size_that_is_none() -> None:
    for setting in ("crop_size=[1,2,3]", "crop_size=48x", "resize=true", "crop_size=1.5"):
        with pytest.raises(ValueError, match=f"{setting.partition('=')[0]} must be pixels"):
            senet.load_recipe("digits", [setting])


@pytest.mark.usefixtures("no_pictures")
def test_command_line(folder: str, tmp_path: Path) -> None:
    model = senet.create_model("se_resnet20", num_classes=3).eval()
    model.pretrained_cfg |= {"label_names": ["a", "b", "c"], "input_size": (3, 40, 24)}
    senet.save(model, tmp_path / "m.safetensors")
    given = ["evaluate", tmp_path / "m.safetensors", "--data", folder]
    assert answer(*given)["loss"] == pytest.approx(senet.evaluate(model, folder).loss, rel=1e-6)
    expected = senet.evaluate(model, folder, crop=(32, 16), resize=(36, 20)).loss
    assert answer(*given, "--crop", "32x16", "--resize", "36x20")["loss"] == pytest.approx(expected, rel=1e-6)
    assert answer(*given, "--crop", "16x32")["loss"] != pytest.approx(expected, rel=1e-6)
    refuses("--crop must be pixels, such as 224, or height and width, such as 64x32", *given, "--crop", "64x")
    assert answer("models", "se_resnet20")["input_size"] == [3, 32, 32]
    result = invoke("predict", given[1], folder, "--crop", "32x16", "--grid", tmp_path / "grid.png")
    assert result.exit_code == 0, result.stderr
    result = invoke("gates", given[1], "--data", folder, "-o", tmp_path / "gates", "--crop", "40x24", "--no-ablation")
    assert result.exit_code == 0, result.stderr


def test_bench_of_any_height_and_width() -> None:
    model = senet.create_model("se_resnet20")
    model.pretrained_cfg["input_size"] = (3, 24, 16)
    result = senet.bench(model, mode="infer", batch=1, rounds=1)
    assert result.setting.size == (24, 16)
    assert senet.bench(model, mode="infer", batch=1, rounds=1, size=(16, 24)).setting.size == (16, 24)


def test_library_networks_of_any_height_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import PretrainedCfg

    known = timm.models.get_pretrained_cfg("resnet10t")
    changed = PretrainedCfg(**{**known.to_dict(), "input_size": (3, 96, 64)})
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda *args, **options: changed)
    model = senet.create_model("timm/resnet10t")
    assert model.pretrained_cfg["input_size"] == (3, 96, 64)
    assert Preprocessing.of(model.pretrained_cfg).size == (96, 64)
