import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from senet.data import open_splits
from tests.cli import helpers
from tests.images import corrupt_jpeg


def invoke(*arguments: object) -> Result:
    return helpers.invoke("shard", *arguments)


def answer(*arguments: object) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_both_splits_and_what_is_there(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    found = answer(data, "-o", out, "--images-per-shard", 4, "--jobs", 1)
    assert found["output"] == str(out)
    train, val = found["sets"]
    assert (train["index"], val["index"]) == (f"{out}/train.index.json", f"{out}/val.index.json")
    assert (train["images"], train["classes"], train["shards"], train["kept"]) == (12, 2, 3, 0)
    assert (val["images"], val["shards"], val["left_out"]) == (4, 1, 0)
    assert [len(images) for images in open_splits(f"wds:{out}")] == [12, 4]
    result = invoke(data, "-o", out, "--images-per-shard", 4, "--jobs", 1)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("12 images of 2 classes in 3 shards, ")
    assert first.endswith(f"of which 3 existed and were verified: {out}/train.index.json")
    assert second.startswith("4 images of 2 classes in 1 shards, ")


def test_splits_one_by_one(data: Path, tmp_path: Path) -> None:
    """Two data sets without splits of their own become the splits of one."""
    for split in ("train", "val"):
        answer(data / split, "-o", tmp_path / "shards", "--split", split, "--jobs", 1)
    training, validation = open_splits(f"wds:{tmp_path / 'shards'}")
    assert training.has_splits
    assert (len(training), len(validation)) == (12, 4)


@pytest.mark.parametrize("option", [["--split", "val"], ["--megabytes", "3"], ["--keep-order"], ["--skip-bad"]])
@pytest.mark.parametrize("mode", ["--verify", "--index-only"])
def test_options_that_would_do_nothing(tmp_path: Path, mode: str, option: list[str]) -> None:
    output = ["-o", tmp_path] if mode == "--index-only" else []
    helpers.refuses(
        f"{option[0]} is for writing shards, and {mode} writes none", "shard", "wds:x", mode, *output, *option
    )


def test_verify(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    answer(data, "-o", out, "--images-per-shard", 4, "--jobs", 1)
    result = invoke(f"wds:{out}", "--verify")
    assert result.exit_code == 0
    assert result.stdout == "train: 3 of 3 shards are intact\nval: 1 of 1 shards are intact\n"
    path = out / "train-000001.tar"
    content = bytearray(path.read_bytes())
    content[1600] ^= 1
    path.write_bytes(content)
    result = invoke(f"wds:{out}", "--verify")
    assert result.exit_code == 1
    assert f"train: 2 of 3 shards are intact\ndamaged: {path}: its checksum is wrong\n" in result.stdout
    result = invoke(f"wds:{out}", "--verify", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["train"]["damaged"] == [f"{path}: its checksum is wrong"]
    result = invoke(data, "-o", out, "--images-per-shard", 4, "--jobs", 1)
    assert result.exit_code == 0
    assert f"{path} was damaged, or its images have changed; it was written again" in result.stderr
    assert invoke(f"wds:{out}", "--verify").exit_code == 0


def test_unreadable_image(data: Path, tmp_path: Path) -> None:
    bad = data / "train" / "cat" / "2.png"
    bad.write_bytes(corrupt_jpeg())
    arguments = (data, "-o", tmp_path / "shards", "--jobs", 1)
    result = invoke(*arguments)
    assert result.exit_code == 1
    *_, line = result.stderr.splitlines()
    assert line.startswith(f"error: cannot read the image {bad}: ")
    assert line.endswith("--skip-bad; complete shards are kept, and the same command resumes from there")
    result = invoke(*arguments, "--skip-bad")
    assert result.exit_code == 0
    assert f"skipped 1 unreadable images: {bad}" in result.stderr


def test_index_of_others_shards(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    answer(data, "-o", out, "--images-per-shard", 4, "--jobs", 1)
    (tmp_path / "names").write_text("cat\ndog\n")
    spec = f"wds:{out}/train-{{000000..000002}}.tar?classes={tmp_path}/names"
    found = answer(spec, "--index-only", "-o", tmp_path / "index")
    assert found["index"] == f"{tmp_path}/index/train.index.json"
    assert (found["images"], found["classes"], found["shards"]) == (12, 2, 3)
    result = invoke(spec, "--index-only", "-o", tmp_path / "index")
    assert result.stdout == f"12 images of 2 classes in 3 shards: {tmp_path}/index/train.index.json\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits",), "--output DIR is missing"),
        (("{tmp}/nowhere", "-o", "{tmp}/x"), "does not exist"),
        (("{data}", "-o", "{tmp}/x", "--jobs", "0"), "must be 1 or more"),
        (("{data}", "-o", "{tmp}/x", "--split", "vall"), "unknown --split 'vall'; did you mean 'val'"),
        (("{data}", "-o", "{data}/train/cat/0.png"), "is a file; give a folder"),
        (("wds:{tmp}/nowhere", "--verify"), "no folder .*nowhere"),
        (("{data}", "--index-only", "-o", "{tmp}/x"), "expected shards to index, wds:"),
    ],
)
def test_refused_before_it_starts(data: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*(argument.format(tmp=tmp_path, data=data) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.search(message, result.stderr)
