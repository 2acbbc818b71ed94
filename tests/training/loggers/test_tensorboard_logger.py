import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senet.runs import Epoch, RunFolder
from senet.training import train
from senet.training.loggers import RunLoggers
from tests.training.small import epoch_of, small_data, small_recipe

NAMES = {"lr", "train_loss", "train_error", "loss", "top1_error", "top5_error", "seconds", "images_per_second"}


def epochs(count: int) -> list[Epoch]:
    return [
        epoch_of(
            n,
            lr=0.1 / n,
            train_loss=1 / 3 + n,
            train_error=50.0 / n,
            loss=0.7 * n,
            top1_error=40.0 / n,
            top5_error=9.0,
            seconds=1.5,
            images_per_second=100.0,
            nonfinite_steps=n % 2,
        )
        for n in range(1, count + 1)
    ]


def opened(folder: Path, done: list[Epoch]) -> RunLoggers:
    options: dict[str, Any] = {"config": {}, "epochs": done, "planned": 4, "note": lambda text: None}
    return RunLoggers(["tensorboard"], folder=RunFolder(folder), **options)


def read(output: Path) -> dict[str, list[tuple[int, float]]]:
    """Each scalar's steps and values, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(output / "tensorboard"))
    found.Reload()
    tags: Any = found.Tags()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in tags["scalars"]}


def assert_shows(output: Path, lines: list[dict[str, Any]]) -> None:
    shown = read(output)
    assert set(shown) == NAMES | {"nonfinite_steps"}
    for name, scalars in shown.items():
        assert scalars == [(line["epoch"], float(np.float32(line[name]))) for line in lines], name


def test_scalars_are_the_epochs(tmp_path: Path) -> None:
    with opened(tmp_path, []) as board:
        board.write(epochs(3))
    assert_shows(tmp_path, [epoch.as_row() for epoch in epochs(3)])


def test_an_epoch_can_be_seen_before_the_run_ends(tmp_path: Path) -> None:
    with opened(tmp_path, []) as board:
        board.write(epochs(1))
        assert_shows(tmp_path, [epochs(1)[0].as_row()])


def test_each_epoch_is_there_once_after_resuming(tmp_path: Path) -> None:
    with opened(tmp_path, []) as board:
        board.write(epochs(3))
    # The third epoch was written and not saved: it is trained again, with another result.
    third = epochs(3)[2]
    again = replace(third, metrics={**third.metrics, "loss": 5.0})
    expected = [*epochs(2), again, epochs(4)[3]]
    with opened(tmp_path, epochs(2)) as board:
        board.write(expected[:3])
        board.write(expected)
    assert_shows(tmp_path, [epoch.as_row() for epoch in expected])
    with opened(tmp_path, expected):
        pass
    assert_shows(tmp_path, [epoch.as_row() for epoch in expected])


def test_a_run_shows_its_metrics(tmp_path: Path) -> None:
    recipe, data = small_recipe(), (small_data(), small_data())
    train("resnet20", data, recipe, tmp_path, log="tensorboard")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert_shows(tmp_path, lines)
    train("resnet20", data, replace(recipe, epochs=3), tmp_path, log="tensorboard", resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert_shows(tmp_path, lines)


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"tensorboard .*: pip install -e '.*\[train\]'"):
        train("resnet20", (small_data(), small_data()), small_recipe(), tmp_path, log="tensorboard")
