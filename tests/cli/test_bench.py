import json
import random
from itertools import accumulate
from pathlib import Path

import pytest

import senet
from senet.cli.bench import _device
from tests.cli.helpers import answer, invoke, refuses

QUICK = ["--batch", 2, "--size", 8, "--threads", 1, "--mode", "infer", "--device", "cpu"]


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second at every look at it."""
    seconds = iter(range(100_000))
    measured = senet.bench
    monkeypatch.setattr(senet, "bench", lambda *args, **options: measured(*args, **options, clock=seconds.__next__))


@pytest.mark.usefixtures("steady")
def test_table() -> None:
    result = invoke("bench", "se_resnet20", *QUICK, "--rounds", 6)
    assert result.exit_code == 0
    assert result.stderr == ""
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("se_resnet20 ", "resnet20 "))]
    assert [row[:5] for row in rows[:2]] == [
        ["se_resnet20", "272,095", "2", "1000", "-"],
        ["resnet20", "269,722", "2", "1000", "-"],
    ]
    assert "se_resnet20 takes 1.000 times as long as resnet20 (95 % interval 1.000 to 1.000" in result.stdout
    assert (
        "a step: forward in evaluation mode\n2 images of 8x8, float32, channels_last, eager; 6 rounds" in result.stdout
    )
    assert "1 of " in result.stdout
    assert f"senet {senet.__version__}" in result.stdout


@pytest.mark.usefixtures("steady")
def test_json_of_a_training_step_against_another_library() -> None:
    options = ["--batch", 2, "--size", 32, "--rounds", 6, "--threads", 1, "--dtype", "bfloat16"]
    found = answer("bench", "resnet20", "--against", "torchvision/resnet18", *options, "--set", "network.num_classes=4")
    assert found["conclusive"]
    assert found["ratio"] == 1
    assert found["rounds"] == 6
    assert found["setting"]["dtype"] == "bfloat16"
    assert found["setting"]["cuda_graph"] is False
    assert [found[side]["name"] for side in ("model", "against")] == ["resnet20", "torchvision/resnet18"]
    assert found["against"]["parameters"] == 11_176_512 + 4 * 513
    assert found["saved_ratio"] == found["model"]["saved_bytes"] / found["against"]["saved_bytes"]


@pytest.mark.usefixtures("steady")
def test_files(model_file: Path, always_cat: Path) -> None:
    found = answer("bench", model_file, "--against", always_cat, *QUICK, "--rounds", 6)
    assert found["model"]["name"] == str(model_file)
    assert found["against"]["name"] == str(always_cat)


@pytest.mark.usefixtures("steady")
def test_too_little_to_tell() -> None:
    result = invoke("bench", "se_resnet20", *QUICK, "--rounds", 3)
    assert result.exit_code == 1
    assert "inconclusive: se_resnet20 takes 1.000 times as long" in result.stdout
    assert result.stderr == "error: inconclusive: 3 rounds are too few for a 95 % interval; give 6 rounds or more\n"


def test_a_spread_too_wide_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    now = accumulate(generator.uniform(0.2, 3) for _ in range(1000))
    measured = senet.bench
    monkeypatch.setattr(senet, "bench", lambda *args, **options: measured(*args, **options, clock=now.__next__))
    result = invoke("bench", "se_resnet20", *QUICK, "--rounds", 9, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["conclusive"] is False
    warning, error = result.stderr.splitlines()
    assert warning == "times did not stabilise during a warm-up of 15 steps"
    assert error.startswith("error: inconclusive: the 95 % interval of the ratio, ")
    assert error.endswith("; give more rounds or seconds, on a machine that does nothing else")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["resnet20"],
            "resnet20 has no SE that senet put in, so it has no plain twin; name an opponent with --against",
        ),
        (
            ["se_resnet20", "--against", "timm/seresnet5"],
            "unknown network 'timm/seresnet5'; did you mean 'timm/seresnet",
        ),
        (["se_resnet20", "--mode", "test"], "unknown --mode 'test'"),
        (["se_resnet20", "--dtype", "float8"], "unknown --dtype 'float8'; did you mean 'float"),
        (["se_resnet20", "--dtype", "tf32", "--device", "cpu"], "dtype 'tf32' needs a GPU.*: use --dtype float32"),
        (["se_resnet20", "--cuda-graph", "--device", "cpu"], "CUDA graphs need a GPU.*: leave out --cuda-graph"),
        (["se_resnet20", "--seconds", "-1"], "seconds must be above 0"),
        (["a.safetensors", "--set", "network.num_classes=4"], "--set needs the name of a network"),
        (["se_resnet20", "--set", "network.reductoin=4"], "reduction"),
        (["nowhere.safetensors"], "no file at nowhere.safetensors"),
    ],
)
def test_refuses(arguments: list[str], message: str) -> None:
    refuses(message, "bench", *arguments)


def test_the_line_of_versions_names_the_gpu_and_not_the_processors_instructions() -> None:
    facts = {"processor": "EPYC", "machine": "x86_64", "capability": "AVX512"}
    assert _device(facts) == "EPYC (AVX512)"
    facts |= {"gpu": "NVIDIA H100", "cuda": "13.0", "cudnn": "91900", "triton": "3.8.0"}
    assert _device(facts) == "NVIDIA H100 (CUDA 13.0, cuDNN 91900, Triton 3.8.0)"
