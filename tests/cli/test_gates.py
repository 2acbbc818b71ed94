import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import senet
from senet.evaluation import InputOptions, loader_for
from senet.gates import load_gates
from tests.cli.helpers import answer, invoke, refuses
from tests.gates.recorded import save_as_0_1
from tests.helpers import randomise

FILES = {
    "gates.safetensors",
    "gates.html",
    "diagnosis.json",
    "figure6.png",
    "figure6.pdf",
    "figure7.png",
    "figure7.pdf",
}


def test_leaves_a_recording_a_page_and_figures(data: Path, model_file: Path, tmp_path: Path) -> None:
    found = answer("gates", model_file, "--data", data, "-o", tmp_path / "out", "--threshold", "specific=0.9")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert json.loads((tmp_path / "out" / "diagnosis.json").read_text()) == found
    assert [block["label"] for block in found["blocks"]] == [f"SE_{s}_{u}" for s in (2, 3, 4) for u in (1, 2, 3)]
    assert found["thresholds"]["specific"] == 0.9
    assert all(block["ablations"][0]["by"] == "mean" for block in found["blocks"])
    recorded = load_gates(tmp_path / "out" / "gates.safetensors")
    assert (recorded.images, recorded.classes, recorded.complete) == (4, ["cat", "dog"], True)
    page = (tmp_path / "out" / "gates.html").read_text()
    assert f"<h1>{recorded.network} on data</h1>" in page


@pytest.mark.usefixtures("no_pictures")
def test_table_and_advice(data: Path, model_file: Path, tmp_path: Path) -> None:
    result = invoke(
        "gates", model_file, "--data", data, "-o", tmp_path / "out", "--no-ablation", "--classes", "dog,cat"
    )
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("SE_")]
    assert len(rows) == 9
    assert "layer1.0.bn2.se" in rows[0]
    assert "ablation" not in result.stdout.splitlines()[0]
    assert "Ablate each block" in result.stdout
    assert "gates.html" in result.stderr


@pytest.mark.usefixtures("no_pictures")
def test_resumes_a_recording(data: Path, model_file: Path, tmp_path: Path) -> None:
    options = ["gates", model_file, "--data", data, "-o", tmp_path / "out", "--no-ablation"]
    first = answer(*options)
    refuses("gates.safetensors already exists; resume it with --resume", *options)
    assert answer(*options, "--resume") == first


@pytest.mark.usefixtures("no_pictures")
def test_resumes_a_recording_of_0_1(data: Path, model_file: Path, tmp_path: Path) -> None:
    """Its .npz is refused without --resume, and with it becomes a file of the new format."""
    options = ["gates", model_file, "--data", data, "-o", tmp_path / "out", "--no-ablation"]
    first = answer(*options)
    recording = tmp_path / "out" / "gates.safetensors"
    recorded, before = load_gates(recording), recording.read_bytes()
    recording.unlink()
    save_as_0_1(recorded, tmp_path / "out" / "gates.npz")
    refuses("gates.npz already exists; resume it with --resume", *options)
    assert answer(*options, "--resume") == first
    assert recording.read_bytes() == before


@pytest.mark.usefixtures("no_pictures")
def test_networks_of_others(data: Path, tmp_path: Path) -> None:
    model = randomise(senet.create_model("timm/test_efficientnet", num_classes=2))
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "label_names": ["cat", "dog"]}
    senet.save(model, tmp_path / "timm.safetensors")
    found = answer("gates", tmp_path / "timm.safetensors", "--data", data, "-o", tmp_path / "out", "--by", "one")
    assert len(found["blocks"]) == len(senet.graph.se_modules.find_se(model))
    assert {block["ablations"][0]["by"] for block in found["blocks"]} == {"one"}


def test_refuses(data: Path, model_file: Path, always_cat: Path, tmp_path: Path) -> None:
    run = ["gates", model_file, "--data", data, "-o", tmp_path / "out"]
    refuses("has no SE", "gates", always_cat, *run[2:])
    refuses("unknown threshold 'specifik'; did you mean 'specific'", *run, "--threshold", "specifik=1")
    refuses("must be a number, got 'high'", *run, "--threshold", "specific=high")
    refuses("invalid --threshold 'specific': expected KEY=VALUE", *run, "--threshold", "specific")
    refuses("unknown class in --classes 'dgo'; did you mean 'dog'", *run, "--classes", "cat,dgo")
    refuses("unknown --by 'two'", *run, "--by", "two", status=2)
    refuses("channels must be 1 or more, got 0", *run, "--channels", 0)
    refuses("channels must be at most 65,536, got 99999999999", *run, "--channels", 99999999999)
    refuses("--confidence must be between 0 and 1, such as 0.95, got 2", *run, "--confidence", 2)
    assert not (tmp_path / "out" / "gates.safetensors").exists()
    refuses("no file at", "gates", tmp_path / "nothing.safetensors", *run[2:])
    (tmp_path / "file").write_text("")
    refuses("file", *run[:-1], tmp_path / "file" / "out")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "gates.safetensors").write_bytes(b"no archive")
    refuses("gates.safetensors", *run, "--resume")


@pytest.mark.usefixtures("no_pictures")
def test_another_network_does_not_go_on_with_a_recording(data: Path, model_file: Path, tmp_path: Path) -> None:
    run = ["--data", data, "-o", tmp_path / "out", "--no-ablation"]
    answer("gates", model_file, *run)
    other = tmp_path / "other.safetensors"
    senet.save(randomise(senet.load(model_file)), other)
    refuses("weights", "gates", other, *run, "--resume")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["gates.safetensors"])
def test_resumes_a_part(data: Path, model_file: Path, tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    answer("gates", model_file, "--data", data, "-o", whole, "--batch", 1, "--no-ablation")
    loader = loader_for(senet.load(model_file), str(data), InputOptions(batch=1))
    steps = iter(range(2))

    def stop(numbers, total, what):  # type: ignore[no-untyped-def]
        for number in numbers:
            if what.startswith("record") and next(steps, None) is None:
                raise KeyboardInterrupt
            yield number

    cut.mkdir()
    with pytest.raises(KeyboardInterrupt):
        senet.record_gates(senet.load(model_file), loader, output=cut / name, every=0, progress=stop)
    assert load_gates(cut / name).images == 2
    answer("gates", model_file, "--data", data, "-o", cut, "--batch", 1, "--no-ablation", "--resume")
    one, two = load_gates(whole / name), load_gates(cut / name)
    for a, b in zip(one.blocks, two.blocks, strict=True):
        assert np.array_equal(a.gates.means, b.gates.means)
        assert np.array_equal(a.gates.histogram, b.gates.histogram)
    shutil.rmtree(cut)
