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
