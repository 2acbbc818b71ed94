import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

import senet
from senet.model_file import loading
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import randomise
from tests.images import corrupt_jpeg, write_classes


def by_hand(model: torch.nn.Module, data: Path, resize: int, crop: int, mean: list[float], std: list[float]) -> float:
    """Mean cross entropy on three cats and a dog, by torchvision's transforms."""
    images = [Image.open(path) for path in sorted((data / "val").rglob("*.png"))]
    steps = [v2.Resize(resize), v2.CenterCrop(crop), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    pipeline = v2.Compose([*steps, v2.Normalize(mean, std)])
    pixels = torch.stack([pipeline(image) for image in images])
    with torch.no_grad():
        return float(F.cross_entropy(model(pixels), torch.tensor([0, 0, 0, 1])))


def test_errors_and_loss(data: Path, always_cat: Path) -> None:
    found = answer("evaluate", always_cat, "--data", data)
    loss = -(3 * torch.tensor(0.75).log() + torch.tensor(0.25).log()) / 4
    assert found.pop("loss") == pytest.approx(float(loss), rel=1e-6)
    assert [(one["name"], one["images"], one["top1_error"]) for one in found.pop("classes")] == [
        ("cat", 3, 0.0),
        ("dog", 1, 100.0),
    ]
    assert found == {"top1_error": 25.0, "top5_error": 0.0, "images": 4, "skipped": 0}


def test_table(data: Path, always_cat: Path) -> None:
    result = invoke("evaluate", always_cat, "--data", data)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("cat", "dog"))]
    assert rows == [["cat", "3", "0.00", "0.00"], ["dog", "1", "100.00", "0.00"]]
    assert "top-1 error 25.00 %, top-5 error 0.00 %, loss 0.5623, 4 images" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "resize", "crop", "mean", "std"),
    [
        ([], 32, 32, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]),
        (["--resize", 48, "--crop", 40, "--batch", 1], 48, 40, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]),
        (["--mean", "0.1,0.2,0.3", "--std", "0.5,0.5,0.6"], 32, 32, [0.1, 0.2, 0.3], [0.5, 0.5, 0.6]),
    ],
)
def test_preprocessing_is_the_files_unless_given(
    data: Path, model_file: Path, options: list[object], resize: int, crop: int, mean: list[float], std: list[float]
) -> None:
    expected = by_hand(senet.load(model_file), data, resize, crop, mean, std)
    assert answer("evaluate", model_file, "--data", data, *options)["loss"] == pytest.approx(expected, rel=1e-4)


