from pathlib import Path

import pytest
import torch

import senet
from tests.cli.helpers import answer, invoke, refuses
from tests.helpers import assert_close, randomise


@pytest.fixture
def still(model_file: Path, tmp_path: Path) -> Path:
    """A network whose gates cannot vary in the first two stages, and shut off a class in the last."""
    model = senet.load(model_file)
    for unit in senet.graph.se_modules.find_se(model)[:6]:
        torch.nn.init.zeros_(unit.expand.weight)
    senet.save(model, tmp_path / "still.safetensors")
    return tmp_path / "still.safetensors"


def test_folds_what_cannot_vary(data: Path, model_file: Path, still: Path, tmp_path: Path) -> None:
    out = tmp_path / "folded.safetensors"
    found = answer("fold", still, "--data", data, "-o", out, "--max-drop", 0.2, "--no-latency")
    assert found["blocks"] == [f"layer{s}.{u}.bn2.se" for s in (1, 2) for u in (0, 1, 2)]
    assert all(step["certain"] for step in found["steps"])
    assert [kept["label"] for kept in found["kept"]] == ["SE_4_1", "SE_4_2", "SE_4_3"]
    before, after = senet.load(still).double(), senet.load(out).double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    assert_close(after(images), before(images), 1e-5)  # its weights are kept in float32
    assert len(senet.graph.se_modules.find_se(after)) == 3
    size = (3, 32, 32)
    assert found["params"] - found["saved_params"] == senet.cost(after.float(), size).params
    assert found["error_after"] == answer("evaluate", out, "--data", data)["top1_error"]


@pytest.mark.usefixtures("no_pictures")
def test_folds_a_dead_block_within_any_budget(data: Path, model_file: Path, tmp_path: Path) -> None:
    """Its hidden units are never on: few images are enough, and the advice of `senet gates` is the same."""
    model = senet.load(model_file)
    dead = senet.graph.se_modules.find_se(model)[4]
    torch.nn.init.constant_(dead.reduce.bias, -1000.0)
    senet.save(model, tmp_path / "dead.safetensors")
    run = ["fold", tmp_path / "dead.safetensors", "--data", data, "--dry-run", "--max-drop", 0, "--no-latency"]
    run += ["--blocks", "layer2.*"]
    found = answer(*run)
    assert found["blocks"] == [dead.name]
    assert [(step["certain"], step["unchanged"]) for step in found["steps"]] == [(False, True)]
    assert found["change"] == {"value": 0, "low": 0, "high": 0}
    shown = invoke(*run[:-1], dead.name)
    assert "the same for every image" in " ".join(shown.stdout.split())
    judged = answer("gates", tmp_path / "dead.safetensors", "--data", data, "-o", tmp_path / "gates")
    folding = [block["name"] for block in judged["blocks"] if any("Fold it (" in text for text in block["advice"])]
    assert folding == [dead.name]
    assert {one["bound"] for block in judged["blocks"] for one in block["ablations"] if block["name"] == dead.name} == {
        0
    }


def test_nothing_to_fold_is_the_network_as_it_was(data: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "same.safetensors"
    result = invoke("fold", model_file, "--data", data, "-o", out, "--max-drop", 0)
    assert result.exit_code == 0, result.output
    assert "no block can be folded within 0 points" in result.stdout
    assert "the unchanged network" in result.stderr
    one, two = senet.load(model_file).state_dict(), senet.load(out).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_few_images_say_how_many_it_takes(data: Path, model_file: Path) -> None:
    result = invoke("fold", model_file, "--data", data, "--dry-run", "--max-drop", 20)
    assert result.exit_code == 0, result.output
    assert "images are too few" in result.stdout
    assert "are needed" in result.stdout


def test_dry_run_writes_nothing_and_shows_the_plan(data: Path, still: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = invoke("fold", still, "--data", data, "--dry-run", "--blocks", "layer1.*,layer2.0*", "--no-latency")
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.iterdir()) == before
    assert result.stdout.count("folded, constant by its weights") == 4
    assert "top-1 error %" in result.stdout


@pytest.mark.usefixtures("no_pictures")
def test_takes_the_means_of_a_recording(data: Path, still: Path, tmp_path: Path) -> None:
    answer("gates", still, "--data", data, "-o", tmp_path / "gates", "--no-ablation")
    recorded = ["--gates", tmp_path / "gates" / "gates.safetensors"]
    run = ["fold", still, "--data", data, "--dry-run", "--no-latency", "--blocks", "layer2.2*,layer3.0*,layer3.1*"]
    one = answer(*run)
    assert (len(one["steps"]), len(one["kept"])) == (1, 2)
    assert answer(*run, *recorded) == one
    other = tmp_path / "other.safetensors"
    senet.save(randomise(senet.load(still)), other)
    refuses("was recorded with other weights than", "fold", other, "--data", data, "--dry-run", *recorded)


def test_refuses(data: Path, model_file: Path, always_cat: Path, tmp_path: Path) -> None:
    run = ["fold", model_file, "--data", data]
    refuses("missing -o OUT", *run)
    refuses("there is no folder", *run, "-o", tmp_path / "nowhere" / "out.safetensors")
    refuses("has no SE", "fold", always_cat, "--data", data, "--dry-run")
    refuses("--max-drop must be 0 to 100 percentage points", *run, "--dry-run", "--max-drop", -1)
    refuses("--confidence must be between", *run, "--dry-run", "--confidence", 2)
    refuses("unknown SE module in --blocks 'layer9.*'", *run, "--dry-run", "--blocks", "layer9.*")
    # What depends on the command line alone comes before data are opened and gates recorded.
    late = ["fold", model_file, "--data", tmp_path / "none", "--dry-run"]
    refuses("--max-drop must be 0 to 100 percentage points", *late, "--max-drop", "nan")
    refuses("--confidence must be between", *late, "--confidence", 0.1)
    refuses("unknown SE module in --blocks 'layer9.*'", *late, "--blocks", "layer9.*")
    (tmp_path / "broken.npz").write_bytes(b"")
    refuses("broken.npz", *run, "--dry-run", "--gates", tmp_path / "broken.npz")
