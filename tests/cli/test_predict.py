import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import senet
from senet.tasks import task
from tests.cli.helpers import answer, invoke, refuses
from tests.images import corrupt_jpeg


def test_most_probable_classes(data: Path, always_cat: Path) -> None:
    folder, image = data / "val" / "cat", data / "val" / "dog" / "0.png"
    found = answer("predict", always_cat, folder, image)
    assert [p["name"] for p in found] == [str(path) for path in [*sorted(folder.iterdir()), image]]
    assert all(p["classes"] == ["cat", "dog"] for p in found)
    assert all(p["probabilities"] == pytest.approx([0.75, 0.25]) for p in found)
    assert [p["classes"] for p in answer("predict", always_cat, image, "--top", 1)] == [["cat"]]


def test_table(data: Path, always_cat: Path) -> None:
    result = invoke("predict", always_cat, data / "val" / "dog")
    assert result.exit_code == 0
    assert result.stderr == ""
    *_, row = "".join(result.stdout.splitlines()).split("first", 1)
    assert row.split() == [str(data / "val" / "dog" / "0.png"), "cat", "75.0", "%", "dog", "25.0", "%"]


def test_names_are_shown_as_they_are(tmp_path: Path, data: Path, always_cat: Path) -> None:
    """Neither as rich's markup nor as emoji."""
    model = senet.load(always_cat)
    model.pretrained_cfg["label_names"] = [":dog:", "[red]a"]
    senet.save(model, tmp_path / "odd.safetensors")
    result = invoke("predict", tmp_path / "odd.safetensors", data / "val" / "dog")
    assert ":dog: 75.0 %  [red]a 25.0 %" in result.stdout
    refuses(r"no image or folder at :dog:\[a\]$", "predict", always_cat, ":dog:[a]")


def test_preprocessing_and_network(tmp_path: Path, data: Path, model_file: Path) -> None:
    """Options act as they do in `senet evaluate`."""
    model, image = senet.load(model_file), data / "val" / "dog" / "0.png"
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    given = ["--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.4"]
    bare = answer("predict", tmp_path / "bare.pth", image, "--network", "se_resnet20", *given)[0]
    own = answer("predict", model_file, image)[0]
    assert own["probabilities"] == pytest.approx(bare["probabilities"])
    assert bare["classes"] == [str(("cat", "dog").index(name)) for name in own["classes"]]
    sized = ["--resize", 48, "--crop", 40]
    expected = senet.predict(model, [image], resize=48, crop=40)[0].probabilities
    assert answer("predict", model_file, image, *sized)[0]["probabilities"] == pytest.approx(expected)
    assert expected != pytest.approx(own["probabilities"])


def test_grid(tmp_path: Path, data: Path, always_cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[tuple[str, bool]]] = []
    draw = task.draw_grid

    def record(images: list[Image.Image], labels: list[tuple[str, bool]], path: str, title: str) -> None:
        drawn.append(labels)
        draw(images, labels, path, title)

    monkeypatch.setattr(task, "draw_grid", record)
    monkeypatch.setattr(sys.modules["senet.cli.predict"], "GRID_LIMIT", 3)
    grid = tmp_path / "grid.png"
    result = invoke("predict", always_cat, data / "val", "--grid", grid)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"drew {grid}\n"
    assert drawn == [[("cat  75 %", False)] * 3]  # four images were predicted
    with Image.open(grid) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no image or folder at nowhere"),
        (["{data}/text.txt"], r"cannot read the image .*text\.txt"),
        (["{data}/cut.jpg"], r"cannot read the image .*cut\.jpg: image file is truncated"),
        (["{data}/empty"], "the folder .*empty contains no images"),
        (["{data}/val", "--top", "0"], "--top must be 1 or more, got 0"),
        (["{data}/val", "--mean", "x"], "invalid --mean 'x': expected numbers separated by commas"),
        (["{data}/val", "--crop", "0"], "resize and crop must be 1 pixel or more"),
        (["{data}/val", "--grid", "no/such/grid.png"], "there is no folder no/such to write grid.png to"),
    ],
)
def test_refuses(data: Path, always_cat: Path, arguments: list[str], message: str) -> None:
    (data / "text.txt").write_text("no image")
    (data / "cut.jpg").write_bytes(corrupt_jpeg())
    (data / "empty").mkdir()
    refuses(message, "predict", always_cat, *(argument.format(data=data) for argument in arguments))


