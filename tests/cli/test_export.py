from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import senet
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import assert_close, randomise


@pytest.fixture
def model(tmp_path: Path) -> torch.nn.Module:
    model = randomise(senet.create_model("se_resnet18", pool="pad", num_classes=4)).eval()
    senet.save(model, tmp_path / "model.safetensors")
    return model


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_what_is_written_loads_there(name: str, model: torch.nn.Module, tmp_path: Path) -> None:
    out = tmp_path / name
    result = answer("export", tmp_path / "model.safetensors", "--weights-format", "timm", "-o", out)
    assert {key: result[key] for key in ("output", "library", "network", "options")} == {
        "output": str(out),
        "library": "timm",
        "network": "seresnet18",
        "options": {"num_classes": 4},
    }
    there = timm.create_model("seresnet18", num_classes=4).eval()
    state = load_file(out) if name.endswith("safetensors") else torch.load(out, weights_only=True)
    there.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert_close(there(x), model(x), 1e-5)


def test_says_how_the_network_is_built(model: torch.nn.Module, tmp_path: Path) -> None:
    result = invoke("export", tmp_path / "model.safetensors", "--weights-format", "timm", "-o", tmp_path / "a.pth")
    assert result.stdout == "model = timm.create_model('seresnet18', num_classes=4)\n"
    assert result.stderr.startswith(f"wrote {tmp_path / 'a.pth'}: ")


def test_a_folder_for_timm(model: torch.nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "of_timm"
    result = invoke("export", tmp_path / "model.safetensors", "--weights-format", "timm", "-o", out)
    assert result.stdout == f"model = timm.create_model('local-dir:{out}', pretrained=True)\n"
    there = eval(result.stdout.removeprefix("model = "), {"timm": timm}).eval()
    x = torch.randn(1, 3, 64, 64)
    assert_close(there(x), model(x), 1e-5)


def test_bare_weights(tmp_path: Path) -> None:
    torch.save(timm.create_model("seresnet18", num_classes=3).state_dict(), tmp_path / "bare.pth")
    out = tmp_path / "out.safetensors"
    arguments = ("export", tmp_path / "bare.pth", "--network", "se_resnet18", "--weights-format", "timm", "-o", out)
    result = invoke(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "bare.pth has weights of timm; they imply " in result.stderr
    assert "pool='pad'" in result.stderr
    wanted = torch.load(tmp_path / "bare.pth", weights_only=True)
    found = load_file(out)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_refuses(model: torch.nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    refuses("has no resnet18 with SE", "export", file, "--weights-format", "torchvision", "-o", tmp_path / "o.pth")
    refuses("unknown --weights-format 'keras'", "export", file, "--weights-format", "keras", "-o", tmp_path / "o.pth")
    refuses(
        "the name must end in .safetensors, .pth or .pt",
        "export",
        file,
        "--weights-format",
        "timm",
        "-o",
        tmp_path / "o.txt",
    )
    refuses("no folder", "export", file, "--weights-format", "timm", "-o", tmp_path / "none" / "o.pth")
    assert not list(tmp_path.glob("o.*"))


@pytest.fixture
def function(tmp_path: Path) -> str:
    """A user's network, in a file of Python."""
    (tmp_path / "net.py").write_text("from tests.deployment.export.networks import TwoInputs, small\n")
    return f"{tmp_path / 'net.py'}:small"


@pytest.mark.usefixtures("traced")
def test_a_network_for_an_engine(function: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    out = tmp_path / "out.pt2"
    images = ("--classes", tmp_path / "classes.txt", "--crop", "16x20", "--mean", "0.1,0.2,0.3", "--dynamic", "batch")
    result = answer("export", function, "-o", out, "--precision", "bf16", *images)
    stated = {key: result[key] for key in ("output", "format", "precision", "inputs", "outputs", "compared")}
    assert stated == {
        "output": str(out),
        "format": "torch",
        "precision": "bf16",
        "inputs": {"image": "(-1, 3, 16, 20) float32"},
        "outputs": ["output"],
        "compared": 4 + 3,
    }
    assert result["bytes"] == out.stat().st_size
    assert 0 < result["relative_difference"] < 0.1
    assert result["rewritten"]["folded"] == 2
    exported = senet.load_exported(out)
    assert exported.classes == ("a", "b", "c")
    assert exported.preprocessing is not None
    assert (exported.preprocessing.size, exported.preprocessing.mean) == ((16, 20), (0.1, 0.2, 0.3))


@pytest.mark.usefixtures("traced")
def test_says_how_far_the_file_is_from_pytorch(function: str, tmp_path: Path) -> None:
    out = tmp_path / "out.pt2"
    result = invoke("export", function, "-o", out, "--no-rewrite")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == ["input image (1, 3, 12, 12) float32", "output output"]
    assert lines[2].startswith("largest difference from PyTorch ")
    assert lines[2].endswith("; same class for 100.0% of 4 images")
    assert result.stderr.startswith(f"wrote {out}: 0.0 MB")
    several = function.replace("small", "TwoInputs")
    result = invoke("export", several, "-o", out, "--input", "extra=2x6", "--input", "image=2x3x8x8")
    assert result.exit_code == 0, result.stderr
    assert "outputs logits, maps" in result.stdout
