"""Numbers of any size are refused before work starts, by a message with the name, the limit and the value."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import senet
from senet.benchmark.steps import Setting
from senet.data import ImageData, check_data, open_loader
from senet.data.shards.writing import write_shards
from senet.recipes import load_recipe
from senet.study.plan.make_plan import make_plan
from senet.study.plan.study import Study, StudyArm
from senet.study.running.local import LocalExecutor
from senet.utils.limits import check_at_most
from tests.images import write_classes
from tests.training.small import small_data, small_recipe

HUGE = 10**12


def test_message_names_value_and_limit() -> None:
    check_at_most("epochs", None, 5)
    check_at_most("epochs", 5, 5)
    with pytest.raises(ValueError, match="^epochs must be at most 5,000, got 6000; train less$"):
        check_at_most("epochs", 6000, 5000, "train less")
    with pytest.raises(ValueError, match="got a number of 16610 bits"):
        check_at_most("epochs", 10**5000, 5)


def many(count: int) -> ImageData:
    """So many images, of which none is ever read."""
    data = small_data()
    return ImageData("many", data.source, np.zeros(count, dtype=np.int64), ["a"])


def study(folder: Path, seeds: int) -> Any:
    arms = tuple(StudyArm(name, name, "resnet20") for name in "abcd")
    return make_plan(Study("s", "t", "", arms, ""), data="digits", recipe="digits", seeds=seeds, folder=folder)


LIMITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "in_channels": (lambda _: senet.create_model("resnet20", in_channels=10**9), "65,536, got 1000000000"),
    "in_channels of timm": (
        lambda _: senet.create_model("timm/resnet10t", in_channels=10**9),
        "in_channels must be at most 65,536, got 1000000000",
    ),
    "num_classes": (lambda _: senet.create_model("resnet20", num_classes=10**9), "1,000,000, got 1000000000"),
    "channels": (lambda _: senet.SqueezeExcitation(10**9), "65,536, got 1000000000"),
    "hidden_channels": (lambda _: senet.SqueezeExcitation(8, hidden_channels=10**9), "65,536, got 1000000000"),
    "epochs": (lambda _: load_recipe("cifar", [f"epochs={HUGE}"]), f"1,000,000, got {HUGE}"),
    "batch": (lambda _: load_recipe("cifar", [f"batch={HUGE}"]), f"1,048,576, got {HUGE}"),
    "rounds": (lambda _: senet.bench("se_resnet20", rounds=10**20), "1,000,000, got 1" + "0" * 20),
    "workers": (lambda _: load_recipe("cifar", ["workers=1000000"]), "1,024, got 1000000"),
    "resize": (lambda _: load_recipe("cifar", ["resize=1000000"]), "8,192, got 1000000"),
    "padding": (lambda _: load_recipe("cifar", ["padding=1000000"]), "8,192, got 1000000"),
    "seeds": (lambda folder: study(folder, 99_999_999), "2,500, got 99999999; a study has at most 10,000 runs"),
    "jobs": (lambda _: LocalExecutor(10**6), "1,024, got 1000000"),
    "loader batch": (
        lambda _: open_loader(small_data(), small_recipe().preprocessing, batch=HUGE),
        f"batch must be at most 1,048,576, got {HUGE}",
    ),
    "loader workers": (
        lambda _: open_loader(small_data(), small_recipe().preprocessing, batch=1, workers=10**6),
        "workers must be at most 1,024, got 1000000",
    ),
    "check workers": (lambda _: check_data(small_data(), workers=10**6), "workers must be at most 1,024, got 1000000"),
    "shards": (
        lambda folder: write_shards(many(200_000), folder / "out", images_per_shard=1),
        "the number of shards must be at most 100,000, got 200000; put more images into each",
    ),
    "shard jobs": (
        lambda folder: write_shards(small_data(), folder / "out", jobs=10**6),
        "jobs must be at most 1,024, got 1000000",
    ),
    "bench batch": (lambda _: Setting(batch=HUGE), f"batch must be at most 1,048,576, got {HUGE}"),
    "bench size": (lambda _: Setting(size=99_999_999), "size must be at most 8,192, got 99999999"),
    "bench threads": (lambda _: Setting(threads=10**9), "threads must be at most 1,024, got 1000000000"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_number_above_its_limit(name: str, tmp_path: Path) -> None:
    act, message = LIMITS[name]
    message = message if "must be" in message else f"{name} must be at most {message}"
    with pytest.raises(ValueError, match=re.escape(message)):
        act(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_crop_of_the_command_line(tmp_path: Path) -> None:
    model: Any = senet.create_model("resnet20", num_classes=2)
    with pytest.raises(ValueError, match="crop must be at most 8,192, got 99999999"):
        senet.evaluate(model, str(write_classes(tmp_path, {"a": 1, "b": 1})), crop=99_999_999)