def test_bare_weights(tmp_path: Path, data: Path, model_file: Path) -> None:
    """Of CIFAR's networks, with ImageNet's mean and deviation: images of 32x32 as they are."""
    model = senet.load(model_file)
    state = {f"module.{key.replace('fc.', 'linear.')}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "bare.th")
    arguments = ["evaluate", tmp_path / "bare.th", "--data", data, "--network", "se_resnet20"]
    expected = by_hand(model, data, 32, 32, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert answer(*arguments)["loss"] == pytest.approx(expected, rel=1e-4)
    assert answer(*arguments, "--set", "network.num_classes=2")["loss"] == pytest.approx(expected, rel=1e-4)


def test_bare_weights_bring_their_own_shortcuts(tmp_path: Path, data: Path) -> None:
    model = randomise(senet.create_model("resnet20", num_classes=2, shortcut="projection")).eval()
    state = {key.replace(".downsample.", ".shortcut."): value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "bare.pth")
    expected = by_hand(model, data, 32, 32, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    found = answer("evaluate", tmp_path / "bare.pth", "--data", data, "--network", "resnet20")
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_refuses_a_model_file_that_is_cut_short(tmp_path: Path, data: Path, model_file: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model_file.read_bytes()[:-100])
    refuses("cut.safetensors is not a checkpoint, or is truncated", "evaluate", cut, "--data", data)


def test_refuses_a_model_file_of_a_newer_version(data: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FORMAT", 0)
    refuses(
        "written by senet .* in format 1; this version reads formats up to 0: upgrade",
        "evaluate",
        model_file,
        "--data",
        data,
    )


def test_bad_images(data: Path, always_cat: Path) -> None:
    (data / "val" / "dog" / "9.jpg").write_bytes(corrupt_jpeg())
    refuses(r"val/dog/9\.jpg.*--skip-bad", "evaluate", always_cat, "--data", data)
    result = invoke("evaluate", always_cat, "--data", data, "--skip-bad")
    assert result.exit_code == 0
    assert "4 images" in result.stdout
    assert result.stderr == "skipped 1 unreadable images\n"
    assert answer("evaluate", always_cat, "--data", data, "--skip-bad")["skipped"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "the data 'nowhere' does not exist"),
        (["--mean", "a,b,c"], "invalid --mean 'a,b,c': expected numbers separated by commas, such as"),
        (["--std", "1,"], "invalid --std '1,': expected numbers separated by commas"),
        (["--std", "0,1,1"], "std above 0"),
        (["--std", "1e-45,1,1"], r"std must be 0.001 or more, got \(1e-45, 1.0, 1.0\)"),
        (["--mean", "nan,0,0"], "mean and std must be on the scale of 0 to 1"),
        (["--mean", "120,120,120"], "on the scale of 0 to 1.*divide"),
        (["--mean", "0.5", "--std", "0.5"], "takes 3-channel images, and mean and std are of 1"),
        (["--resize", "0"], "resize and crop must be 1 pixel or more, got 0"),
        (["--crop", "-1"], "resize and crop must be 1 pixel or more"),
        (["--batch", "0"], "batch must be 1 or more"),
        (["--network", "resnet20"], "cat.safetensors is a model file.*leave out --network, --set"),
        (["--set", "network.reduction=4"], "is a model file.*leave out --network, --set"),
        (["--set", "lr=4"], "--set lr=... is not an option of the network; write network.KEY=VALUE"),
    ],
)
def test_refuses_options(data: Path, always_cat: Path, options: list[str], message: str) -> None:
    refuses(message, "evaluate", always_cat, "--data", data, *options)


def test_refuses_classes(tmp_path: Path, always_cat: Path) -> None:
    other = write_classes(tmp_path / "other", {"cat": 1, "eel": 1})
    refuses("1 of 2 classes that training lacks: eel; .* cat, dog", "evaluate", always_cat, "--data", other)
    torch.save(senet.create_model("resnet20").state_dict(), tmp_path / "bare.pth")
    bare = ["evaluate", tmp_path / "bare.pth", "--network", "resnet20"]
    result = invoke(*bare, "--data", other)
    *notes, line = result.stderr.splitlines()
    assert result.exit_code == 2
    assert re.match("error: .*has 2 classes, and the network 10", line)
    assert all("resnet20" in text or "bare.pth" in text for text in notes)  # what was assumed of the weights


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("m.safetensors", None, [], "no file at"),
        ("m.safetensors", b"short", [], "not a checkpoint, or is truncated"),
        ("m.pth", None, ["--network", "resnet20"], "no file at"),
        ("m.pth", b"\x89PNG\r\n\x1a\n" * 9, ["--network", "resnet20"], "not a checkpoint of plain tensors"),
        ("m.pth", {"fc.bias": torch.zeros(())}, ["--network", "resnet20"], "does not fit the network: .*missing"),
        ("m.pth", {"fc.bias": torch.zeros(10)}, ["--network", "resnet21"], "unknown network 'resnet21'"),
        ("m.pth", {"fc.bias": torch.zeros(10)}, [], "holds weights only; name their network with --network NAME"),
        ("m.pth", {"fc.bias": 3}, ["--network", "resnet20"], "holds no state dict"),
    ],
)
def test_refuses_files(
    tmp_path: Path, data: Path, name: str, content: object, options: list[str], message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    refuses(message, "evaluate", path, "--data", data, *options)


@pytest.fixture
def nan_file(tmp_path: Path) -> Path:
    model = senet.create_model("se_resnet20", num_classes=2)
    model.fc.bias.data[1] = float("nan")
    model.pretrained_cfg |= {"label_names": ["cat", "dog"]}
    senet.save(model, tmp_path / "nan.safetensors")
    return tmp_path / "nan.safetensors"


def test_network_whose_logits_are_nan(tmp_path: Path, data: Path, nan_file: Path) -> None:
    # It had an error of 25 %, and probabilities of nan %.
    message = r"the logits of .*val/cat/0.png .*are not finite \(nan\): the network's tensor 'fc.bias' holds nan; load"
    refuses(message, "evaluate", nan_file, "--data", data, status=1)
    written = ["--data", data, "-o", tmp_path / "out"]
    refuses("the network's output is not finite for image 0 of the data", "gates", nan_file, *written, status=1)
    refuses("logits are not finite, first for image 0 of the data", "fold", nan_file, *written, status=1)
    refuses(message, "predict", nan_file, data / "val", "--grid", tmp_path / "out.png", status=1)
    assert not (tmp_path / "out").exists()


def test_confusion_matrix(data: Path, always_cat: Path, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    assert answer("evaluate", always_cat, "--data", data, "--confusion", picture)["confusion"] == [[3, 0], [1, 0]]
    assert picture.read_bytes().startswith(b"\x89PNG")
    model = senet.load(always_cat)
    model.pretrained_cfg["task"] = "multilabel"
    senet.save(model, tmp_path / "labels.safetensors")
    arguments = ["evaluate", tmp_path / "labels.safetensors", "--data", data, "--confusion"]
    refuses("the network was trained for multilabel; leave out --confusion", *arguments, tmp_path / "other.png")
    refuses(r"invalid --confusion .*must end in \.png", *arguments, tmp_path / "other.jpg")
    assert not list(tmp_path.glob("other*"))