def test_refuses_a_network_without_classes(tmp_path: Path, data: Path) -> None:
    senet.save(senet.create_model("resnet20", num_classes=0), tmp_path / "headless.safetensors")
    refuses("the network has no classes", "predict", tmp_path / "headless.safetensors", data / "val")


def test_skip_bad_leaves_out_what_cannot_be_read(tmp_path: Path, data: Path, always_cat: Path) -> None:
    (data / "val" / "cat" / "1.png").write_bytes(b"no picture")
    result = invoke("predict", always_cat, data / "val", "--skip-bad", "--grid", tmp_path / "grid.png")
    assert result.exit_code == 0
    assert "skipped 1 unreadable images" in result.stderr
    assert result.stdout.count("75.0 %") == 3
    refuses(
        "cannot read the image .*1.png: it is not an image, or has an unknown format",
        "predict",
        always_cat,
        data / "val",
    )
    bad = data / "val" / "cat" / "1.png"
    assert "none of the images is readable" in invoke("predict", always_cat, bad, "--skip-bad").stderr


def test_labelled_images(tmp_path: Path, data: Path, always_cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are marked in table, grid and CSV."""
    drawn: list[list[tuple[str, bool]]] = []
    monkeypatch.setattr(task, "draw_grid", lambda images, labels, path, title: drawn.append(labels))
    result = invoke("predict", always_cat, "--data", data, "--grid", tmp_path / "grid.png", "--csv", tmp_path / "a.csv")
    assert result.exit_code == 0, result.stderr
    assert drawn == [[("cat  75 %\ntruth: dog", True), *[("cat  75 %", False)] * 3]]  # errors first
    assert "1 of 4 predictions are wrong" in result.stdout
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "image,truth,wrong,class_1,probability_1,class_2,probability_2"
    assert [line.partition(",")[2] for line in lines[1:]] == [
        *["cat,0,cat,0.75,dog,0.25"] * 3,
        "dog,1,cat,0.75,dog,0.25",
    ]
    found = answer("predict", always_cat, "--data", data)
    assert [(one["truth"], one["wrong"]) for one in found] == [*[(["cat"], False)] * 3, (["dog"], True)]
    assert "truth" not in answer("predict", always_cat, data / "val")[0]


@pytest.mark.parametrize(
    ("limit", "wrong", "title"),
    [
        (4, [True, True, False, False], "Wrong predictions: 6 of 12 (2 of them are shown first)"),
        (12, [True] * 6 + [False] * 6, "Wrong predictions: 6 of 12 (shown first)"),
    ],
)
def test_a_grid_of_labelled_images_shows_errors_first(
    tmp_path: Path,
    data: Path,
    always_cat: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    wrong: list[bool],
    title: str,
) -> None:
    drawn: list[tuple[list[bool], str]] = []

    def record(images: list[Image.Image], labels: list[tuple[str, bool]], path: str, title: str) -> None:
        drawn.append(([wrong for _, wrong in labels], title))

    monkeypatch.setattr(task, "draw_grid", record)
    monkeypatch.setattr(sys.modules["senet.cli.predict"], "GRID_LIMIT", limit)
    train = data / "train"  # six cats, then six dogs
    assert invoke("predict", always_cat, "--data", train, "--grid", tmp_path / "grid.png").exit_code == 0
    assert drawn == [(wrong, title)]


@pytest.mark.parametrize("arguments", [[], ["image.png", "--data", "digits"]])
def test_images_or_data(always_cat: Path, arguments: list[str]) -> None:
    refuses("expected images or folders, or --data SPEC; give one of them", "predict", always_cat, *arguments)
