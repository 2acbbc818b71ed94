"""Where a command would write is checked before any work, by the same rules for every command."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.helpers import invoke

# By command and option: the arguments before the output, and whether it is a folder. Networks, data and runs are
# missing, so that a command that began to work would complain about those.
OUTPUTS = {
    "train": (["train", "none", "--data", "none", "--recipe", "digits", "--output"], True),
    "study": (["study", "reduction", "--data", "none", "--network", "none", "--recipe", "digits", "-o"], True),
    "gates": (["gates", "none.pth", "--data", "none", "-o"], True),
    "shard": (["shard", "none", "-o"], True),
    "index": (["shard", "wds:none", "--index-only", "-o"], True),
    "fold": (["fold", "none.safetensors", "--data", "none", "-o"], False),
    "insert": (["insert", "none.safetensors", "-o"], False),
    "export": (["export", "none.safetensors", "--weights-format", "timm", "-o"], False),
    "models": (["models", "none", "--plot"], False),
    "compare": (["compare", "none", "-o"], False),
    "predict": (["predict", "none.safetensors", "none", "--grid"], False),
    "paper": (["paper", "none", "--write"], False),
}
SUFFIXES = {"models": ".png", "compare": ".png", "predict": ".png", "paper": ".md"}
FILES = [name for name, (_, is_folder) in OUTPUTS.items() if not is_folder]
FOLDERS = [name for name in OUTPUTS if name not in FILES]


def refuses(command: str, output: object, *parts: str) -> None:
    arguments = OUTPUTS[command][0]
    result = invoke(*arguments, output)
    assert result.exit_code == 2, result.output
    option = arguments[-1] if arguments[-1] != "-o" else "--output"
    line = result.stderr.splitlines()[-1]
    for part in ("error: ", option, *parts):
        assert part in line, line


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_empty_name_is_refused(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(command, "", "is empty, got ''")
    refuses(command, "  ", "is empty, got '  '")
    refuses(command, "--json", "looks like an option", "./--json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", FILES)
def test_files_that_cannot_be_written_are_refused(command: str, tmp_path: Path) -> None:
    suffix = SUFFIXES.get(command, ".safetensors")
    (tmp_path / f"folder{suffix}").mkdir()
    refuses(command, tmp_path / f"folder{suffix}", "is a folder", f"folder{suffix}")
    refuses(command, tmp_path / "none" / f"x{suffix}", "there is no folder", "make it first")
    refuses(command, tmp_path / f"{'x' * 300}{suffix}", "too long")
    (tmp_path / "file").touch()
    refuses(command, tmp_path / "file" / f"x{suffix}", "Not a directory", "choose another one")
    for wrong in (".jpg", ".txt", ".png" if suffix != ".png" else ".safetensors"):
        refuses(command, tmp_path / f"x{wrong}", "must end in", f"x{wrong}")


@pytest.mark.parametrize("command", FOLDERS)
def test_folders_that_cannot_be_written_are_refused(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "none")
    refuses(command, tmp_path / "file", "file")
    refuses(command, tmp_path / "file" / "below", "file is a file; ", "below would be below it")
    refuses(command, tmp_path / "link" / "below", "a broken link")
    refuses(command, tmp_path / ("x" * 300), "too long")


@pytest.mark.parametrize("command", OUTPUTS)
def test_folders_without_permission_are_refused(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path) and access(path, mode))
    refuses(command, tmp_path / f"x{SUFFIXES.get(command, '.safetensors')}", "no permission", str(tmp_path))


@pytest.mark.parametrize(
    "prepare", [Path.touch, lambda path: path.symlink_to(path.parent / "of")], ids=["same", "link"]
)
@pytest.mark.parametrize("command", ["fold", "insert", "export"])
def test_an_input_is_not_overwritten(command: str, prepare: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "of").touch()
    prepare(tmp_path / "x.safetensors")
    source = tmp_path / ("of" if (tmp_path / "x.safetensors").is_symlink() else "x.safetensors")
    arguments = [str(source) if one == "none.safetensors" else one for one in OUTPUTS[command][0]]
    result = invoke(*arguments, tmp_path / "x.safetensors")
    assert result.exit_code == 2
    assert "is also an input, which would be overwritten; choose another name" in result.stderr


def test_an_image_is_not_overwritten_by_a_grid(data: Path, model_file: Path) -> None:
    image = sorted((data / "val" / "cat").iterdir())[0].rename(data / "val" / "cat" / "a.png")
    for given in (image, data / "val"):
        result = invoke("predict", model_file, given, "--grid", image)
        assert result.exit_code == 2
        assert "is also an input" in result.stderr


def test_data_are_not_overwritten(data: Path, model_file: Path, tmp_path: Path) -> None:
    """Neither their images nor the list that names them."""
    images = sorted((data / "val").rglob("*.png"))
    lines = [f"{image},{image.parent.name}" for image in images]
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    for options in (
        ("predict", "--grid", images[0]),
        ("predict", "--csv", tmp_path / "val.csv"),
        ("evaluate", "--confusion", images[1]),
    ):
        before = options[2].read_bytes()
        result = invoke(options[0], model_file, "--data", f"csv:{tmp_path}", *options[1:])
        assert result.exit_code == 2
        assert "is also an input, which would be overwritten" in result.stderr
        assert options[2].read_bytes() == before


@pytest.mark.parametrize("command", ["train", "study", "gates", "shard"])
def test_data_are_not_mixed_with_results(command: str, data: Path) -> None:
    arguments = [str(data) if one == "none" and before in ("--data", "shard") else one
                 for before, one in zip(["", *OUTPUTS[command][0]], OUTPUTS[command][0], strict=False)]  # fmt: skip
    result = invoke(*arguments, data)
    assert result.exit_code == 2
    assert "is also the data; choose another folder" in result.stderr


@pytest.mark.parametrize("command", ["train", "study", "gates", "shard"])
def test_results_among_the_classes_of_the_data_are_refused(command: str, tmp_path: Path) -> None:
    """With figures among its classes the data set could not be read afterwards."""
    for split, other in (("train", "val"), ("a", "b")):
        data = tmp_path / split
        for name in (split, other):
            (data / name / "c").mkdir(parents=True)
        before = OUTPUTS[command][0][:-1]
        at = before.index("--data") + 1 if "--data" in before else 1
        arguments = [*before[:at], str(data), *before[at + 1 :], "-o"]
        for output in (data / split / "results", data / other):
            result = invoke(*arguments, output)
            assert result.exit_code == 2
            assert f"--output '{output}' is among the class folders of the data {data}" in result.stderr
            assert "choose a folder outside" in result.stderr
            assert not (data / split / "results").exists()
    result = invoke("shard", tmp_path / "train", "-o", tmp_path / "train" / "shards")  # next to the splits is fine
    assert "lies among" not in result.stderr
